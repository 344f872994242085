"""What this machine is, and how much memory it has."""

import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple


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
