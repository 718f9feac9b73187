"""Lists the tensors of a PyTorch checkpoint and where their bytes stand, without making or running any of it.

Runs in a child process (see child.py) and imports no torch. Both containers of torch.save are known: the zip archive, and the
row of pickles from before torch 1.6. Pickles go through Python's own unpickler, whose every name is looked up in a table of
inert stand-ins; a name that is not there is refused, as `torch.load(weights_only=True)` does.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, Tuple

from .child import Refused, answer

MAX_PICKLE_BYTES = 32 * 10**6  # the names, shapes and places of 200,000 tensors
MAX_ENTRIES = 300_000
MAX_DEPTH = 6  # {"checkpoint": {"model": {"state_dict": ...}}}, and room to spare
MAX_DIMENSIONS = 64
LARGEST = 2**62
SMALL = 4096  # bytes: what any tensor may be, however few of them are stored
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex128": 16, "complex64": 8, "complex32": 4,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "qint32": 4, "qint8": 1, "quint8": 1, "quint4x2": 1, "quint2x4": 1,
    "float8_e5m2": 1, "float8_e4m3fn": 1, "float8_e5m2fnuz": 1, "float8_e4m3fnuz": 1, "float8_e8m0fnu": 1,
}  # fmt: skip
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128", "ComplexFloat": "complex64",
    "QInt32": "qint32", "QInt8": "qint8", "QUInt8": "quint8", "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4",
}  # fmt: skip


# --- stand-ins for what a checkpoint may name -------------------------------------------------------------------------


class Inert:
    """Something that is neither a tensor nor a container, whatever it is made from."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass


class Namespace(Inert):
    """argparse's: training loops keep their arguments beside the weights."""


class Kind:
    """A type that is only ever named: of a storage, or of numbers."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str):
        self.dtype = dtype


class Storage:
    """Numbers in the file: `numel` of `dtype`, from item `first` on of what is stored under `key`."""

    __slots__ = ("dtype", "key", "numel", "first")

    def __init__(self, dtype: str, key: Any, numel: Any, first: Any = 0):
        self.dtype, self.key, self.numel, self.first = dtype, key, numel, first


class Tensor:
    """A tensor as its pickle describes it; `odd` says why it is no dense, plain one. Nothing is checked yet."""

    __slots__ = ("storage", "dtype", "offset", "shape", "stride", "odd")

    def __init__(
        self,
        storage: Any = None,
        offset: Any = 0,
        shape: Any = (),
        stride: Any = (),
        dtype: Optional[str] = None,
        odd: str = "",
    ):
        self.storage, self.offset, self.shape, self.stride, self.odd = storage, offset, shape, stride, odd
        self.dtype = dtype or getattr(storage, "dtype", None)


class Maker:
    """A function that a pickle may call: a fixed function of ours behind an object without attributes."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)


def tensor_v2(storage, offset, shape, stride, requires_grad=False, hooks=None, metadata=None) -> Tensor:
    return Tensor(storage, offset, shape, stride, odd=_bits(metadata))


def tensor_v3(storage, offset, shape, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    return Tensor(storage, offset, shape, stride, dtype=getattr(dtype, "dtype", None), odd=_bits(metadata))


def _bits(metadata: Any) -> str:
    """Tensors may carry marks that say "the negative of" or "the conjugate of" what is stored."""
    marks = [
        name
        for key, name in (("neg", "negative"), ("conj", "conjugate"))
        if isinstance(metadata, dict) and metadata.get(key)
    ]
    return f"a tensor with its {' and '.join(marks)} bit set" if marks else ""


def of_type(make, kind, args, state) -> Any:
    if not isinstance(make, Maker):
        raise Refused("is not a whole PyTorch checkpoint: it rebuilds a tensor by something that is no function")
    return make(*args)


def odd(what: str) -> Maker:
    return Maker(lambda *args: Tensor(odd=what))


def encode(text, encoding) -> bytes:
    if encoding != "latin1":
        raise Refused(f"is not a whole PyTorch checkpoint: bytes stored as {str(encoding)[:40]}")
    return text.encode("latin1")


def known_names() -> Dict[Tuple[str, str], Any]:
    """What stands for each name that a checkpoint may mention."""
    functions = {
        "_rebuild_tensor": tensor_v2,
        "_rebuild_tensor_v2": tensor_v2,
        "_rebuild_tensor_v3": tensor_v3,
        "_rebuild_parameter": lambda data, *rest: data,
        "_rebuild_parameter_with_state": lambda data, *rest: data,
        "_rebuild_sparse_tensor": odd("a sparse tensor"),
        "_rebuild_nested_tensor": odd("a nested tensor"),
        "_rebuild_qtensor": odd("a quantised tensor"),
        "_rebuild_meta_tensor_no_storage": odd("a meta tensor, which has no values"),
        "_rebuild_wrapper_subclass": odd("a wrapper around other tensors"),
        "_rebuild_device_tensor_from_numpy": odd("a tensor of another kind of device"),
        "_rebuild_device_tensor_from_cpu_tensor": odd("a tensor of another kind of device"),
    }
    names: Dict[Tuple[str, str], Any] = {("torch._utils", name): Maker(make) for name, make in functions.items()}
    names.update({("torch", f"{prefix}Storage"): Kind(dtype) for prefix, dtype in STORAGES.items()})
    names.update({("torch.cuda", f"{prefix}Storage"): Kind(dtype) for prefix, dtype in STORAGES.items()})
    names.update({("torch", f"{prefix}Tensor"): Kind(dtype) for prefix, dtype in STORAGES.items()})
    names.update({("torch", dtype): Kind(dtype) for dtype in ITEM_SIZES})
    names.update({("torch.storage", name): Kind("uint8") for name in ("UntypedStorage", "TypedStorage")})
    schemes = (
        "per_tensor_affine",
        "per_tensor_symmetric",
        "per_channel_affine",
        "per_channel_symmetric",
        "per_channel_affine_float_qparams",
    )
    names.update({("torch", name): Inert() for name in schemes})
    names.update({
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "Counter"): Inert,
        ("argparse", "Namespace"): Namespace,
        ("torch._tensor", "_rebuild_from_type_v2"): Maker(of_type),
        ("torch.serialization", "_get_layout"): Maker(Inert),
        ("torch", "Size"): Maker(lambda *sizes: tuple(*sizes)),
        ("torch", "device"): Inert,
        ("torch", "Tensor"): Inert,
        ("torch.nn.parameter", "Parameter"): Inert,
        ("_codecs", "encode"): Maker(encode),
        ("builtins", "set"): set,
        ("builtins", "bytearray"): bytearray,
        ("builtins", "complex"): complex,
    })  # fmt: skip
    # Python 2's name of builtins, in files of protocol 2 and below.
    names.update(
        {("__builtin__", name): value for (module, name), value in list(names.items()) if module == "builtins"}
    )
    return names


