"""What a pickle is turned into: plain data, and these records where it had objects."""

from dataclasses import dataclass, field
from typing import Any

# Bytes per element, by torch's own names.
ITEM_SIZE = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
}


@dataclass(slots=True, eq=False)
class Storage:
    """A run of elements in the file that one or more tensors look into.

    ``start`` is the byte in the file where it begins; None until known, or where the archive
    keeps it compressed.
    """

    key: str
    dtype: str
    count: int  # elements
    start: int | None = None

    @property
    def size(self) -> int:
        return self.count * ITEM_SIZE[self.dtype]


@dataclass(slots=True, eq=False)
class TensorRecord:
    """A tensor that has not been read yet: offset and strides are in elements of ``dtype``."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(slots=True, eq=False)
class ArrayRecord:
    """A NumPy array, its bytes inside the pickle. ``dtype`` is None for text and objects."""

    dtype: str | None = None
    shape: tuple[int, ...] = (0,)
    data: bytes = b""
    column_major: bool = False


@dataclass(slots=True, eq=False)
class NumpyType:
    """NumPy's dtype: ``code`` is like "f4"."""

    code: str
    little: bool = True


@dataclass(slots=True, eq=False)
class Global:
    """A class or function that a pickle names. It is a name: nothing is imported."""

    name: str


@dataclass(slots=True, eq=False)
class Inert:
    """An object of a class that is not on the allow-list, as its parts, never as the object.

    ``args`` are what its constructor would have been given, ``state`` what it would have been
    filled with, ``items`` and ``elements`` what a dict-like or list-like object holds.
    """

    name: str
    args: Any = ()
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)
    elements: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Inert({self.name!r})"
