"""Files appear whole or not at all; who is killed leaves nothing that a rerun does not remove.

What is being written is locked by its writer, and a lock ends with its process. So whatever of the
same name is not locked was left by a process that was killed.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows: there nothing is known of other writers, and nothing removed
    fcntl = None

# A failing disk does not say which file it was.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on success flush, sync and rename it into place.

    On any error, Ctrl-C included, the temporary file is removed and an existing ``path`` stays.

    Raises:
        OSError: naming ``path`` where the disk is full or fails.
    """
    path = Path(path)
    prefix = f".{path.name[:80]}."
    sweep(path.parent, prefix)
    with unfinished(path.parent, prefix) as temporary, on_disk(path):
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        open_to_all(temporary)
        os.replace(temporary, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def unfinished(folder: Path, prefix: str, *, directory: bool = False) -> Iterator[Path]:
    """An empty file (or folder) of an own name in ``folder``, removed at the end if still there."""
    while True:
        if directory:
            temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=folder))
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=folder)
            os.close(handle)
            temporary = Path(name)
        lock = _lock(temporary, wait=True)
        if lock is not None:  # None: swept away before it was locked
            break
    try:
        yield temporary
    finally:
        _remove(temporary)
        if lock >= 0:
            os.close(lock)


def sweep(folder: str | os.PathLike[str], prefix: str) -> list[str]:
    """Remove what killed writers have left under names that start so; returns the names."""
    left = []
    with contextlib.suppress(OSError):
        left = [e.path for e in os.scandir(folder) if e.name.startswith(prefix)]
    removed = []
    for path in left:
        lock = _lock(Path(path)) if path.endswith(".part") else None
        if lock is not None and lock >= 0:
            _remove(Path(path))
            os.close(lock)
            removed.append(os.path.basename(path))
    return sorted(removed)


def remove_unfinished(folder: str | os.PathLike[str]) -> list[str]:
    """Remove all that killed writers have left in ``folder``; returns the names."""
    return sweep(folder, ".")


class Held:
    """A folder that one works in; ends with ``release``, with this object or with the process."""

    def __init__(self, folder: Path) -> None:
        """Raises BlockingIOError where another holds it."""
        self.path, self.lock = folder / ".lock", -1
        for _ in range(3):  # whoever ends takes the file away, perhaps just now
            with open(self.path, "ab"):
                pass
            lock = _lock(self.path)
            if lock is not None:
                self.lock = lock
                return
        raise BlockingIOError(errno.EAGAIN, "another process is at work in it", str(folder))

    def release(self) -> None:
        """End it; a second call changes nothing."""
        if self.lock >= 0:
            _remove(self.path)
            os.close(self.lock)
            self.lock = -1

    def __del__(self) -> None:
        if hasattr(self, "lock"):
            self.release()


@contextlib.contextmanager
def on_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let a full or failing disk say which file it was that could not be written."""
    try:
        yield
    except OSError as error:
        name_file(error, path)
        raise


def name_file(error: OSError, path: str | os.PathLike[str]) -> None:
    """Have an error of a full or failing disk say which file it was."""
    if error.filename is None and error.errno in DISK:
        error.filename = os.fspath(path)


def open_to_all(path: str | os.PathLike[str]) -> None:
    """The permissions of an ordinary new file, where a temporary one has 0600."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename in ``folder`` durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path, *, wait: bool = False) -> int | None:
    """A descriptor that locks ``path``; -1 where the system has none; None: gone, or another's."""
    if fcntl is None:
        return -1
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if wait and not isinstance(error, FileNotFoundError):
            raise  # too many open files, say: another try would end the same way
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system without locks
        os.close(descriptor)
        return -1
    os.close(descriptor)
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
