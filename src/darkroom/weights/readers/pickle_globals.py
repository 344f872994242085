"""The allow-list: what a checkpoint's pickle may build, and how we build it ourselves.

A name outside the list is not an error: it becomes an inert record, because nothing is imported
or called either way. ``wants_to_run`` only tells a file that was made to attack (or that carries
code) from one that carries a trainer's objects, so that the user hears about it.
"""

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from darkroom.weights.readers.faults import AGAIN, ASK_FOR_SAFETENSORS, Fault, printable
from darkroom.weights.readers.records import (
    ITEM_SIZE,
    ArrayRecord,
    Global,
    NumpyType,
    Storage,
    TensorRecord,
)

if TYPE_CHECKING:
    from darkroom.weights.readers.pickle_machine import Machine

Builder = Callable[["Machine", tuple[Any, ...]], Any]
BUILDERS: dict[str, Builder] = {}

STORAGE_TYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.storage.UntypedStorage": "uint8",
    "torch.UntypedStorage": "uint8",
}
NUMPY_TYPES = {
    "f8": ("float64", "d"),
    "f4": ("float32", "f"),
    "f2": ("float16", "e"),
    "i8": ("int64", "q"),
    "i4": ("int32", "i"),
    "i2": ("int16", "h"),
    "i1": ("int8", "b"),
    "u8": ("uint64", "Q"),
    "u4": ("uint32", "I"),
    "u2": ("uint16", "H"),
    "u1": ("uint8", "B"),
    "b1": ("bool", "?"),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules whose every name is about running, loading or reaching something.
_MODULES = _words(
    "os posix nt ntpath posixpath sys subprocess _posixsubprocess popen2 shutil socket "
    "_socket ssl http urllib urllib2 httplib requests httpx aiohttp ftplib smtplib poplib imaplib "
    "telnetlib xmlrpc webbrowser ctypes _ctypes cffi importlib imp pkgutil runpy codeop "
    "marshal pickle _pickle cPickle cpickle dill cloudpickle joblib shelve pty tty fcntl signal "
    "multiprocessing _winapi winreg msvcrt asyncio pip setuptools ensurepip venv zipimport "
    "pdb bdb cProfile timeit doctest pydoc idlelib unittest tempfile "
    "sitecustomize platform nturl2path antigravity linecache gc atexit faulthandler "
    "tkinter turtle sqlite3 dbm IPython paramiko pexpect plumbum resource mmap"
)
_NAMES = frozenset(
    f"builtins.{name}"
    for name in _words(
        "eval exec execfile compile open input raw_input __import__ breakpoint globals "
        "locals vars setattr delattr apply map filter reduce exit quit help reload file memoryview "
        "print __build_class__"
    )
) | _words(
    "types.CodeType types.FunctionType types.LambdaType types.ModuleType types.MethodType "
    "_operator.attrgetter operator.attrgetter operator.methodcaller _operator.methodcaller "
    "functools.reduce itertools.starmap torch.load torch.serialization.load torch.jit.load "
    "torch.jit._serialization.load numpy.load numpy.loadtxt numpy.fromfile numpy.genfromtxt "
    "numpy.memmap torch.from_file torch.package io.open io.FileIO _io.FileIO _io.open "
    "torch.classes.load_library torch.ops.load_library pandas.read_pickle "
    "logging.config.listen lib2to3.pgen2.grammar.Grammar.loads"
)
_PREFIXES = (
    "code.interact",  # not the modules alone: projects have a folder `code` with classes in it
    "code.Interactive",
    "commands.getoutput",
    "commands.getstatus",
    "profile.run",
    "profile.Profile",
    "trace.Trace",
    "torch.hub.",
    "torch.utils.cpp_extension.",
    "torch.utils.bottleneck.",
    "torch.utils.collect_env.",
    "torch.distributed.rpc.",
    "torch.distributed.elastic.",
    "torch.multiprocessing.",
    "torch.package.",
    "torch._inductor.",
    "numpy.testing.",
    "numpy.distutils.",
    "numpy.f2py.",
    "numpy.lib.npyio.",
)
_ALIASES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core": "numpy._core"}


def look_up(module: str, name: str) -> Global:
    """The name as a record.

    Raises:
        Fault: ``unsafe``, when only a pickle that runs code would mention it.
    """
    if len(module) + len(name) > 400:
        raise Fault("its pickle names a class of over 400 letters", AGAIN)
    module = _ALIASES.get(module, module)
    if module.startswith("numpy.core."):
        module = "numpy._core." + module[len("numpy.core.") :]
    full = f"{module}.{name}"
    if wants_to_run(full):
        raise Fault(
            f"wants to run {printable(full, 50)!r}: a pickle with code in it",
            f"do not use it; {ASK_FOR_SAFETENSORS}",
            unsafe=True,
        )
    return Global(full)


def wants_to_run(full: str) -> bool:
    """Whether a checkpoint has no honest reason to mention this name."""
    root = full.partition(".")[0]
    return (
        root in _MODULES
        or full in _NAMES
        or full.startswith(_PREFIXES)
        or "__"
        in (
            full.rpartition(".")[2][:2],
            full.rpartition(".")[2][-2:],
        )
    )


def builder(*names: str) -> Callable[[Builder], Builder]:
    """List a function as ours for these names."""

    def enter(function: Builder) -> Builder:
        for name in names:
            BUILDERS[name] = function
        return function

    return enter


# --- tensors -------------------------------------------------------------------------------------


def _sizes(values: Any) -> tuple[int, ...] | None:
    if type(values) not in (tuple, list) or len(values) > 32:
        return None
    if all(type(v) is int and 0 <= v < 1 << 48 for v in values):
        return tuple(values)
    return None


def tensor(storage: Any, dtype: str, offset: Any, shape: Any, stride: Any) -> TensorRecord:
    """A tensor in a storage, its numbers checked against the storage's size.

    Raises:
        Fault: it is not inside the storage, or claims far more elements than there are.
    """
    sizes, steps = _sizes(shape), _sizes(stride)
    if type(storage) is not Storage or type(offset) is not int or offset < 0:
        raise Fault("describes a tensor without a storage", AGAIN)
    if sizes is None or steps is None or len(sizes) != len(steps):
        raise Fault("describes a tensor with an impossible shape", AGAIN)
    count = 1
    for size in sizes:
        count *= size
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    available = storage.size // ITEM_SIZE[dtype]
    if count and last >= available:
        raise Fault(f"describes a tensor of shape {list(sizes[:6])} beyond its data", AGAIN)
    if count > max(available, 1 << 24):
        raise Fault(f"repeats its data into a tensor of {count:,} elements", "use another file")
    return TensorRecord(storage, dtype, sizes, steps, offset)


@builder("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
def _tensor(m: "Machine", args: tuple[Any, ...]) -> TensorRecord:
    storage, offset, shape, stride = args[:4]
    return tensor(storage, getattr(storage, "dtype", ""), offset, shape, stride)


@builder("torch._utils._rebuild_tensor_v3")
def _typed_tensor(m: "Machine", args: tuple[Any, ...]) -> Any:
    storage, offset, shape, stride, _, _, kind = args[:7]
    dtype = kind.name.removeprefix("torch.") if type(kind) is Global else ""
    if dtype not in ITEM_SIZE:
        return m.inert("torch._utils._rebuild_tensor_v3", args)
    return tensor(storage, dtype, offset, shape, stride)


@builder(
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.autograd.variable.Variable",
    "torch.jit._pickle.restore_type_tag",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.Size",
    "torch.device",
)
def _first(m: "Machine", args: tuple[Any, ...]) -> Any:
    """The thing itself: a parameter is its tensor, a size its tuple, a device its name."""
    return args[0]


@builder("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")
def _subclass(m: "Machine", args: tuple[Any, ...]) -> Any:
    function, _, inner = args[:3]
    if type(function) is Global and function.name.startswith("torch._utils._rebuild_"):
        return m.call(function, inner)
    return m.inert("torch._tensor._rebuild_from_type_v2", args)


# --- plain data ----------------------------------------------------------------------------------


@builder("collections.OrderedDict", "builtins.dict", "collections.Counter", "easydict.EasyDict")
def _mapping(m: "Machine", args: tuple[Any, ...]) -> dict[Any, Any]:
    if not args:
        return {}
    pairs = args[0].items() if type(args[0]) is dict else args[0]
    m.charge(120 * len(pairs))
    return {m.key(key): value for key, value in pairs}


@builder("collections.defaultdict")
def _defaultdict(m: "Machine", args: tuple[Any, ...]) -> dict[Any, Any]:
    return _mapping(m, args[1:])


@builder("builtins.list", "collections.deque")
def _list(m: "Machine", args: tuple[Any, ...]) -> list[Any]:
    if args and type(args[0]) not in (list, tuple):
        raise m.malformed()
    m.charge(8 * len(args[0]) if args else 0)
    return list(args[0]) if args else []


@builder("builtins.tuple")
def _tuple(m: "Machine", args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_list(m, args))


@builder("builtins.set", "builtins.frozenset")
def _set(m: "Machine", args: tuple[Any, ...]) -> set[Any]:
    items = _list(m, args)
    m.charge(200 + 100 * len(items))
    return {m.key(item) for item in items}


@builder("_codecs.encode", "builtins.bytes", "builtins.bytearray")
def _bytes(m: "Machine", args: tuple[Any, ...]) -> bytes:
    """Python 2 and protocol 2 write bytes as Latin-1 text. ``bytes(10**9)`` is refused."""
    if not args:
        return b""
    m.charge(len(args[0]))
    if type(args[0]) is bytes:
        return args[0]
    if args[1:] and args[1] not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise m.malformed()
    return args[0].encode(args[1] if args[1:] else "latin-1")


@builder("copyreg._reconstructor")
def _reconstructor(m: "Machine", args: tuple[Any, ...]) -> Any:
    if type(args[0]) is not Global:
        raise m.malformed()
    return m.inert(args[0].name, args[2:])


# --- NumPy ---------------------------------------------------------------------------------------


@builder("numpy.dtype")
def _dtype(m: "Machine", args: tuple[Any, ...]) -> NumpyType:
    code = args[0] if type(args[0]) is str else ""
    return NumpyType(code.lstrip("<=|>")[:20], not code.startswith(">"))


@builder("numpy._core.multiarray.scalar")
def _scalar(m: "Machine", args: tuple[Any, ...]) -> Any:
    kind, data = args if len(args) == 2 else (args[0], b"")
    if type(kind) is not NumpyType or kind.code not in NUMPY_TYPES:
        return m.inert("numpy scalar", args)
    if type(data) is str:
        data = data.encode("latin-1")
    return struct.unpack(("<" if kind.little else ">") + NUMPY_TYPES[kind.code][1], data)[0]


@builder("numpy._core.multiarray._reconstruct", "numpy.ndarray")
def _array(m: "Machine", args: tuple[Any, ...]) -> ArrayRecord:
    m.charge(200)
    return ArrayRecord()


@builder("numpy._core.numeric._frombuffer")
def _filled_array(m: "Machine", args: tuple[Any, ...]) -> ArrayRecord:
    data, kind, shape, order = args
    sizes = _sizes(shape)
    if type(kind) is not NumpyType or sizes is None:
        raise Fault("describes a NumPy array with an impossible shape", AGAIN)
    known = NUMPY_TYPES.get(kind.code)
    if known is None or type(data) not in (bytes, str):
        return ArrayRecord(shape=sizes)  # text or objects: nothing that could be a weight
    if not kind.little and ITEM_SIZE[known[0]] > 1:
        raise Fault("holds big-endian numbers, which are not supported", "convert it first")
    count = 1
    for size in sizes:
        count *= size
    if len(data) != count * ITEM_SIZE[known[0]]:
        raise Fault("describes a NumPy array that does not fit its data", AGAIN)
    m.charge(len(data))
    raw = data.encode("latin-1") if type(data) is str else data
    return ArrayRecord(known[0], sizes, raw, order == "F")
