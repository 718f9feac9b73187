"""Makes files that no honest tool writes: for `test_foreign_input.py`. Each maker gives what to write, never writes it."""

import inspect
import io
import json
import pickle
import pickletools
import struct
import zipfile
from types import MappingProxyType
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import torch

BIDI, ESCAPE = "a\u202eb", "\x1b[2Jgone"
DEEP = 100_000
NOT_INTEGERS = (True, 3.5, "3", [], [3], {}, {"a": 1}, -1, 0, 10**30, 1e300, [[[[]]]])
NOT_FLAGS = (1, 0, 0.5, "true", [], [True], {}, {"a": True})
NOT_NUMBERS = ("1e-5", True, [], [0.1], {}, {"a": 1.0}, 10**400)
NOT_WORDS = (1, 0.5, True, [], ["gelu"], {}, {"a": "gelu"}, "", "a\nb", BIDI, ESCAPE, "x" * 1000)
WRONG_TYPES = {bool: NOT_FLAGS, int: NOT_INTEGERS, float: NOT_NUMBERS, str: NOT_WORDS}
WRONG_LISTS = ("3", 3.5, {}, {"0": 1}, [None], [[3]], ["3"], [{}], [1e300], [10**30], [-1])
LEGAL = (("frame_windows_size", 0), ("out_indices", [-1]))  # none, and the last
WRONG_LABELS = (
    [], ["a", "b"], "a", 5, True, {"1": "a"}, {"0": "a", "2": "b"}, {"0": None}, {"0": ["a"]}, {"0": 5}, {"0": ""}, {"0": "a\nb"},
    {"0": BIDI}, {"0": ESCAPE}, {"zero": "a"}, {"-1": "a", "0": "b"}, {"0.0": "a"}, {"00": "a"}, {"0": "x" * 10_000}, {"٠": "a"},
)  # fmt: skip
WRONG_LABEL_NUMBERS = (
    [], "a", 5, {"a": 0}, {"a": 0, "b": 0}, {"a": 0, "b": 2}, {"a": "0", "b": 1}, {"a": None, "b": 1}, {"a": 0, "b": 1, "c": 2}, {"a": 1, "b": 0}, {"a": 0.0, "b": 1},
)  # fmt: skip
WRONG_GENERIC = {
    "model_type": (None, 5, [], {}, "bert", ["llava_vit"], BIDI, ""),
    "architectures": (5, "LlavaViTModel", {}, [5], [None], [["x"]], [BIDI], ["a"] * 50),
    "auto_map": (
        5,
        "x",
        [],
        {"AutoModel": 5},
        {"AutoModel": None},
        {"AutoModel": ["a.b", None]},
        {"AutoModel": ESCAPE},
    ),
    "torch_dtype": (5, [], {}, ["float32"], BIDI),
}
MALFORMED_JSON = {
    "empty": b"", "cut": b'{"hidden_size": 6', "a list": b"[]", "a number": b"5", "null": b"null", "text": b'"x"', "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"), "NaN": b'{"layer_norm_eps": NaN}', "Infinity": b'{"layer_norm_eps": Infinity}',
    "a name twice": b'{"hidden_size": 64, "hidden_size": 128}', "deep lists": b'{"hidden_size": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP, "a lone surrogate": b'{"model_type": "\\ud800"}', "a huge number": b'{"hidden_size": ' + b"9" * 10_000 + b"}",
    "zeros": bytes(1000), "a picture": b"\x89PNG\r\n\x1a\n" + bytes(50), "megabytes": b'{"a": "' + b"x" * 9_000_000 + b'"}',
}  # fmt: skip


def wrong_values(config_class: type) -> Iterator[Tuple[str, Any]]:
    """(field, value) for every field of a configuration, told wrong by the field's default."""
    for name, parameter in inspect.signature(config_class.__init__).parameters.items():
        if name in ("self", "kwargs"):
            continue
        kinds = WRONG_TYPES.get(type(parameter.default))
        for value in kinds if kinds is not None else WRONG_LISTS:
            if (name, value) not in LEGAL:
                yield name, value
    for values, name in ((WRONG_LABELS, "id2label"), (WRONG_LABEL_NUMBERS, "label2id")):
        for value in values:
            yield name, value


def with_value(config: Dict[str, Any], name: str, value: Any) -> bytes:
    changed = {**config, name: value}
    if name == "label2id":
        changed["id2label"] = {"0": "a", "1": "b"}
    if name == "id2label":
        changed.pop("label2id", None)
        changed.pop("num_labels", None)
    return json.dumps(changed).encode()