class Unpickler(pickle.Unpickler):
    """Python's unpickler with our table in place of imports."""

    NAMES = known_names()

    def __init__(self, file: Any, storages: Dict[Any, Storage]):
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.NAMES:
            raise Refused(
                f"asks for Python code ({module[:80]}.{name[:80]}) to be run, which is refused; save the model's state_dict() alone and use that"
            )
        return self.NAMES[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], Kind)):
            raise Refused("is not a whole PyTorch checkpoint: it refers to something that is no storage")
        kind, key, numel, view = pid[1], pid[2], pid[4], pid[5] if len(pid) > 5 else None
        self.storages[key] = Storage(kind.dtype, key, numel)
        if view is None:
            return self.storages[key]
        if not (isinstance(view, tuple) and len(view) == 3):
            raise Refused("is not a whole PyTorch checkpoint: a view of a storage is malformed")
        return Storage(kind.dtype, key, view[2], view[1])


# --- the two containers -----------------------------------------------------------------------------------------------


Places = Mapping[Any, Tuple[int, int]]  # storage key -> (first byte in the file, bytes)


def read(file: BinaryIO) -> List[Any]:
    """The checkpoint as a tree of ["m", [[key, node], ...]], ["t", dtype, shape, stride, offset] and ["o", what it is]."""
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    content, places = read_zip(file) if is_zip else read_legacy(file)
    return Lister(places).node(content, "", 0, ())


def read_zip(file: BinaryIO) -> Tuple[Any, Places]:
    size = file.seek(0, 2)
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise Refused(f"is not a whole PyTorch checkpoint: {error}") from error
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise Refused("is not a whole PyTorch checkpoint: its archive holds a name twice")
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1]
    if packed:
        raise Refused(f"is compressed or encrypted ({packed[0][:80]}), which torch.save never does")
    pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(pickles) != 1:
        raise Refused(
            "is not a whole PyTorch checkpoint: its archive holds no data.pkl"
            if not pickles
            else "holds several data.pkl"
        )
    root = pickles[0][: -len("data.pkl")]
    places = {entry.filename: _place(file, entry, size) for entry in entries}
    if f"{root}constants.pkl" in places:
        raise Refused("is a TorchScript program, which is not run; save the model's state_dict() alone and use that")
    order = _content(file, places.get(f"{root}byteorder", (0, 0)), 16)
    if order not in (b"", b"little"):
        raise Refused("was written on a big-endian machine; save it again on a little-endian one")
    data = _content(file, places[pickles[0]], MAX_PICKLE_BYTES)
    stored = {name[len(root) + 5 :]: place for name, place in places.items() if name.startswith(f"{root}data/")}
    return unpickle(Bytes(data)), stored


