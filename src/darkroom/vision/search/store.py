"""Vectors of many pictures in a folder of files, which grows and shrinks and may be cut off.

``files.sqlite`` says which picture has which row; ``vectors``, ``codes`` and ``scales`` hold the
rows and are mapped into memory. Rows are only ever appended, and count once the list says so: a
writer that is killed has lost what it had not committed, and nothing else. Where many rows have
no picture any more, what is left is copied to a new generation of files.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from darkroom.errors import CheckpointError, ModelMismatchError
from darkroom.vision.encoder import Encoder
from darkroom.vision.search.codes import Codes, encode, rotation, unit

NAME = "darkroom-index"  # of a store inside the folder that it is of
FORMER = "darkroom-index.safetensors"  # what there was before
VERSION = "1"
LIST = "files.sqlite"
KINDS = ("vectors", "codes", "scales")  # (N, D) float16; (N, D) int8; (N, 2) float32
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (path BLOB PRIMARY KEY, bytes INTEGER NOT NULL, changed INTEGER NOT NULL,
    digest BLOB NOT NULL, pixels INTEGER NOT NULL, row INTEGER NOT NULL UNIQUE);
CREATE INDEX digests ON files (digest);
CREATE TABLE holes (row INTEGER PRIMARY KEY);
"""


class File(NamedTuple):
    """A picture file, and what says whether it is still the same."""

    path: str  # from the folder of pictures
    bytes: int
    changed: int  # its time of modification, in nanoseconds


class Entry(NamedTuple):
    """What a store knows of one picture."""

    file: File
    digest: bytes  # of the file
    pixels: int  # width * height
    row: int


class Changes(NamedTuple):
    """What has happened to a folder since it was embedded."""

    new: list[File]  # or changed
    gone: list[str]
    same: int