# --- safetensors ------------------------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", length: int = -1) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length < 0 else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> Dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def safetensors_files() -> Dict[str, bytes]:
    eight = bytes(8)
    files = {
        f"an entry that is {value!r}": safetensors({"a": value}, eight)
        for value in (None, 5, "x", [], {}, True, {"dtype": "F32"})
    }
    for value in (None, 5, [], {}, "F8_E4M3", "f32", "", "X" * 500, ESCAPE):
        files[f"the type {value!r}"] = safetensors({"a": entry(dtype=value)}, eight)
    for value in (
        None,
        5,
        "2",
        {},
        [-2],
        [2.0],
        ["2"],
        [None],
        [True],
        [[2]],
        [2**62],
        [2**40, 2**40],
        [10**30],
        [1] * 100,
        [3],
        [0, 2],
    ):
        files[f"the shape {str(value)[:40]}"] = safetensors({"a": entry(shape=value)}, eight)
    for value in (
        None,
        5,
        [],
        [0],
        [0, 8, 8],
        ["0", "8"],
        [0.0, 8.0],
        [8, 0],
        [-8, 0],
        [0, 2**63],
        [None, 8],
        [True, 8],
        [4, 12],
        {},
        [0, 16],
    ):
        files[f"the place {str(value)[:40]}"] = safetensors({"a": entry(offsets=value)}, eight)
    files.update({
        "nothing": b"", "seven bytes": bytes(7), "a header of no bytes": bytes(8), "no tensors": safetensors({}), "metadata alone": safetensors({"__metadata__": {"format": "pt"}}),
        "a header that ends early": safetensors({"a": entry()}, eight, length=10), "a header beyond the file": safetensors({"a": entry()}, eight, length=2**40),
        "the longest header": safetensors({"a": entry()}, eight, length=2**64 - 1), "data that is cut": safetensors({"a": entry()}, bytes(7)),
        "data behind": safetensors({"a": entry()}, bytes(9)), "a gap": safetensors({"a": entry(), "b": entry(offsets=[9, 17])}, bytes(17)),
        "an overlap": safetensors({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "a tensor twice": safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), eight),
        "metadata that is a list": safetensors({"__metadata__": [], "a": entry()}, eight), "metadata of numbers": safetensors({"__metadata__": {"a": 5}, "a": entry()}, eight),
        "a list": safetensors([], eight), "text": safetensors(b"not JSON at all", eight), "not UTF-8": safetensors(b'{"\xff": 1}', eight), "NaN": safetensors(b'{"a": NaN}', eight),
        "a key too many": safetensors({"a": entry(more=1)}, eight), "deep": safetensors(b"[" * DEEP + b"]" * DEEP, eight), "escapes in a name": safetensors({ESCAPE: entry(), BIDI: 5}, eight),
        "a header of megabytes": safetensors({f"layer.{i}": entry(shape=[0], offsets=[0, 0]) for i in range(160_000)}),
        "a duplicate among many": safetensors(("{" + ",".join(f'"n{i % 99_999}":1' for i in range(100_000)) + "}").encode(), eight),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(200), "a pickle": pickle.dumps({"a": 1}) + bytes(100), "a zip archive": pickled({"a": torch.zeros(2)}),
    })  # fmt: skip
    return files


# --- pickles ----------------------------------------------------------------------------------------------------------


