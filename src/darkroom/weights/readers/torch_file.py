"""PyTorch's own files: zip archives (since 1.6), TorchScript archives, and the older stream.

Layouts: ``torch/serialization.py`` (``_save``, ``_legacy_save``). An archive keeps the pickle of
the structure in ``<name>/data.pkl`` and each storage, named by a persistent id, in
``<name>/data/<key>``. The older stream is five pickles (magic number, version, system, structure,
storage keys), then each storage as a count and its raw bytes.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from darkroom.weights.readers.faults import AGAIN, Fault, printable
from darkroom.weights.readers.pickle_globals import STORAGE_TYPES
from darkroom.weights.readers.pickle_machine import Machine
from darkroom.weights.readers.records import ITEM_SIZE, Global, Storage
from darkroom.weights.readers.zip_archive import STORED, Member, locate, read_directory, unpack

MAGIC = 0x1950A86A20F9469CFC6C
LONGEST_PICKLE = 24 << 20
MOST_EXPANSION = 8  # a compressed archive may unpack to so many times its size (or 16 MB)


@dataclass
class TorchFile:
    """A parsed file: ``root`` is the structure, with records where the tensors are.

    ``members`` are the archive's storages by key; empty for the older stream. ``skipped`` counts
    the objects of unknown classes that were left inert.
    """

    format: str  # "torch", "torchscript", "torch legacy" or "pickle"
    root: Any
    storages: dict[str, Storage]
    members: dict[str, Member] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


class _Storages:
    """Persistent ids: ("storage", type, key, device, count) names a run of elements."""

    def __init__(self) -> None:
        self.by_key: dict[str, Storage] = {}

    def __call__(self, reference: Any) -> Any:
        if type(reference) is tuple and reference[:1] == ("module",) and len(reference) > 1:
            return reference[1]  # old files: a class together with its source, which we ignore
        if not isinstance(reference, tuple) or not 5 <= len(reference) <= 6:
            raise Fault("refers to data in an unknown way", AGAIN)
        parts: list[Any] = list(reference)
        word, kind, key, _, count = parts[:5]
        dtype = STORAGE_TYPES.get(kind.name) if type(kind) is Global else None
        if word != "storage" or type(key) is not str or len(key) > 200:
            raise Fault("refers to data in an unknown way", AGAIN)
        if dtype is None:
            name = printable(str(getattr(kind, "name", kind)), 40)
            raise Fault(f"keeps tensors as {name!r}, which is not supported", "convert it first")
        if parts[5:] not in ([], [None]):
            raise Fault("keeps storages inside storages", "save it again with PyTorch 1.6 or newer")
        if type(count) is not int or not 0 <= count < 1 << 48:
            raise Fault(f"claims a storage of {printable(str(count), 30)} elements", AGAIN)
        known = self.by_key.get(key)
        if known is None:
            known = self.by_key[key] = Storage(key, dtype, count)
        elif (known.dtype, known.count) != (dtype, count):
            raise Fault(f"describes its storage {printable(key, 30)!r} in two ways", AGAIN)
        return known


def read_archive(data: mmap.mmap) -> TorchFile:
    """A zip archive of PyTorch's.

    Raises:
        Fault: it is another kind of zip, damaged, or its storages are not what the pickle says.
    """
    members = read_directory(data)
    structure = _structure(members)
    prefix = structure.name.removesuffix("data.pkl")
    order = members.get(prefix + "byteorder")
    if order is not None and unpack(data, order, 100).strip() != b"little":
        raise Fault("was saved on a big-endian machine, which is not supported", "convert it there")
    persistent = _Storages()
    machine = Machine(unpack(data, structure, LONGEST_PICKLE), 0, persistent)
    root = machine.load()
    script = prefix + "constants.pkl" in members or any(
        name.startswith(prefix + "code/") for name in members
    )
    stored = {}
    for key, storage in persistent.by_key.items():
        member = members.get(f"{prefix}data/{key}")
        if member is None:
            raise Fault(f"lacks its storage {printable(key, 30)!r}", AGAIN)
        if member.size < storage.size:
            raise Fault(f"has a storage {printable(key, 30)!r} that is too short", AGAIN)
        stored[key] = member
        if member.method == STORED and storage.size:
            storage.start = locate(data, member)
    _refuse_bomb(stored.values(), len(data))
    kind = "torchscript" if script else "torch"
    return TorchFile(kind, root, persistent.by_key, stored, machine.skipped)


def _structure(members: dict[str, Member]) -> Member:
    found = [m for name, m in members.items() if name.endswith("data.pkl") and name.count("/") < 2]
    found = [m for m in found if m.name in ("data.pkl", m.name.partition("/")[0] + "/data.pkl")]
    if len(found) == 1:
        return found[0]
    if found:
        raise Fault("holds several pickles, so what it is stays unclear", AGAIN)
    checkpoints = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
    inner = [name for name in members if name.endswith(checkpoints)]
    if inner:
        raise Fault(f"is a zip archive around {printable(inner[0], 40)!r}", "unpack it first")
    raise Fault(
        "is a zip archive, but not one of PyTorch's", "unpack it, or check which file it is"
    )


def _refuse_bomb(members: Any, size: int) -> None:
    unpacked = sum(member.size for member in members if member.method != STORED)
    if unpacked > max(16 << 20, MOST_EXPANSION * size):
        raise Fault(f"unpacks to {unpacked:,} bytes: it may be a zip bomb", "use another file")


def read_stream(data: mmap.mmap) -> TorchFile:
    """The older format, or a bare pickle (which can hold NumPy arrays but no storages).

    Raises:
        Fault: it is damaged, cut short, or of a machine with other byte order.
    """
    persistent = _Storages()
    machine = Machine(data, 0, persistent)
    first = machine.load()
    if first != MAGIC or type(first) is not int:
        if persistent.by_key:
            raise Fault("refers to data outside of itself", AGAIN)
        return TorchFile("pickle", first, {}, {}, machine.skipped)
    if machine.load() != 1001:
        raise Fault("is of an unknown version of PyTorch's old format", AGAIN)
    system = machine.load()
    if type(system) is dict and system.get("little_endian") is False:
        raise Fault("was saved on a big-endian machine, which is not supported", "convert it there")
    root = machine.load()
    keys = machine.load()
    if type(keys) is not list or len(keys) != len(persistent.by_key):
        raise Fault("does not list its storages", AGAIN)
    at = machine.at
    for storage in _in_order(keys, persistent.by_key):
        if at + 8 > len(data):
            raise Fault("ends early: the download is incomplete", AGAIN)
        if int.from_bytes(data[at : at + 8], "little", signed=True) != storage.count:
            raise Fault(f"has a storage {printable(storage.key, 30)!r} of another size", AGAIN)
        storage.start = at + 8
        at = storage.start + storage.count * ITEM_SIZE[storage.dtype]
        if at > len(data):
            raise Fault(f"ends {at - len(data):,} bytes early: the download is incomplete", AGAIN)
    return TorchFile("torch legacy", root, persistent.by_key, {}, machine.skipped)


def _in_order(keys: list[Any], storages: dict[str, Storage]) -> Iterator[Storage]:
    seen = set()
    for key in keys:
        if type(key) is not str or key not in storages or key in seen:
            raise Fault("lists storages that it does not have", AGAIN)
        seen.add(key)
        yield storages[key]
