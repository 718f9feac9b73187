"""Reads a checkpoint whoever wrote it: .pth, .pt, .ckpt, .bin or .safetensors, one file or shards, wrapped or prefixed.

Tensors are read from disk one at a time, so reading costs no memory of its own. Nothing in a checkpoint is ever
executed: `hubtools.foreign` lists what a pickle holds.
"""

import re
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from ..errors import UserError, shown, some
from ..foreign.files import open_regular, size_of
from ..foreign.safetensors import read_index
from ..foreign.tensors import Other, StoredTensor, load_pickle, stored_in_safetensors
from .towers import TOWER_PREFIXES, tower_prefix

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
SUFFIXES = (".safetensors",) + TORCH_SUFFIXES
WRAPPERS = ("model", "state_dict", "model_state_dict")
# Keys under which training code keeps what is no model, though it may hold tensors by name.
TRAINING_STATE = ("optimizer", "optimizers", "optimizer_state_dict", "optimizer_states", "optim", "scheduler",
                  "lr_scheduler", "lr_schedulers", "scaler", "callbacks", "loops", "hyper_parameters", "args", "config",
                  "rng_state", "metrics")  # fmt: skip
# What training code and bigger models put before the names of a model: DistributedDataParallel, torch.compile, PEFT,
# Lightning modules, classifiers around a backbone, and language models around a vision tower.
USUAL_PREFIXES = (
    "module.",
    "_orig_mod.",
    "base_model.model.",
    "model.",
    "vision_tower.",
    "vision_model.",
    "visual.",
    "backbone.",
)
PREFIXES = re.compile(f"^(?:{'|'.join(map(re.escape, USUAL_PREFIXES))})+")


class Checkpoint:
    """The tensors of a checkpoint by name, without wrappers and prefixes.

    A context manager. `names()` is in file order; `shape(name)` and `dtype(name)` read no tensor data;
    `tensor(name)` reads the tensor.
    """

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, Tuple[object, str]],
        prefix: Optional[str] = None,
        left_out: Sequence[str] = (),
        absent: Sequence[Path] = (),
    ):
        self.path = path
        self._entries = strip_prefixes(below(prefix, entries, path), path)  # name -> (shard, name in the shard)
        self.left_out = list(left_out)  # names of the tensors that do not begin with the prefix
        self.absent = list(absent)  # shards that are not there, and may hold more of them

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def names(self) -> List[str]:
        return list(self._entries)

    def shape(self, name: str) -> Tuple[int, ...]:
        shard, key = self._entries[name]
        return shard.shape(key)

    def dtype(self, name: str) -> torch.dtype:
        shard, key = self._entries[name]
        return shard.dtype(key)

    def tensor(self, name: str, index: int = 0, count: int = 1) -> torch.Tensor:
        """The tensor, or the `index`-th of `count` equal blocks of it on dimension 0."""
        shard, key = self._entries[name]
        return shard.tensor(key, index, count)

    def close(self) -> None:
        """Closes the files. The checkpoint is empty afterwards."""
        self._entries = {}


class _Shard:
    """The tensors of one file."""

    def __init__(self, path: Path, tensors: Mapping[str, StoredTensor]):
        self.path = path
        self._tensors = tensors

    def names(self):
        return list(self._tensors)

    def shape(self, name):
        return self._tensors[name].shape

    def dtype(self, name):
        return self._tensors[name].dtype

    def tensor(self, name, index, count):
        stored = self._tensors[name]
        return (stored if count == 1 else stored.block(index, count)).read()


