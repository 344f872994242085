"""Vectors of many pictures in a folder of files, mapped into memory.

``files.sqlite`` says which picture has which row of ``vectors``, ``codes`` and ``scales``; rows
count once it says so. Where many rows have no picture any more, what is left is copied to a new
generation of files.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from darkroom.errors import CheckpointError, ModelMismatchError
from darkroom.vision.encoder import Encoder
from darkroom.vision.search.codes import Codes, rotation

NAME = "darkroom-index"  # of a store inside the folder that it is of
FORMER = "darkroom-index.safetensors"  # what there was before
VERSION = "1"
LIST = "files.sqlite"
KINDS = ("vectors", "codes", "scales")  # (N, D) float16; (N, D) int8; (N, 2) float32


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
        with closing(connect(place, "rw")) as files:
            about = facts(files)
            holes = [row for (row,) in files.execute("SELECT row FROM holes ORDER BY row")]
        rows, width = int(about["rows"]), int(about["width"])
        generation = int(about["generation"])
        values = mapped(place, "codes", generation, rows, width)
        scales = mapped(place, "scales", generation, rows, 2)
        folder = os.path.normpath(place / about["folder"])
        return cls(
            place,
            Path(os.path.abspath(folder) if folder.startswith("..") else folder),
            about["model"],
            about["fingerprint"],
            generation,
            mapped(place, "vectors", generation, rows, width),
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
            with closing(connect(self.path, "rw")) as files:
                if int(facts(files)["generation"]) != self.generation:
                    raise CheckpointError(f"{self.path}: has changed meanwhile; open it again")
                yield files
        except (sqlite3.Error, KeyError, ValueError) as error:
            raise damaged(self.path, error) from None


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


def mapped(place: Path, kind: str, generation: int, rows: int, width: int) -> Tensor:
    """Its first ``rows``, mapped; what is written to the tensor never reaches the file."""
    dtype = {"vectors": np.float16, "codes": np.int8, "scales": np.float32}[kind]
    path = place / f"{kind}-{generation}"
    there = path.stat().st_size // (width * np.dtype(dtype).itemsize)
    if there < rows:
        raise ValueError(f"{path.name} holds {there} of {rows} rows")
    if not rows:
        return torch.from_numpy(np.empty((0, width), dtype))
    return torch.from_numpy(np.memmap(path, dtype, "c", shape=(rows, width)))


def connect(place: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{(place / LIST).absolute().as_uri()}?mode={mode}", uri=True)


def facts(files: sqlite3.Connection) -> dict[str, str]:
    about = dict(files.execute("SELECT key, value FROM about"))
    if about["version"] != VERSION:
        raise ValueError(f"version {about['version']}, expected {VERSION}")
    return about