@dataclass(frozen=True, eq=False)
class Index:
    """A store as a search sees it. Rows of ``holes`` belong to no picture."""

    path: Path
    folder: Path  # that the pictures' paths begin from
    model: str  # what embedded them, as ``open_encoder`` takes it
    fingerprint: str  # of that model
    generation: int
    vectors: Tensor  # (N, D) float16, of length about one
    codes: Codes
    holes: Tensor  # (H,) int64
    turn: Tensor  # (D, D), see ``codes.rotation``

    def __len__(self) -> int:
        """Pictures."""
        return len(self.vectors) - len(self.holes)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.vectors.shape[1]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Index":
        """Open a store, or that inside of a folder of pictures.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        place = found(path)
        try:
            try:
                return cls._read(place)
            except FileNotFoundError:  # a writer has copied it to a new generation meanwhile
                return cls._read(place)
        except (sqlite3.Error, KeyError, ValueError, OSError) as error:
            raise damaged(place, error) from None

    @classmethod
    def _read(cls, place: Path) -> "Index":
        with closing(_connect(place, "rw")) as files:
            about = _about(files)
            holes = [row for (row,) in files.execute("SELECT row FROM holes ORDER BY row")]
        rows, width = int(about["rows"]), int(about["width"])
        generation = int(about["generation"])
        values = _mapped(place, "codes", generation, rows, width)
        scales = _mapped(place, "scales", generation, rows, 2)
        return cls(
            place,
            Path(os.path.normpath(place / about["folder"])),
            about["model"],
            about["fingerprint"],
            generation,
            _mapped(place, "vectors", generation, rows, width),
            Codes(values, *scales.T.contiguous()),
            torch.tensor(holes, dtype=torch.int64),
            rotation(width),
        )

    def entries(self, rows: Sequence[int] | None = None) -> list[Entry]:
        """Of these rows, in their order; of all, in the order of rows.

        Raises:
            CheckpointError: the store has been written anew since it was opened, or is damaged.
        """
        chosen = "SELECT path, bytes, changed, digest, pixels, row FROM files "
        with self._listed() as files:
            if rows is None:
                return [_entry(row) for row in files.execute(chosen + "ORDER BY row")]
            found = {}
            for i in range(0, len(rows), 500):
                some = rows[i : i + 500]
                marks = ",".join("?" * len(some))
                for row in files.execute(f"{chosen} WHERE row IN ({marks})", some):
                    found[row[-1]] = _entry(row)
            return [found[row] for row in rows]

    def best_first(self) -> list[int]:
        """Every row with a picture: by pixels, then by bytes, most first; then by path.

        Raises:
            CheckpointError: as ``entries``.
        """
        chosen = "SELECT row FROM files ORDER BY pixels DESC, bytes DESC, length(path), path"
        with self._listed() as files:
            return [row for (row,) in files.execute(chosen)]

    def check(self, encoder: Encoder) -> None:
        """Raises ModelMismatchError: another model has made the vectors."""
        check_model(self.path, self.model, self.fingerprint, encoder)

    @contextmanager
    def _listed(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(_connect(self.path, "rw")) as files:
                if int(_about(files)["generation"]) != self.generation:
                    raise CheckpointError(f"{self.path}: has changed meanwhile; open it again")
                yield files
        except (sqlite3.Error, KeyError, ValueError) as error:
            raise damaged(self.path, error) from None


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
        self.lock = _lock(path)
        self.open: dict[str, BinaryIO] = {}
        try:
            self.files = _connect(path, "rwc")
            if not self.files.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._begin(folder, encoder)
            about = _about(self.files)
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
        self.lock.close()

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
            rows = _mapped(self.path, kind, former, self.rows, wide) if self.rows else None
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


def found(path: str | os.PathLike[str]) -> Path:
    """A store, given itself or the folder of pictures that it lies in.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_file():
        old = path.suffix == ".safetensors"
        what = "an index of an older Darkroom" if old else "a file, and no index"
        raise CheckpointError(f"{path}: is {what}; `darkroom embed DIR` makes one")
    for place in (path, path / NAME):
        if (place / LIST).is_file():
            return place
    old = " of this version" if (path / FORMER).is_file() else ""
    raise CheckpointError(f"{path}: no index{old}; make one: `darkroom embed {path}`")


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The one line for a store that cannot be used."""
    said = str(error) or type(error).__name__
    if isinstance(error, KeyError):
        said = f"nothing about {error}"
    return CheckpointError(
        f"{path}: damaged, or no index of pictures ({said}); delete that folder and embed again"
    )


def check_model(path: Path, model: str, mark: str, encoder: Encoder) -> None:
    """Raises ModelMismatchError: the encoder is not the one that a store is of."""
    if fingerprint(encoder) == mark:
        return
    other = f"{encoder.name} is another model" if encoder.name != model else "it has changed since"
    raise ModelMismatchError(
        f"{path}: was made with {model}, and {other}; "
        f"give --model {model}, or `darkroom embed --again`"
    )


def fingerprint(encoder: Encoder) -> str:
    """Of a few numbers of every weight, and of how pictures are read."""
    digest = hashlib.blake2b(f"{encoder.size} {encoder.crop}".encode(), digest_size=16)
    for name, value in sorted(encoder.model.state_dict().items()):
        flat = value.flatten()
        some = flat[:: max(1, len(flat) // 8)][:9].float().cpu().numpy()
        digest.update(f"{name} {tuple(value.shape)}".encode() + some.tobytes())
    return digest.hexdigest()


def _entry(row: tuple[bytes, int, int, bytes, int, int]) -> Entry:
    path, size, changed, digest, pixels, number = row
    return Entry(File(os.fsdecode(path), size, changed), digest, pixels, number)


def _mapped(place: Path, kind: str, generation: int, rows: int, width: int) -> Tensor:
    """Its first ``rows``, mapped; what is written to the tensor never reaches the file."""
    dtype = {"vectors": np.float16, "codes": np.int8, "scales": np.float32}[kind]
    path = place / f"{kind}-{generation}"
    there = path.stat().st_size // (width * np.dtype(dtype).itemsize)
    if there < rows:
        raise ValueError(f"{path.name} holds {there} of {rows} rows")
    if not rows:
        return torch.from_numpy(np.empty((0, width), dtype))
    return torch.from_numpy(np.memmap(path, dtype, "c", shape=(rows, width)))


def _connect(place: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{(place / LIST).absolute().as_uri()}?mode={mode}", uri=True)


def _about(files: sqlite3.Connection) -> dict[str, str]:
    about = dict(files.execute("SELECT key, value FROM about"))
    if about["version"] != VERSION:
        raise ValueError(f"version {about['version']}, expected {VERSION}")
    return about


def _lock(path: Path) -> sqlite3.Connection:
    """Held until it is closed, or its process ends.

    Raises:
        CheckpointError: another process holds it.
    """
    lock = sqlite3.connect(path / "lock", timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        raise CheckpointError(
            f"{path}: another `darkroom embed` is at work on it ({error}); wait for it"
        ) from None
    return lock