def open_checkpoint(path, key: Optional[str] = None, prefix: Optional[str] = None) -> Checkpoint:
    """Opens a checkpoint for reading.

    Args:
        path: a .pth/.pt/.ckpt/.bin/.safetensors file, an index of shards (`*.index.json`), or a folder that holds one
            checkpoint.
        key: which state dict of a pickled file, such as `model_ema`; dots lead into dictionaries inside. None takes
            the only one.
        prefix: take the tensors whose names begin with it, without it; None takes all, without USUAL_PREFIXES, or
            of a language model its vision tower. Of indexed shards only those that hold such a tensor are opened.

    Raises:
        UserError: no such file, not a checkpoint, truncated, missing shards, pickled code, two candidates in a folder
            or a file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist")
    files = shard_files(path)
    promised = [name for _, names in files for name in names or ()]
    if promised:  # by an index, so that shards without any of the tensors asked for need not exist
        prefix = prefix or tower_prefix(promised, path)
        below(prefix, dict.fromkeys(promised), path)
        files = [(file, names) for file, names in files if any(name.startswith(prefix or "") for name in names)]
    absent = [file for file, names in files if names is None and not file.exists()]
    entries = _entries_of([shard for shard in files if shard[0] not in absent], path, key)
    prefix = prefix or tower_prefix(entries, path)
    if absent and prefix not in TOWER_PREFIXES:
        raise UserError(f"{absent[0]} is missing")
    others = [name for name in promised or entries if not name.startswith(prefix or "")]
    return Checkpoint(path, entries, prefix, others, absent)


def _entries_of(files: Sequence[Tuple[Path, Optional[set]]], path: Path, key: Optional[str]):
    """The tensors of all files by name, each with its shard; a file must hold the names promised for it."""
    entries: Dict[str, Tuple[object, str]] = {}
    for file, expected in files:
        shard = _open_shard(file, key)
        names = shard.names()
        if expected is not None and set(names) != expected:
            strays = sorted(set(names) ^ expected)
            raise UserError(f"shard {file} and its index disagree about {some(strays)}")
        repeated = [name for name in names if name in entries]
        if repeated:
            raise UserError(f"{path}: {some(repeated)} in more than one shard")
        entries.update({name: (shard, name) for name in names})
    if not entries:
        raise UserError(f"checkpoint {path} holds no tensors")
    return entries


def _open_shard(file: Path, key: Optional[str]):
    if not file.exists():
        raise UserError(f"{file} is missing")
    with open_regular(file) as opened:
        if size_of(opened) == 0:
            raise UserError(f"{file} is empty")
    if file.suffix == ".safetensors":
        if key is not None:
            raise UserError(
                f"--key {key} chooses among the state dicts of a pickled file; {file} is safetensors, which holds one"
            )
        return _Shard(file, stored_in_safetensors(file))
    if file.suffix in TORCH_SUFFIXES:
        return _Shard(file, state_dict_of(load_pickle(file), file, key))
    raise UserError(f"{file} is not a checkpoint by its name; accepted endings: {', '.join(SUFFIXES)}, .index.json")


def shard_files(path: Path) -> List[Tuple[Path, object]]:
    """The files that make up the checkpoint at `path`, each with the set of names its index promises (None without
    index)."""
    if path.is_dir():
        path = checkpoint_file_in(path)
    if path.name.endswith(".index.json"):
        return indexed_files(path)
    numbered = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\.\w+)", path.name)
    if not numbered:
        return [(path, None)]
    stem, count, suffix = numbered.groups()
    return [(path.with_name(f"{stem}-{i:05d}-of-{count}{suffix}"), None) for i in range(1, int(count) + 1)]


def checkpoint_file_in(folder: Path) -> Path:
    """The one checkpoint of a folder: an index before the shards it names, safetensors before pickles."""
    for suffix in (".safetensors",) + TORCH_SUFFIXES:
        indexes = sorted(folder.glob(f"*{suffix}.index.json"))
        files = sorted(folder.glob(f"*{suffix}"))
        sharded = [file for file in files if re.search(r"-\d{5}-of-\d{5}$", file.stem)]
        candidates = indexes or [file for file in files if file not in sharded] or sharded[:1]
        if len(candidates) > 1:
            raise UserError(f"{folder} holds several checkpoints: {some(c.name for c in candidates)}; name the file")
        if candidates:
            return candidates[0]
    raise UserError(
        f"{folder} holds no checkpoint; looked for {', '.join('*' + s for s in SUFFIXES)} and their *.index.json"
    )


def indexed_files(index: Path) -> List[Tuple[Path, set]]:
    shards: Dict[str, set] = {}
    for name, file in read_index(index)[0].items():
        shards.setdefault(file, set()).add(name)
    return [(index.with_name(file), shards[file]) for file in sorted(shards)]


def state_dict_of(loaded: object, path: Path, key: Optional[str] = None) -> Dict[str, StoredTensor]:
    """Unwraps `{"model": {...}, "optimizer": ...}` and its kin down to the dictionary of tensors.

    Raises:
        UserError: several state dicts and no key, a key that leads to none, something else than tensors among them.
    """
    found = state_dicts_in(loaded)
    if key is not None and key not in found:
        raise UserError(
            f"{path} has no state dict {shown(key)}; it has: {some(filter(None, found)) or 'none under a key'}"
        )
    first = next(iter(found.values()), loaded)
    if key is None and any(state != first for state in found.values()):
        raise UserError(f"{path} holds several state dicts: {some(found)}; choose one with --key")
    state = found[key] if key is not None else first
    accepted = f"accepted: a state dict, bare or under {', '.join(WRAPPERS)} or another key"
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds a {state if isinstance(state, Other) else 'tensor'}; {accepted}")
    foreign = [
        f"{name} ({value})" if isinstance(value, Other) else name
        for name, value in state.items()
        if not isinstance(value, StoredTensor)
    ]
    if foreign:
        raise UserError(f"{path}: not tensors: {some(foreign)}; {accepted}")
    return dict(state)


def state_dicts_in(loaded: object, key: str = "") -> Dict[str, Mapping]:
    """Every state dict inside what a pickle holds, by the way to it: "", "model", "model.state_dict", ..."""
    if not isinstance(loaded, Mapping):
        return {}
    inside = {
        name: value for name, value in loaded.items() if isinstance(value, Mapping) and name not in TRAINING_STATE
    }
    wrapped = any(name in WRAPPERS for name in inside)
    if _has_weights(loaded) and not wrapped or not inside and key.split(".")[-1] in WRAPPERS:
        return {key: loaded}
    found: Dict[str, Mapping] = {}
    for name, value in inside.items():
        found.update(state_dicts_in(value, f"{key}.{name}" if key else name))
    return found


def _has_weights(content: Mapping) -> bool:
    """Whether a dictionary is a state dict, and not one of counts, scales or random states that training keeps as
    well."""
    return any(
        isinstance(value, StoredTensor) and value.dtype.is_floating_point and value.shape for value in content.values()
    )


def below(prefix: Optional[str], entries: Mapping[str, object], path: Path) -> Dict[str, object]:
    """The entries whose names begin with `prefix`, without it."""
    if not prefix:
        return dict(entries)
    chosen = {
        name[len(prefix) :]: value for name, value in entries.items() if name.startswith(prefix) and name != prefix
    }
    if not chosen:
        raise UserError(f"{path}: no tensor's name begins with {prefix!r}; there are {some(entries, 3)}")
    return chosen


def strip_prefixes(entries: Mapping[str, object], path: Path) -> Dict[str, object]:
    """Removes USUAL_PREFIXES, however many there are, and what torch.compile puts into the middle of names."""
    stripped: Dict[str, object] = {}
    for name, value in entries.items():
        clean = PREFIXES.sub("", name).replace("._orig_mod.", ".") or name
        if clean in stripped:
            raise UserError(
                f"{path}: {name} and another tensor are both {clean} without their prefix; --prefix takes only "
                "those with one"
            )
        stripped[clean] = value
    return stripped
