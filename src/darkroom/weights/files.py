"""Read the tensors of a checkpoint file, whatever its format, without running anything in it.

``.safetensors`` files and PyTorch's ``.ckpt``, ``.pt``, ``.pth``, ``.bin`` (zip archives,
TorchScript archives, the format before 1.6) are told apart by content. Tensors are views of the
mapped file where it keeps them uncompressed and aligned, so reading one costs nothing until it is
used. They are private: writing into one never changes the file.

This module imports no torch by itself; only making a tensor does.
"""

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.weights.readers.faults import AGAIN, Fault, naming, printable
from darkroom.weights.readers.index import INDEX_SUFFIX, read_index
from darkroom.weights.readers.names import Leaf, dotted, find_model, plain_extras, replace_leaves
from darkroom.weights.readers.opening import open_mapped, sniff
from darkroom.weights.readers.records import ITEM_SIZE, ArrayRecord, Inert, Storage
from darkroom.weights.readers.safetensors_header import Span, read_safetensors_header
from darkroom.weights.readers.state import State
from darkroom.weights.readers.torch_file import TorchFile, read_archive, read_stream
from darkroom.weights.readers.wrappers import unwrapped
from darkroom.weights.readers.zip_archive import check_sum, unpack

MOST_REPEATED = 64  # bytes of tensors to a byte of the file: packing makes 8, tied weights 2

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage


__all__ = [
    "Header",
    "Inert",
    "TensorInfo",
    "read_header",
    "read_object",
    "read_sharded",
    "read_tensors",
]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it; ``dtype`` by torch's name, such as "float16"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * ITEM_SIZE[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about itself, without any tensor data.

    ``tensors`` are by name, without what wrappers put in front. ``root`` is the key under which the
    model was found ("state_dict", "model.state_dict", "" for the top);
    ``extras`` the plain values beside it (global_step, name, ...); ``skipped`` the classes whose
    objects were left inert, and how many of each.
    """

    path: Path
    format: str  # "safetensors", "torch", "torchscript", "torch legacy", "pickle" or "sharded"
    size: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    root: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Names, shapes, dtypes and metadata of a file (or of all shards of an ``.index.json``).

    Raises:
        CheckpointError: the file cannot be used; one line with the fault and the remedy.
        UnsafeFileError: it is a pickle that wants to run code.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _sharded_header(path)
    with naming(path):
        return _named(_open(path).header)


def read_tensors(
    path: str | os.PathLike[str], *, verify: bool = False, entry: str | None = None
) -> Mapping[str, "Tensor"]:
    """The model's tensors by name, each made when it is asked for.

    Names are those of the network, whatever wrapped it (``module.``, ``_orig_mod.``). Weights with
    a scale beside them ("scaled fp8") come multiplied, in float32.

    Args:
        path: a file, or the ``.index.json`` of a sharded one.
        verify: compare PyTorch's archives with their checksums first (reads the whole file).
        entry: of a file with several models, the one to take, such as "model" or "ema"; None =
            the one that ``read_header`` tells as ``root``.

    Raises:
        CheckpointError: the file cannot be used, or its weights are quantised; one line with the
            fault and the remedy.
        UnsafeFileError: it is a pickle that wants to run code.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return read_sharded(path, verify=verify)
    tensors = _as_written(path, entry, verify)
    return State(tensors, tensors.infos, path)


def _as_written(path: Path, entry: str | None = None, verify: bool = False) -> "Tensors":
    with naming(path):
        opened = _open(path, entry)
        if verify:
            opened.verify()
        return Tensors(opened)


def read_object(path: str | os.PathLike[str]) -> Any:
    """The whole structure of a PyTorch file: dictionaries, lists, tuples, numbers, text, tensors.

    Objects of classes that are not plain data are ``Inert`` records. A safetensors file gives
    the dictionary of its tensors.

    Raises:
        CheckpointError: the file cannot be used; one line with the fault and the remedy.
        UnsafeFileError: it is a pickle that wants to run code.
    """
    with naming(path):
        opened = _open(Path(path))
        if isinstance(opened, _Safetensors):
            return dict(Tensors(opened))
        return replace_leaves(opened.file.root, opened.make)


