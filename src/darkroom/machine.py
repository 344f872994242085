"""What this machine is, and how much memory it has."""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from darkroom.errors import ConfigError
from darkroom.names import DTYPE_NAMES, did_you_mean

if TYPE_CHECKING:
    import torch


class Memory(NamedTuple):
    """Bytes of the machine or, if smaller, of the container."""

    total: int
    available: int | None  # None where the system does not say


def processor() -> str:
    """The processor's name, or its architecture where the system has no name for it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory() -> Memory | None:
    """What there is and what is free now; None where the system does not say."""
    known = _meminfo() or _pages()
    limits = _cgroup()
    if known is None or limits is None:
        return known or limits
    free = [part.available for part in (known, limits) if part.available is not None]
    return Memory(min(known.total, limits.total), min(free))


def _meminfo() -> Memory | None:
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        total, free = (int(lines[k].split()[0]) * 1024 for k in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    return Memory(total, free)


def _pages() -> Memory | None:
    def count(name: str) -> int | None:
        try:
            return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None

    total = count("SC_PHYS_PAGES")
    return None if total is None else Memory(total, count("SC_AVPHYS_PAGES"))


def _cgroup(folder: Path = Path("/sys/fs/cgroup")) -> Memory | None:
    """What a container's limit leaves; files that its cache holds can be given back."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        kept = int(stat.get("inactive_file", 0))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None
    return Memory(limit, max(limit - used + kept, 0))


def device(name: "str | torch.device | None") -> "torch.device":
    """A device of this machine; None is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        known = "one of cpu, cuda, cuda:0, mps"
        raise ConfigError(f"device {str(name)[:60]!r} is unknown; {known}") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {str(place)!r} is not on this machine, which has {torch.cuda.device_count()} "
            "CUDA devices; use device='cpu'"
        )
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps' is not on this machine; use device='cpu'")
    return place


def dtype(name: "str | torch.dtype") -> "torch.dtype":
    """A type of numbers that networks compute in.

    Raises:
        ConfigError: there is no such type.
    """
    import torch

    plain = str(name).removeprefix("torch.")
    if plain not in DTYPE_NAMES:
        raise ConfigError(
            f"dtype {plain!r:.60} is unknown{did_you_mean(plain, DTYPE_NAMES)}; "
            f"one of {', '.join(DTYPE_NAMES)}"
        )
    return getattr(torch, plain)


def interruptions() -> int:
    """How often the system has taken a processor from this process; 0 where it does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def page_out(address: int, size: int) -> None:
    """Say that memory is not needed for now: pages of files leave it, to be read again if touched.

    Nothing is lost, whatever the memory is. Does nothing where the system does not know of it.
    """
    if sys.platform != "linux":
        return
    import ctypes
    import mmap

    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if whole > 0:
        advice = 21  # MADV_PAGEOUT, since Linux 5.4; others answer with an error
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(whole), advice)


def give_back(address: int, size: int) -> int:
    """Unmap what memory holds of files, for now; the system's cache keeps it and gives it again.

    Pages that were written to are left alone, so nothing is lost, whatever the memory is. Not while
    another thread writes there.

    Returns:
        Bytes that are resident no more; 0 where the system does not say what is what.
    """
    if sys.platform != "linux":
        return 0
    import ctypes
    import mmap

    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    count = (address + size - start) // mmap.PAGESIZE
    given = 0
    for first, pages in _of_files(start // mmap.PAGESIZE, count):
        place, length = first * mmap.PAGESIZE, pages * mmap.PAGESIZE
        advice = 4  # MADV_DONTNEED
        if not ctypes.CDLL(None).madvise(ctypes.c_void_p(place), ctypes.c_size_t(length), advice):
            given += length
    return given


def _of_files(first: int, count: int) -> list[tuple[int, int]]:
    """Runs of pages, as (first, count), that are present and unchanged parts of a file.

    By the kernel's pagemap (Documentation/admin-guide/mm/pagemap.rst): 8 bytes a page, bit 63 =
    present, bit 61 = of a file or shared; a private page that was written to has it no more.
    """
    if count <= 0:
        return []
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(8 * first)
            data = file.read(8 * count)
    except OSError:  # some containers hide it
        return []
    import numpy as np

    of_file = np.frombuffer(data, np.uint64) >> np.uint64(61) & np.uint64(5) == 5
    edges = np.flatnonzero(np.diff(of_file, prepend=False, append=False))
    return [(first + int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


def trim() -> None:
    """Have the C library return what it keeps of freed memory; nothing where it is not glibc."""
    import ctypes
    import platform

    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
