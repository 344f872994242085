"""Names of output files, and putting files there without ever replacing one."""

import errno
import os
import re
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from darkroom.app.outcome import usage
from darkroom.atomic import DISK, on_disk, open_to_all, sweep, sync_folder, unfinished
from darkroom.errors import CheckpointError, DarkroomError

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
OTHER_PICTURES = (".gif", ".bmp", ".tif", ".tiff", ".avif", ".jxl", ".heic", ".svg")
LONGEST_NAME = 255  # bytes, on every common file system
TEMPORARY = ".darkroom-"  # how the names of unfinished pictures begin
NUMBERED = re.compile(r"(\d{5,})-")


def slug(text: str) -> str:
    """At most 60 of [a-z0-9-], made from the words of ``text``; may be empty."""
    plain = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    return "-".join(words)[:60].strip("-")


@dataclass(frozen=True)
class Output:
    """Where pictures go: into ``folder`` by number, slug and seed; or to the one ``file``."""

    folder: Path
    file: str = ""  # a file name with a suffix of SUFFIXES, or empty
    suffix: str = ".png"

    def save(self, data: bytes, prompt: str, seed: int | None = None) -> Path:
        """Write one picture under the next free name, whole or not at all.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder, TEMPORARY)
        number = self._next_number()
        while True:
            path = self.folder / self._name(number, prompt, seed)
            try:
                write_new(path, data)
                return path
            except FileExistsError:  # taken, perhaps this moment by another process
                number += 1

    def check(self) -> None:
        """Refuse a place where nothing can be written, before anything is drawn for it.

        Raises:
            CheckpointError: saying what is in the way.
        """
        check_place(self.folder / (self.file or "00001.png"))

    def beside(self, word: str) -> "Output":
        """Where something goes that explains the pictures: its names end in ``word``."""
        if not self.file:
            return Output(self.folder, suffix=f"-{word}.png")
        return Output(self.folder, f"{os.path.splitext(self.file)[0]}-{word}.png")

    def _name(self, number: int, prompt: str, seed: int | None) -> str:
        if self.file:
            stem, suffix = os.path.splitext(self.file)
            return self.file if number == 1 else f"{stem}-{number}{suffix}"
        parts = (f"{number:05}", slug(prompt), "" if seed is None else str(seed))
        return "-".join(part for part in parts if part) + self.suffix

    def _next_number(self) -> int:
        if self.file:
            return 1
        numbers = (NUMBERED.match(entry.name) for entry in os.scandir(self.folder))
        return max((int(match[1]) for match in numbers if match), default=0) + 1


def output(where: str) -> Output:
    """What ``--out`` says: a folder, or a file if it ends in a picture's suffix.

    Raises:
        UsageError: it ends in the suffix of a picture that Darkroom does not write.
    """
    path = Path(where).expanduser()
    if path.suffix.lower() in OTHER_PICTURES and not path.is_dir():
        raise usage(f"{path.name}: pictures are written as {', '.join(SUFFIXES)}", "--out")
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        return Output(path.parent, path.name, path.suffix.lower())
    return Output(path)


def check_place(path: Path) -> None:
    """Refuse a file that could not be made; makes no folder and leaves no file.

    Raises:
        CheckpointError: saying what is in the way.
    """
    for part in path.parts:
        if "\0" in part or len(os.fsencode(part)) > LONGEST_NAME:
            raise CheckpointError(
                f"{str(path)[:60]!r}: a name has at most {LONGEST_NAME} bytes; choose a shorter one"
            )
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: is no folder, so {path} cannot be made; choose another place"
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file, on_disk(path):
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        if error.errno in DISK and error.errno != errno.EROFS:
            raise  # exit code 1, with the name
        why = error.strerror or str(error)
        raise CheckpointError(
            f"{path}: nothing can be written in {folder} ({why}); choose another place"
        ) from None


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet; it appears whole, in one moment, or not at all.

    Raises:
        FileExistsError: there is something at ``path``.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with unfinished(path.parent, TEMPORARY) as temporary:
        try:
            with on_disk(path), open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _with_space(error, path, len(data)) from None
        open_to_all(temporary)
        try:
            os.link(temporary, path)  # unlike a rename, this refuses to replace a file
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.rename(temporary, path)
    sync_folder(path.parent)


def _with_space(error: OSError, path: Path, size: int) -> Exception:
    if error.errno != errno.ENOSPC:
        return error
    import shutil

    free = shutil.disk_usage(path.parent).free
    return DarkroomError(
        f"{path}: the disk is full: {size:,} bytes needed, {free:,} free; "
        "free some space or choose another --out"
    )