def read_sharded(index: str | os.PathLike[str], *, verify: bool = False) -> Mapping[str, "Tensor"]:
    """The tensors of a model in several files, by its ``*.index.json``.

    Raises:
        CheckpointError: the index or a shard cannot be used, or names a file outside its folder.
    """
    path = Path(index)
    by_file = read_index(path)
    shards = {name: _as_written(path.parent / name, verify=verify) for name in by_file}
    with naming(path):
        for name, keys in by_file.items():
            _check_shard(name, keys, shards[name])
    joined = _Joined({key: shards[name] for name, keys in by_file.items() for key in keys})
    return State(joined, joined.infos, path)


def _sharded_header(path: Path) -> Header:
    by_file = read_index(path)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    size = 0
    for name, keys in by_file.items():
        with naming(path.parent / name):
            header = _open(path.parent / name).header
        with naming(path):
            _check_shard(name, keys, header.tensors)
        tensors.update((key, header.tensors[key]) for key in keys)
        metadata.update(header.metadata)
        size += header.size
    return _named(
        Header(path=path, format="sharded", size=size, tensors=tensors, metadata=metadata)
    )


def _named(header: Header) -> Header:
    """With the names of the network, whatever wrapped it."""
    names = unwrapped(header.tensors)
    return replace(header, tensors={new: header.tensors[old] for new, old in names.items()})


def _check_shard(name: str, keys: list[str], found: Mapping[str, Any]) -> None:
    for key in keys:
        if key not in found:
            what = f"promises {printable(key, 40)!r} in {printable(name, 50)!r}, which lacks it"
            raise Fault(what, AGAIN)


# --- one opened file -----------------------------------------------------------------------------


class _Safetensors:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.data = data
        self.spans, metadata = read_safetensors_header(data)
        infos = {name: TensorInfo(span.dtype, span.shape) for name, span in self.spans.items()}
        self.header = Header(
            path=path, format="safetensors", size=len(data), tensors=infos, metadata=metadata
        )

    def __getitem__(self, name: str) -> "Tensor":
        span: Span = self.spans[name]
        storage = _storage(self.data, span.start, span.size, ITEM_SIZE[span.dtype])
        stride = [1] * len(span.shape)
        for axis in range(len(span.shape) - 2, -1, -1):
            stride[axis] = stride[axis + 1] * max(span.shape[axis + 1], 1)
        return _view(storage, span.dtype, 0, span.shape, tuple(stride))

    def verify(self) -> None:
        """The format has no checksum."""


class _Torch:
    def __init__(self, path: Path, data: mmap.mmap, file: TorchFile, entry: str | None) -> None:
        self.data = data
        self.file = file
        model, root = find_model(file.root, entry)
        self.leaves: dict[str, Leaf] = dotted(model)
        self.made: dict[str, UntypedStorage] = {}
        if not self.leaves:
            raise Fault("holds no tensors", "check which file it is")
        infos = {name: _info(leaf) for name, leaf in self.leaves.items()}
        claimed = sum(info.size for info in infos.values())
        if claimed > max(MOST_REPEATED * len(data), 256 << 20):
            raise Fault(f"makes {claimed:,} bytes of {len(data):,}", "use another file")
        self.header = Header(
            path=path,
            format=file.format,
            size=len(data),
            tensors=infos,
            extras=plain_extras(file.root, root),
            root=root,
            skipped=file.skipped,
        )

    def __getitem__(self, name: str) -> "Tensor":
        return self.make(self.leaves[name])

    def make(self, leaf: Leaf) -> "Tensor":
        if isinstance(leaf, ArrayRecord):
            return _from_array(leaf)
        storage = self.storage(leaf.storage)
        return _view(storage, leaf.dtype, leaf.offset, leaf.shape, leaf.stride)

    def storage(self, record: Storage) -> "UntypedStorage":
        """Made once for each record, so that tensors which share one go on sharing it."""
        made = self.made.get(record.key)
        if made is None:
            if record.start is None and record.size:
                raw = unpack(self.data, self.file.members[record.key], 1 << 48)
                made = _own(raw)
            else:
                made = _storage(self.data, record.start or 0, record.size, ITEM_SIZE[record.dtype])
            self.made[record.key] = made
        return made

    def verify(self) -> None:
        for member in self.file.members.values():
            check_sum(self.data, member)