def _place(file: BinaryIO, entry: zipfile.ZipInfo, size: int) -> Tuple[int, int]:
    """Where an entry's bytes stand: behind its own header, whose length only that header tells."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise Refused("is not a whole PyTorch checkpoint: its archive points at something that is no file")
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if start + entry.file_size > size:
        raise Refused("is not a whole PyTorch checkpoint: it ends inside its data")
    return start, entry.file_size


def _content(file: BinaryIO, place: Tuple[int, int], limit: int) -> bytes:
    start, size = place
    if size > limit:
        raise Refused(f"has {size:,} bytes of structure; accepted: up to {limit:,}")
    file.seek(start)
    return file.read(size)


def read_legacy(file: BinaryIO) -> Tuple[Any, Places]:
    if unpickle(file) != LEGACY_MAGIC:
        raise Refused("is not a PyTorch checkpoint")
    protocol, system, storages = unpickle(file), unpickle(file), {}
    if protocol != LEGACY_PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("is of a protocol or byte order that is not known")
    content, keys = unpickle(file, storages), unpickle(file)
    if not isinstance(keys, list) or len(keys) > MAX_ENTRIES or not all(isinstance(key, str) for key in keys):
        raise Refused("is not a whole PyTorch checkpoint: its list of storages is malformed")
    return content, legacy_places(file, keys, storages)


def legacy_places(file: BinaryIO, keys: List[str], storages: Mapping[Any, Storage]) -> Places:
    """Each storage is its number of items, 8 bytes, and the items, one behind the other."""
    position, places = file.tell(), {}
    size = file.seek(0, 2)
    for key in keys:
        if key not in storages:
            raise Refused("is not a whole PyTorch checkpoint: it stores numbers that nothing refers to")
        file.seek(position)
        count = int.from_bytes(file.read(8), "little")
        length = count * ITEM_SIZES[storages[key].dtype]
        places[key] = (position + 8, length)
        position += 8 + length
        if position > size:
            raise Refused("is not a whole PyTorch checkpoint: it ends inside its data")
    return places


class Bytes:
    """A file of the unpickler's needs over bytes, without their copy."""

    def __init__(self, data: bytes):
        import io

        file = io.BytesIO(data)
        self.read, self.readline, self.readinto = file.read, file.readline, file.readinto


def unpickle(file: Any, storages: Optional[Dict[Any, Storage]] = None) -> Any:
    """The next pickle of the file; the storages that it refers to go into `storages`."""
    try:
        return Unpickler(file, {} if storages is None else storages).load()
    except EOFError as error:
        raise Refused("is not a whole PyTorch checkpoint: it ends inside its structure") from error
    except pickle.UnpicklingError as error:
        raise Refused(f"is not a PyTorch checkpoint: {str(error)[:120]}") from error


# --- what was found ---------------------------------------------------------------------------------------------------


class Lister:
    """Turns the unpickled objects into a tree that JSON can say."""

    def __init__(self, places: Places):
        self.places = places
        self.entries = 0

    def node(self, value: Any, name: str, depth: int, above: Tuple[int, ...]) -> List[Any]:
        if isinstance(value, Tensor):
            return self.tensor(value, name)
        if not isinstance(value, dict):
            return ["o", type(value).__name__]
        if id(value) in above:
            return ["o", "dict that holds itself"]
        if depth >= MAX_DEPTH:
            return ["o", "dict inside too many others"]
        foreign = next((key for key in value if not isinstance(key, str)), None)
        if foreign is not None:
            return ["o", f"dict with a key of type {type(foreign).__name__}, not text"]
        self.entries += len(value)
        if self.entries > MAX_ENTRIES:
            raise Refused(f"holds more than {MAX_ENTRIES:,} entries")
        return ["m", [[key, self.node(inner, key, depth + 1, (*above, id(value)))] for key, inner in value.items()]]

    def tensor(self, tensor: Tensor, name: str) -> List[Any]:
        if tensor.odd:
            return ["o", tensor.odd]
        storage, dtype = tensor.storage, tensor.dtype
        if not isinstance(storage, Storage) or dtype not in ITEM_SIZES:
            return ["o", "a tensor without numbers"]
        shape, stride, where = tensor.shape, tensor.stride, f"is not a whole PyTorch checkpoint: tensor {name[:120]}"
        if not (isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= MAX_DIMENSIONS):
            raise Refused(f"{where} has a malformed shape")
        if not all(
            type(size) is int and 0 <= size < LARGEST for size in (*shape, *stride, tensor.offset, storage.first)
        ):
            raise Refused(f"{where} has a size that is no number of items")
        try:
            start, length = self.places[storage.key]
        except (KeyError, TypeError):
            raise Refused(f"{where} refers to numbers that are not there") from None
        count, last = 1, 0
        for size, step in zip(shape, stride):
            count *= size
            last += (size - 1) * step
        width = ITEM_SIZES[dtype]
        first = tensor.offset * width + storage.first * ITEM_SIZES[storage.dtype]
        if count and first + (last + 1) * width > length:
            raise Refused(f"{where} of shape {list(shape)} reaches beyond the numbers that are stored for it")
        if count * width > max(length, SMALL):
            return ["o", "a tensor expanded from fewer numbers"]
        return ["t", dtype, list(shape), list(stride), start + first]


def main() -> None:
    answer(read)
