"""Checks that need no model: which files a folder holds, what its JSON says, and whether its code is the package's."""

import os
import re
from math import prod
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set, Tuple

from ..errors import UserError, plain, shown
from ..foreign.files import open_regular, read_bounded, read_json_object
from ..foreign.schema import check_config_file, check_processor_file, check_video_file
from ..foreign.sizes import described_by
from ..packages import PACKAGES, Package, package_of_type
from .check import CheckFailed, fail_if
from .exported import PROGRAM, is_exported, why_not_plain
from .weight_files import DTYPES, Tensor

CONFIG_NAME = "config.json"
PROCESSOR_NAME = "preprocessor_config.json"
VIDEO_PROCESSOR_NAME = "video_preprocessor_config.json"
EXAMPLE_NAME = "example_usage.py"
EXAMPLES = Path(__file__).resolve().parents[1] / "assembly" / "templates"
IGNORED_FOLDERS = (".git", ".cache")  # kept by git and by hub downloads; neither is uploaded
PICKLED = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".npy",
    ".npz",
    ".h5",
    ".keras",
    ".msgpack",
    ".mar",
    ".nemo",
)
EXECUTABLE = (".py", ".pyc", ".pyo", ".pyd", ".pyw", ".ipynb", ".sh", ".bash", ".zsh", ".bat", ".cmd", ".ps1", ".so", ".dylib",
              ".dll", ".exe", ".com", ".jar", ".js", ".wasm", ".whl", ".egg", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")  # fmt: skip
MAGIC = (  # what a file is, whatever it is called
    (re.compile(rb"\x80[\x02-\x05]"), "a pickle"),
    (re.compile(rb"PK\x03\x04"), "a zip archive or a PyTorch checkpoint"),
    (re.compile(rb"#!"), "a script"),
    (re.compile(rb"\x7fELF|MZ|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe"), "a program"),
)
ROUGHLY_NONE = 10**7  # parameters that a wrong size may add and still be told by loading the model
ATTENTION_KEY = re.compile(
    r"_?attn_implementation\w*|_?attention_implementation|_?attn_\w*_internal|_?use_(flash_attention|sdpa|flex_attention)\w*|_flash_attn\w*"
)


def read_config(folder: Path) -> dict:
    """config.json as a dictionary.

    Raises:
        UserError: not a model's folder at all.
        CheckFailed: a file that is not a JSON object.
    """
    path = folder / CONFIG_NAME
    if not os.path.lexists(path):
        raise UserError(f"{folder} is not a model's folder: it has no {CONFIG_NAME}")
    return _read_json(path)


def _read_json(path: Path) -> dict:
    try:
        return read_json_object(path)
    except UserError as error:
        raise CheckFailed(str(error).replace(f"{path}", path.name, 1)) from error


def check_values(folder: Path, config: dict, package: Package) -> None:
    """Every value of config.json and of the processors' files is of a type, and within bounds, from which they can be built.

    Raises:
        CheckFailed: names the first that is not.
    """
    try:
        check_config_file(config, package, CONFIG_NAME)
        if os.path.lexists(folder / PROCESSOR_NAME):
            check_processor_file(_read_json(folder / PROCESSOR_NAME), package, PROCESSOR_NAME)
        if package.video_processor and os.path.lexists(folder / VIDEO_PROCESSOR_NAME):
            check_video_file(_read_json(folder / VIDEO_PROCESSOR_NAME), package, VIDEO_PROCESSOR_NAME)
    except UserError as error:
        raise CheckFailed(str(error)) from error


def refuse_quantised(config: dict) -> None:
    """Raises CheckFailed for a folder that save_pretrained wrote of a quantised model: its weights are no model's alone."""
    settings = config.get("quantization_config")
    if settings is not None:
        method = settings.get("quant_method") if isinstance(settings, dict) else settings
        raise CheckFailed(
            f"the folder is saved in quantised form ({str(method)[:40]}), as quantization_config of {CONFIG_NAME} says; "
            "accepted: whole weights; verify the folder that it was made from, and quantise where it is loaded"
        )


def package_of(config: dict) -> Package:
    """The package whose models the configuration describes."""
    package = package_of_type(config.get("model_type"))
    if package:
        return package
    known = ", ".join(package.model_type for package in PACKAGES.values())
    raise CheckFailed(f"{CONFIG_NAME} has model_type {shown(config.get('model_type'))}; known: {known}")


def architecture_of(config: dict, package: Package) -> str:
    """The class that the weights belong to."""
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and named[0] in package.models.values():
        return named[0]
    raise CheckFailed(
        f"{CONFIG_NAME} has architectures {shown(named)}; accepted: a list of one of {', '.join(package.models.values())}"
    )


def check_amount(config: dict, package: Package, tensors: Dict[str, Tensor]) -> None:
    """There are weights for the model that config.json describes: what is missing would be made up, whatever its size.

    Raises:
        CheckFailed: the description has more than twice the parameters.
    """
    described, held = described_by(package, config), sum(prod(tensor.shape) for tensor in tensors.values())
    if described > 2 * held + ROUGHLY_NONE:
        raise CheckFailed(
            f"{CONFIG_NAME} describes a model of {described:,} parameters, the weights hold {held:,} (sizes such as num_hidden_layers are wrong)"
        )


def check_files(folder: Path, package: Optional[Package]) -> str:
    """Nothing that runs or unpickles beside the package's code files, and everything needed is there."""
    known = set(code_files(package)) if package else set()
    problems, count = [], 0
    for path in walk(folder):
        count += 1
        problem = _problem_of(path, path.relative_to(folder).as_posix(), known)
        if problem:
            problems.append(problem)
    if not (folder / PROCESSOR_NAME).is_file():
        problems.append(f"{PROCESSOR_NAME} is missing, so no processor can be loaded")
    if package and package.video_processor and not (folder / VIDEO_PROCESSOR_NAME).is_file():
        problems.append(f"{VIDEO_PROCESSOR_NAME} is missing, so no processor of video files can be loaded")
    return fail_if(problems, f"{count} files, weights as safetensors, no code beside the package's")


def walk(folder: Path) -> Iterator[Path]:
    """Every file of a folder that would be uploaded."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in IGNORED_FOLDERS)
        for name in sorted(files):
            yield Path(parent) / name


def _problem_of(path: Path, name: str, known: set) -> Optional[str]:
    suffix = path.suffix.lower()
    if name in known or name == EXAMPLE_NAME:
        return None
    if name == PROGRAM:
        obstacle = "is a link" if path.is_symlink() else why_not_plain(path)
        return f"{name} {obstacle}" if obstacle else None
    if is_exported(name) and not path.is_symlink():
        return None  # a protobuf and its weights, whatever bytes they start with
    if suffix in EXECUTABLE:
        return f"{name} is code or an archive that the package does not have"
    if suffix in PICKLED:
        return f"{name} may be pickled; weights are accepted as safetensors only"
    try:
        with open_regular(path) as file:
            start = file.read(4)
    except UserError:
        return f"{name} is not a readable file"
    what = next((what for pattern, what in MAGIC if pattern.match(start)), None)
    return f"{name} is {what} by its content" if what else None


def code_files(package: Package) -> Dict[str, Path]:
    """The code files that a folder of this package may hold, and the package's own copy of each."""
    return {f"{module}.py": package.folder / f"{module}.py" for module in package.modules(package.processors)}


def check_sizes(config: dict, package: Package, tensors: Dict[str, Tensor]) -> None:
    """The sizes that config.json states are those of the weights: otherwise loading ends with a list of tensors, or without one."""
    try:
        sizes = package.sizes_of({name: tensor.shape for name, tensor in tensors.items()})
    except (KeyError, IndexError):  # a tensor is missing or of another kind; "weights: loaded" names it
        return
    labels = config.get("id2label")
    stated = {**config, **({"num_labels": len(labels)} if isinstance(labels, dict) else {})}
    # Sizes that are no numbers follow from a tensor's being there: a missing one is named later, as such.
    fail_if([f"{CONFIG_NAME} has {key} {stated[key]!r}, the weights have {size}" for key, size in sizes.items()
             if type(size) is int and stated.get(key) is not None and stated[key] != size], "")  # fmt: skip


def check_config(folder: Path, config: dict, package: Package, tensors: Dict[str, Tensor]) -> str:
    """config.json and preprocessor_config.json say what every release of transformers needs, and nothing that harms."""
    problems = [
        f"{CONFIG_NAME} holds the attention setting {key}, which would be obeyed everywhere"
        for key in attention_keys(config)
    ]
    problems += _dtype_problems(config, tensors)
    problems += _auto_map_problems(CONFIG_NAME, config.get("auto_map"), package.auto_map(), package)
    if (folder / PROCESSOR_NAME).is_file():
        processor = _read_json(folder / PROCESSOR_NAME)
        if "auto_map" in processor and not package.video_processor:
            problems += _auto_map_problems(PROCESSOR_NAME, processor["auto_map"], {}, package)
        if package.processors_if_named:
            problems += _choice_problems(config, processor, package)
    if package.video_processor:
        problems += _video_problems(folder, config, package)
    architecture = architecture_of(config, package)
    return fail_if(
        problems,
        f"{architecture}, {config.get('torch_dtype')}, auto_map names {', '.join(config.get('auto_map') or ())}",
    )


def _choice_problems(config: dict, processor: dict, package: Package) -> List[str]:
    """config.json, by which pipelines go, and preprocessor_config.json must speak of the same image processor."""
    auto_map = config.get("auto_map")
    named = {auto for auto in package.processors if isinstance(auto_map, dict) and auto in auto_map}
    if bool(named) == package.has_own_processor(processor):
        return []
    kind = shown(processor.get("image_processor_type"))
    return [
        f"the auto_map of {CONFIG_NAME} {'names' if named else 'lacks'} {', '.join(package.processors)}, and "
        f"{PROCESSOR_NAME} has image_processor_type {kind}: pipelines would read images otherwise"
    ]


def _video_problems(folder: Path, config: dict, package: Package) -> List[str]:
    """What keeps `AutoProcessor` and `AutoVideoProcessor` from the package's video processor, and the processor from the model."""
    problems: List[str] = []
    if (folder / PROCESSOR_NAME).is_file():
        content = _read_json(folder / PROCESSOR_NAME)
        expected = package.processor_auto_map(content, "AutoImageProcessor")
        problems += _auto_map_problems(PROCESSOR_NAME, content.get("auto_map"), expected, package)
    if (folder / VIDEO_PROCESSOR_NAME).is_file():
        auto_map = _read_json(folder / VIDEO_PROCESSOR_NAME).get("auto_map")
        problems += _auto_map_problems(VIDEO_PROCESSOR_NAME, auto_map, package.video_processor.auto_map, package)
    if not (folder / VIDEO_PROCESSOR_NAME).is_file():
        return problems
    stated = _read_json(folder / VIDEO_PROCESSOR_NAME)
    for key, wanted in (
        ("video_processor_type", package.video_processor.class_name),
        ("patch_size", config.get("patch_size")),
    ):
        if wanted is not None and stated.get(key) != wanted:
            problems.append(f"{VIDEO_PROCESSOR_NAME} has {key} {shown(stated.get(key))}, not {wanted}")
    return problems


def attention_keys(value: object, path: str = "") -> List[str]:
    """The keys, at any depth, that would choose an attention implementation for whoever loads the model."""
    if not isinstance(value, dict):
        return []
    found = [path + key for key in value if ATTENTION_KEY.fullmatch(key)]
    for key, inner in value.items():
        found += attention_keys(inner, f"{path}{key}.")
    return found


def _dtype_problems(config: dict, tensors: Dict[str, Tensor]) -> List[str]:
    names = {dtype for _, dtype in DTYPES.values() if "float" in dtype}
    stated = config.get("torch_dtype")
    if stated is None:
        hint = "; dtype alone is ignored before transformers 4.56" if "dtype" in config else ""
        return [f"{CONFIG_NAME} has no torch_dtype{hint}"]
    if not isinstance(stated, str) or stated not in names:
        return [f"{CONFIG_NAME} has torch_dtype {shown(stated)}; accepted: {', '.join(sorted(names))}"]
    stored = sorted({tensor.dtype for tensor in tensors.values() if tensor.dtype in names})
    if stored and stated not in stored:
        return [f"{CONFIG_NAME} has torch_dtype {stated}, the weights are {' and '.join(stored)}"]
    return []


def _auto_map_problems(file: str, auto_map: object, required: Dict[str, str], package: Package) -> List[str]:
    if not isinstance(auto_map, dict) or not auto_map:
        return [f"{file} has no auto_map, so no Auto class finds the code"]
    known = package.targets()
    problems = [f"the auto_map of {file} lacks {auto}" for auto in required if auto not in auto_map]
    for auto, target in auto_map.items():
        if auto not in known:
            problems.append(f"the auto_map of {file} has {plain(auto, 80)}; known: {', '.join(known)}")
        elif target != known[auto]:
            problems.append(f"the auto_map of {file} points {auto} to {shown(target)}, not to {known[auto]}")
    return problems


def code_in_use(config: dict, package: Package) -> Set[str]:
    """The code files that the folder's auto_map leads to."""
    return {f"{module}.py" for module in package.modules(config.get("auto_map") or {})}


def check_code(folder: Path, config: dict, package: Package) -> str:
    """The folder's code is byte for byte the package's."""
    own = code_files(package)
    needed = code_in_use(config, package)
    present = {name for name in own if (folder / name).is_file()}
    problems = [f"{name} is missing" for name in sorted(needed - present)]
    problems += [f"{name} is not a regular file" for name in own if (folder / name).exists() and name not in present]
    problems += foreign_entries(folder, package)
    for name in sorted(present):
        problem = _difference(folder / name, own[name])
        if problem:
            problems.append(problem)
    return fail_if(problems, f"{', '.join(sorted(present))}: byte for byte the package's")


def why_no_example(folder: Path) -> str:
    """Why the folder's example is not run, or "" where it is one of ours, byte for byte: nothing else in it may run."""
    path = folder / EXAMPLE_NAME
    if not path.is_file():
        return f"the folder has no {EXAMPLE_NAME}"
    theirs = path.read_bytes()
    own = any(theirs == template.read_bytes() for template in EXAMPLES.glob("*_example.py"))
    return "" if own else f"not run: {EXAMPLE_NAME} is none that assemble.py writes"


def foreign_entries(folder: Path, package: Package) -> List[str]:
    """Entries of any JSON file by which an Auto class or a pipeline would run something that is not the package's.

    They are looked for at every depth and in every file at the top, whether or not today's transformers reads them there.
    """
    known = package.targets()
    problems = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".index.json"):
            continue
        try:
            content = _read_json(path)
        except CheckFailed as error:
            problems.append(str(error))
            continue
        for key, value in _entries(content):
            if key == "custom_pipelines":
                problems.append(f"{path.name} names custom_pipelines, which run code")
            elif key == "auto_map":
                entries = value.items() if isinstance(value, dict) else [("auto_map", value)]
                problems += [f"the auto_map of {path.name} points {shown(auto)} to {shown(to)}, which is not the package's"
                             for auto, to in entries if to is None or known.get(auto) != to]  # fmt: skip
    return problems


def _entries(value: object) -> Iterator[Tuple[str, object]]:
    """Every key at any depth, with its value."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            yield from item.items()
            left += item.values()
        elif isinstance(item, list):
            left += item


def _difference(path: Path, original: Path) -> Optional[str]:
    ours = original.read_bytes()
    try:
        theirs = read_bounded(path, 100 * len(ours))
    except UserError as error:
        return f"{path.name} differs from the package's: {error}"
    if theirs == ours:
        return None
    pairs: Iterator[Tuple[int, Tuple[bytes, bytes]]] = enumerate(zip(theirs.split(b"\n"), ours.split(b"\n")), 1)
    line = next((number for number, (a, b) in pairs if a != b), min(theirs.count(b"\n"), ours.count(b"\n")) + 1)
    return f"{path.name} differs from the package's, first in line {line}"