def pickled(content: Any, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def archive(data: bytes, members: Mapping[str, bytes] = MappingProxyType({}), packed: bool = False) -> bytes:
    """A checkpoint of the zip format around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        made.writestr("archive/data.pkl", data)
        for name, content in members.items():
            made.writestr(f"archive/{name}", content)
    return file.getvalue()


def parts_of(checkpoint: bytes) -> Tuple[bytes, Dict[str, bytes]]:
    """The pickle of a zip checkpoint, and its other members."""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as made:
        members = {name.partition("/")[2]: made.read(name) for name in made.namelist()}
    return members.pop("data.pkl"), members


def cut_at_every_opcode(checkpoint: bytes) -> List[bytes]:
    """The checkpoint with its pickle ended after each of its opcodes, without and with a STOP put there."""
    data, members = parts_of(checkpoint)
    places = [place for _, _, place in pickletools.genops(data)][1:]
    return [archive(data[:place] + ending, members) for place in places for ending in (b"", b".")]


def every_opcode_alone() -> List[bytes]:
    """Every opcode that there is, with nothing and with something on the stack, and no, small, and enormous arguments."""
    arguments = (b"", b"\x00", b"\x7f" * 8, b"\xff" * 8, b"0\n", b"os\nsystem\n", b"a\n" * 3)
    stacks = (b"\x80\x02", b"\x80\x02(", b"\x80\x02}", b"\x80\x02(]K\x01", b"\x80\x04\x8c\x02os\x8c\x06system")
    return [
        stack + opcode.code.encode("latin1") + argument + b"."
        for stack in stacks
        for opcode in pickletools.opcodes
        for argument in arguments
    ]


class Calls:
    """Pickles as a call of any name."""

    def __init__(self, module: str, name: str, *arguments: Any):
        self.data = (
            b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n" + pickle.dumps(arguments, 2)[2:-1] + b"R."
        )


CODE = (("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "__import__"), ("builtins", "getattr"), ("__builtin__", "eval"),
        ("subprocess", "Popen"), ("shutil", "rmtree"), ("importlib", "import_module"), ("torch", "load"), ("torch.hub", "load"), ("torch.serialization", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("collections", "OrderedDict.fromkeys"), ("torch._dynamo", "optimize"), ("numpy", "load"), ("pickle", "loads"),
        ("functools", "partial"), ("operator", "attrgetter"), ("pathlib", "PosixPath"), ("torch.nn.modules.linear", "Linear"), ("runpy", "run_path"), ("webbrowser", "open"))  # fmt: skip


def pickles() -> Dict[str, bytes]:
    """Whole files, by what is wrong with them."""
    state = {"a": torch.zeros(2)}
    data, members = parts_of(pickled(state))
    files = {f"calls {module}.{name}": archive(Calls(module, name, "touch ran").data, members) for module, name in CODE}
    files.update({f"calls {module}.{name}, bare": Calls(module, name, "touch ran").data for module, name in CODE[:6]})
    many = {f"layer.{i}.weight": 1 for i in range(310_000)}
    endless = {"model": None}
    endless["model"] = endless
    nested: Any = ()
    for _ in range(300):
        nested = (nested,)
    sparse = torch.zeros(2, 2).to_sparse()
    files.update({
        "empty": b"", "a picture": b"\x89PNG\r\n\x1a\n" + bytes(200), "zeros": bytes(500), "a tar archive": b"archive/" + bytes(600), "text": b"weights" * 50,
        "an archive of nothing": archive(b""), "an archive without a pickle": _zipped({"archive/version": b"3"}), "two pickles": _zipped({"a/data.pkl": data, "b/data.pkl": data}),
        "a name twice": _zipped_twice(data), "compressed": archive(data, members, packed=True), "a bomb": archive(b"\x80\x02" + b"N" * 50_000_000 + b".", packed=True),
        "big-endian": archive(data, {**members, "byteorder": b"big"}), "TorchScript": archive(data, {**members, "constants.pkl": b"x"}), "no numbers": archive(data),
        "numbers too short": archive(data, {**members, "data/0": bytes(7)}), "a list": pickled([torch.zeros(2)]), "a tensor": pickled(torch.zeros(2)), "a number": pickled(5),
        "none": pickled(None), "no tensors": pickled({}), "numbers among tensors": pickled({**state, "epoch": 3}), "keys that are numbers": pickled({0: torch.zeros(2)}),
        "keys that are none": pickled({None: torch.zeros(2)}), "keys that are tuples": pickled({("a", 1): torch.zeros(2)}), "a dict inside": pickled({"a": {"b": torch.zeros(2)}}),
        "holds itself": pickled(endless), "wrapped without end": pickled(_wrapped(50)), "sparse": pickled({"a": sparse}), "meta": pickled({"a": torch.empty(2, device="meta")}),
        "complex": pickled({"a": torch.zeros(2, dtype=torch.complex64)}), "negative": pickled({"a": torch._neg_view(torch.ones(2))}), "conjugate": pickled({"a": torch.ones(2, dtype=torch.complex64).conj()}),
        "quantised": pickled({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}), "float8": pickled({"a": torch.zeros(2).to(torch.float8_e4m3fn)}),
        "expanded": pickled({"a": torch.zeros(1).expand(100_000, 10_000)}), "too many entries": pickled(many), "escapes": pickled({ESCAPE: 5, BIDI: 6}),
        "memory": archive(_allocation()), "memory in the memo": archive(b"\x80\x02Nr\xff\xff\xff\x7f."), "a long text": archive(b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a."),
        "a deep key": archive(b"\x80\x02}" + b")" + b"\x85" * 3_000_000 + b"Ns."), "deep lists": archive(b"\x80\x02" + b"]" * 3_000_000 + b"a" * 2_999_999 + b"."),
        "a mapped class": archive(b"\x80\x02ctorch\nFloatStorage\n)R."), "a storage of no kind": archive(b"\x80\x02(X\x07\x00\x00\x00storageNNNNtQ."),
        "the old format, cut": pickled(state, legacy=True)[:-4], "the old format, big-endian": _legacy(False), "the old format, strange keys": _legacy(True, keys=[5]),
        "the old format, unknown keys": _legacy(True, keys=["1", "2"]),
    })  # fmt: skip
    return files


def _wrapped(depth: int) -> Any:
    content: Any = {"a": torch.zeros(2)}
    for _ in range(depth):
        content = {"model": content}
    return content


def _zipped(members: Dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


def _zipped_twice(data: bytes) -> bytes:
    return _zipped({"archive/data.pkl": data, "archive/data.pkm": data}).replace(b"data.pkm", b"data.pkl")


def _allocation() -> bytes:
    """bytearray(4 GB), which is a name that a checkpoint may use."""
    return b"\x80\x02cbuiltins\nbytearray\n" + pickle.dumps((4 * 10**9,), 2)[2:-1] + b"R."


def _legacy(little_endian: bool, keys: Sequence[Any] = ()) -> bytes:
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    return b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system, {}, list(keys)))