def _open(path: Path, entry: str | None = None) -> "_Safetensors | _Torch":
    data = open_mapped(path)
    kind = sniff(data)
    if kind == "safetensors":
        return _Safetensors(path, data)
    return _Torch(path, data, read_archive(data) if kind == "zip" else read_stream(data), entry)


def _info(leaf: Leaf) -> TensorInfo:
    return TensorInfo(leaf.dtype or "", leaf.shape)


class Tensors(Mapping[str, "Tensor"]):
    """A file's tensors by name; each is made when asked for."""

    def __init__(self, opened: "_Safetensors | _Torch") -> None:
        self._opened = opened
        self.header = opened.header

    def __getitem__(self, name: str) -> "Tensor":
        if name not in self.header.tensors:
            raise KeyError(name)
        with naming(self.header.path):
            return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self.header.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.tensors)

    def __len__(self) -> int:
        return len(self.header.tensors)

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of each; reads nothing."""
        return self.header.tensors

    def release(self) -> None:
        """Give back the memory of pages read so far: they are read again when touched.

        What was written into a tensor is lost, so this is for the time of conversion only.
        """
        if isinstance(self._opened, _Torch):
            self._opened.made.clear()  # copies, of what lies in the file unaligned or compressed
        if hasattr(mmap, "MADV_DONTNEED"):
            self._opened.data.madvise(mmap.MADV_DONTNEED)


class _Joined(Mapping[str, "Tensor"]):
    def __init__(self, where: dict[str, Tensors]) -> None:
        self._where = where

    def __getitem__(self, name: str) -> "Tensor":
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """As ``Tensors.infos``."""
        return {name: shard.infos[name] for name, shard in self._where.items()}

    def release(self) -> None:
        """As ``Tensors.release``, for every shard."""
        for shard in {id(shard): shard for shard in self._where.values()}.values():
            shard.release()


# --- making tensors ------------------------------------------------------------------------------


def _storage(data: mmap.mmap, start: int, size: int, item: int) -> "UntypedStorage":
    """``size`` bytes of the file: a view where they are aligned to ``item`` bytes, else a copy."""
    import torch

    if size == 0:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    if start % item:
        return _copy(data, start, size)
    return torch.frombuffer(data, dtype=torch.uint8, count=size, offset=start).untyped_storage()


def _copy(data: mmap.mmap, start: int, size: int) -> "UntypedStorage":
    """The bytes in memory of their own. The file's pages are let go, so they count once."""
    import torch

    copy = torch.empty(size, dtype=torch.uint8)
    step = 1 << 24
    for at in range(0, size, step):
        count = min(step, size - at)
        copy[at : at + count] = torch.frombuffer(
            data, dtype=torch.uint8, count=count, offset=start + at
        )
        first = -(-(start + at) // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (start + at + count - first) // mmap.PAGESIZE * mmap.PAGESIZE
        if whole > 0 and hasattr(data, "madvise"):
            data.madvise(mmap.MADV_DONTNEED, first, whole)  # no other tensor looks into these
    return copy.untyped_storage()


def _own(raw: bytes) -> "UntypedStorage":
    import torch

    if not raw:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).untyped_storage()


def _view(
    storage: "UntypedStorage",
    dtype: str,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
) -> "Tensor":
    import torch

    kind = getattr(torch, dtype, None)
    if kind is None:
        raise Fault(f"holds {dtype} numbers, which this PyTorch lacks", "update PyTorch")
    return torch.empty(0, dtype=kind).set_(storage, offset, shape, stride)


def _from_array(array: ArrayRecord) -> "Tensor":
    shape = array.shape[::-1] if array.column_major else array.shape
    stride = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        stride[axis] = stride[axis + 1] * max(shape[axis + 1], 1)
    made = _view(_own(array.data), array.dtype or "", 0, shape, tuple(stride))
    return made.permute(*range(len(shape))[::-1]) if array.column_major else made
