"""Fill a store, which may be cut off at any time.

Rows are only ever appended, and count once the list says so: a writer that is killed has lost what
it had not committed, and nothing else.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import torch
from torch import Tensor

from darkroom.atomic import Held
from darkroom.errors import CheckpointError, ModelMismatchError
from darkroom.vision.encoder import Encoder
from darkroom.vision.search.codes import encode, rotation, unit
from darkroom.vision.search.store import (
    KINDS,
    LIST,
    VERSION,
    File,
    check_model,
    connect,
    damaged,
    facts,
    fingerprint,
    mapped,
)

SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (path BLOB PRIMARY KEY, bytes INTEGER NOT NULL, changed INTEGER NOT NULL,
    digest BLOB NOT NULL, pixels INTEGER NOT NULL, row INTEGER NOT NULL UNIQUE);
CREATE INDEX digests ON files (digest);
CREATE TABLE holes (row INTEGER PRIMARY KEY);
"""


class Changes(NamedTuple):
    """What has happened to a folder since it was embedded."""

    new: list[File]  # or changed
    gone: list[str]
    same: int


class Writer:
    """Fills a store; one at a time. Use it as a context manager.

    Args:
        path: of the store; made if it is not there.
        folder: that the pictures' paths begin from.

    Raises:
        CheckpointError: it is damaged, in use by another writer, or no store.
        ModelMismatchError: another model has filled it, or it is of another folder.
    """

    def __init__(self, path: Path, folder: Path, encoder: Encoder) -> None:
        self.path = path
        self.width = width = encoder.encode_text("a").shape[1]
        self.turn = rotation(width)
        if (
            path.exists()
            and not (path / LIST).is_file()
            and (not path.is_dir() or any(path.iterdir()))
        ):
            raise CheckpointError(
                f"{path}: is no index, and is in the way; give --out another name"
            )
        path.mkdir(parents=True, exist_ok=True)
        self.lock = _held(path)
        self.open: dict[str, BinaryIO] = {}
        try:
            self.files = connect(path, "rwc")
            if not self.files.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._begin(folder, encoder)
            about = facts(self.files)
            check_model(path, about["model"], about["fingerprint"], encoder)
            if Path(os.path.normpath(path / about["folder"])) != folder:
                raise ModelMismatchError(
                    f"{path}: is an index of {os.path.normpath(path / about['folder'])}, not of "
                    f"{folder}; give --out another name"
                )
            if int(about["width"]) != width:
                raise ValueError(f"vectors of {about['width']} numbers, expected {width}")
            self.generation, self.rows = int(about["generation"]), int(about["rows"])
            self._tidy()
            self._open()
        except (sqlite3.Error, KeyError, ValueError, OSError) as error:
            self.close()
            raise damaged(path, error) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Without a commit."""
        for file in self.open.values():
            file.close()
        if hasattr(self, "files"):
            self.files.close()
        self.lock.release()

    def __len__(self) -> int:
        """Pictures."""
        return self.files.execute("SELECT count(*) FROM files").fetchone()[0]

    def changes(self, listing: Iterable[File]) -> Changes:
        """Compare with the files that there are now."""
        rows = self.files.execute("SELECT path, bytes, changed FROM files")
        known = {os.fsdecode(path): (size, changed) for path, size, changed in rows}
        new, same = [], 0
        for file in listing:
            if known.pop(file.path, None) == file[1:]:
                same += 1
            else:
                new.append(file)
        # what is left in known has changed or is gone
        changed = {file.path for file in new}
        return Changes(new, [path for path in known if path not in changed], same)

    def find(self, digest: bytes) -> tuple[int, Tensor] | None:
        """Pixels and vector (D,) of a picture with the same bytes, whatever its name."""
        found = self.files.execute(
            "SELECT pixels, row FROM files WHERE digest = ?", (digest,)
        ).fetchone()
        if not found:
            return None
        file = self.open["vectors"]
        file.seek(found[1] * self.width * 2)
        data = bytearray(file.read(self.width * 2))
        return found[0], torch.frombuffer(data, dtype=torch.float16)

    def add(self, entries: Sequence[tuple[File, bytes, int]], vectors: Tensor) -> None:
        """(file, digest, pixels) of pictures and their vectors (B, D); not yet committed."""
        halves = vectors.to(torch.float16)
        codes = encode(unit(halves), self.turn)
        scales = torch.stack([codes.steps, codes.errors], 1)
        for kind, part in zip(KINDS, (halves, codes.values, scales), strict=True):
            data = part.contiguous().numpy()
            self.open[kind].seek(self.rows * data.shape[1] * data.itemsize)
            self.open[kind].write(data.tobytes())
        for row, (file, digest, pixels) in enumerate(entries, self.rows):
            self.drop([file.path])
            self.files.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
                (os.fsencode(file.path), file.bytes, file.changed, digest, pixels, row),
            )
        self.rows += len(entries)

    def drop(self, paths: Iterable[str]) -> None:
        """Forget pictures; not yet committed."""
        for path in map(os.fsencode, paths):
            self.files.execute("INSERT INTO holes SELECT row FROM files WHERE path = ?", (path,))
            self.files.execute("DELETE FROM files WHERE path = ?", (path,))

    def commit(self) -> None:
        """What was added and dropped so far holds from now on, whatever happens."""
        for file in self.open.values():
            file.flush()
            os.fsync(file.fileno())
        self._tell(rows=self.rows, generation=self.generation)
        self.files.commit()

    def compact(self, share: float = 0.1) -> None:
        """Copy the rows in use to new files, if more than a ``share`` of them are not. Commits."""
        self.commit()
        holes = self.files.execute("SELECT count(*) FROM holes").fetchone()[0]
        if holes <= share * self.rows:
            return
        kept = [row for (row,) in self.files.execute("SELECT row FROM files ORDER BY row")]
        former, self.generation = self.generation, self.generation + 1
        for kind, file in self.open.items():
            wide = 2 if kind == "scales" else self.width
            rows = mapped(self.path, kind, former, self.rows, wide) if self.rows else None
            file.close()
            self.open[kind] = new = self._file(kind).open("w+b")
            for i in range(0, len(kept), 10_000):
                assert rows is not None
                new.write(rows[kept[i : i + 10_000]].numpy().tobytes())
        self.files.execute("DELETE FROM holes")
        pairs = ((new, -1 - old) for new, old in enumerate(kept))  # rows stay unique meanwhile
        self.files.execute("UPDATE files SET row = -1 - row")
        self.files.executemany("UPDATE files SET row = ? WHERE row = ?", pairs)
        self.rows = len(kept)
        self.commit()
        self._tidy()

    def _begin(self, folder: Path, encoder: Encoder) -> None:
        self.files.executescript(SCHEMA)
        here = os.path.relpath(folder, self.path)
        name, mark = encoder.name, fingerprint(encoder)
        self._tell(version=VERSION, folder=here, model=name, fingerprint=mark, width=self.width)
        self._tell(rows=0, generation=1)
        self.files.commit()

    def _tell(self, **facts: str | int) -> None:
        rows = [(key, str(value)) for key, value in facts.items()]
        self.files.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)

    def _open(self) -> None:
        for kind, numbers in zip(KINDS, (2 * self.width, self.width, 8), strict=True):
            path = self._file(kind)
            there = path.stat().st_size if path.exists() else 0
            if there < self.rows * numbers:
                raise ValueError(f"{path.name} holds {there // numbers} of {self.rows} rows")
            self.open[kind] = path.open("r+b" if path.exists() else "w+b")
            self.open[kind].truncate(self.rows * numbers)  # what was not committed

    def _tidy(self) -> None:
        """Delete files of other generations."""
        for kind in KINDS:
            for path in self.path.glob(f"{kind}-*"):
                if path != self._file(kind):
                    path.unlink()
        for path in self.path.glob("lists-*"):  # see approximate.py
            if not path.name.startswith(f"lists-{self.generation}-"):
                path.unlink()

    def _file(self, kind: str) -> Path:
        return self.path / f"{kind}-{self.generation}"


def _held(path: Path) -> Held:
    """The folder, until it is released or this process ends.

    Raises:
        CheckpointError: another process holds it.
    """
    try:
        return Held(path)
    except BlockingIOError:
        raise CheckpointError(
            f"{path}: another `darkroom embed` is at work on it; wait for it"
        ) from None
