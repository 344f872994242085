"""webdataset shards, addressed by number: ``name.jpg`` beside ``name.txt``, ``.json``, ``.cls``.

The headers of each tar are read once; what is kept of a sample is where its files lie (44 bytes).
Why not a stream: docs/decisions/0005-shards-by-index.md.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import DataError
from darkroom.training.data import words
from darkroom.training.data.labelled import SUFFIXES
from darkroom.training.data.pictures import Pictures
from darkroom.training.data.tar_members import members

VERSION = 1  # of the index files; a new one makes the old ones be scanned again
FIELDS = np.dtype(
    [(f"{part}_at", "<i8") for part in ("image", "text", "json")]
    + [(f"{part}_size", "<i4") for part in ("image", "text", "json")]
    + [("label", "<i4"), ("folder", "<i4")]
)
NONE = -1  # in ``label`` and ``folder``; a file that is not there has size -1
CHUNK = 4096  # samples whose texts are read at once
BRACES = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")


def expand(pattern: str, most: int = 1_000_000) -> list[Path]:
    """``{00000..00041}.tar`` -> 42 paths; several braces multiply. Without braces: itself.

    Raises:
        DataError: a range runs backwards, or beyond a million.
    """
    match = BRACES.search(pattern)
    if not match:
        return [Path(pattern)]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + most:
        raise DataError(f"{pattern}: expected {{first..last}} of at most a million shards")
    width = len(match[1]) if match[1].startswith("0") else 0
    return [
        path
        for number in range(first, last + 1)
        for path in expand(
            pattern[: match.start()] + f"{number:0{width}}" + pattern[match.end() :],
            most // (last - first + 1),
        )
    ]


class Shards(Pictures):
    """Pictures in tar shards.

    Args:
        paths: the shards, in the order that numbers their samples.
        cache: where the index of each shard is kept; None = nowhere. Default: the user's cache.
        advance: called after each shard that was scanned.

    Raises:
        DataError: a shard is missing, damaged or cut off; there is no picture in any.
    """

    kind = "webdataset"
    sharded = True

    def __init__(
        self,
        paths: Sequence[Path],
        cache: Path | str | None = "user",
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self.paths = list(paths)
        folder = cache_folder() if cache == "user" else Path(cache) if cache else None
        found: list[np.ndarray] = []
        self.folders: list[tuple[str, ...]] = []
        with ThreadPoolExecutor(4) as pool:  # the waiting for a disk overlaps
            for index, folders in pool.map(lambda path: _index(path, folder), self.paths):
                found.append(index)
                self.folders.append(folders)
                advance()
        self.index = np.concatenate(found) if found else np.empty(0, FIELDS)
        self.lengths = [len(index) for index in found]
        self.starts = np.cumsum([0, *self.lengths])
        if not len(self.index):
            names = ", ".join(str(path) for path in self.paths[:3]) or "no tar"
            raise DataError(f"{names}: no pictures; expected name.jpg beside name.txt in tars")
        self.captioned = bool(
            ((self.index["text_size"] >= 0) | (self.index["json_size"] >= 0)).any()
        )
        if (self.index["label"] != NONE).any():
            self.labels = torch.from_numpy(self.index["label"].astype(np.int64))
            self.classes = _class_names(self.paths[0].parent, int(self.labels.max()) + 1)
        elif not self.captioned:
            self._label_by_folder()

    def __len__(self) -> int:
        return len(self.index)

    def name(self, i: int) -> str:
        shard = int(np.searchsorted(self.starts, i, "right")) - 1
        try:
            with foreign.open_file(self.paths[shard], DataError) as file:
                file.seek(int(self.index[i]["image_at"]) - 512)
                name = file.read(100).split(b"\0")[0].decode("utf-8", "replace")
        except (OSError, DataError):
            name = "?"
        return f"{self.paths[shard].name}: {name}"

    def raw(self, indices: Sequence[int]) -> Iterator[bytes]:
        yield from self._files(indices, "image")

    def captions(self, i: int) -> tuple[str, ...]:
        return self._captions([i])[0]

    def all_captions(self) -> list[tuple[str, ...]]:
        return [
            said
            for i in range(0, len(self), CHUNK)
            for said in self._captions(range(i, min(i + CHUNK, len(self))))
        ]

    def _captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """The text of each sample; where it has none, what its row says."""
        return [words.kept(said) for said in self._texts(indices)]

    def has_lost_words(self, i: int) -> bool:
        return any(map(words.is_lost, self._texts([i])[0]))

    def _texts(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        texts = [words.decoded(text).strip() for text in self._files(indices, "text")]
        silent = [i for i, text in zip(indices, texts, strict=True) if not text]
        rows = iter(self._files(silent, "json"))
        return [(text,) if text else _said(_row(next(rows))) for text in texts]

    def row(self, i: int) -> dict:
        """The sample's ``.json``; empty if it has none, or none that can be read."""
        return _row(self._files([i], "json")[0])

    def stretches(self) -> Sequence[int]:
        return self.lengths

    def _files(self, indices: Sequence[int], part: str) -> list[bytes]:
        """One file of each sample, read shard by shard in the order of the disk."""
        numbers = np.asarray(indices, np.int64)
        rows = self.index[numbers]
        shards = np.searchsorted(self.starts, numbers, "right") - 1
        found = [b""] * len(numbers)
        at, sizes = rows[f"{part}_at"], rows[f"{part}_size"]
        order = np.lexsort((at, shards))
        for shard in np.unique(shards):
            path = self.paths[shard]
            try:
                with foreign.open_file(path, DataError, buffering=0) as file:
                    for k in order[shards[order] == shard]:
                        if sizes[k] > 0:
                            file.seek(int(at[k]))
                            found[k] = file.read(int(sizes[k]))
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        return found

    def _label_by_folder(self) -> None:
        """``class/file.jpg``: the folder is the class, where every sample lies in one."""
        if (self.index["folder"] == NONE).any():
            return
        self.classes = tuple(sorted({name for folders in self.folders for name in folders}))
        numbers = {name: label for label, name in enumerate(self.classes)}
        labels = np.empty(len(self.index), np.int64)
        for shard, folders in enumerate(self.folders):
            part = slice(self.starts[shard], self.starts[shard + 1])
            own = np.array([numbers[name] for name in folders], np.int64)
            labels[part] = own[self.index["folder"][part]] if len(own) else NONE
        self.labels = torch.from_numpy(labels)
        self.kind = "tar of class/file"


def _row(data: bytes) -> dict:
    try:
        row = foreign.parse_json(words.decoded(data), "its row", DataError) if data else {}
    except DataError:
        return {}
    return row if isinstance(row, dict) else {}


def _said(row: dict) -> tuple[str, ...]:
    found = row.get("caption") or row.get("text") or ()
    return (found,) if isinstance(found, str) else tuple(map(str, found))


def cache_folder() -> Path:
    """Where indices of shards are kept: under ``DARKROOM_HOME``, or the user's cache."""
    if given := os.environ.get("DARKROOM_HOME"):
        return Path(given) / "shards"
    from platformdirs import user_cache_path

    return user_cache_path("darkroom") / "shards"


def _index(path: Path, cache: Path | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The index of one shard, from the cache if the shard is as it was."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    key = f"{VERSION} {path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    kept = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz" if cache else None
    if kept and kept.is_file():
        try:
            with np.load(kept, allow_pickle=False) as file:
                index, folders = file["index"], tuple(file["folders"].tolist())
            if index.dtype == FIELDS:
                return index, folders
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass  # damaged: scan again
    index, folders = scan(path)
    if kept:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept) as file:
                np.savez(file, index=index, folders=np.array(folders, np.str_))
        except OSError:
            pass  # a full or read-only disk costs a scan next time, no more
    return index, folders


def scan(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The samples of one shard: (N,) ``FIELDS``, and the folders that ``folder`` counts.

    A sample is the files, one after the other, whose names agree up to the first dot. Those
    without a picture are left out.

    Raises:
        DataError: the shard is damaged, or one file in it is larger than 2 GB.
    """
    rows: list[tuple] = []
    folders: dict[str, int] = {}
    parts: dict[str, tuple[int, int]] = {}
    previous = None

    def finish() -> None:
        if "image" not in parts:
            return
        image, text, extra = (parts.get(p, (0, -1)) for p in ("image", "text", "json"))
        folder = PurePosixPath(str(previous)).parent.name
        number = folders.setdefault(folder, len(folders)) if folder else NONE
        label = parts.get("cls", (NONE, 0))[0]
        sizes = (image[1], text[1], extra[1])
        rows.append((image[0], text[0], extra[0], *sizes, label, number))

    for name, offset, size in members(path):
        head, _, file = name.rpartition("/")
        stem, dot, extension = file.partition(".")
        if not stem or not dot:  # hidden files, and files that are no part of a sample
            continue
        key = f"{head}/{stem}"
        if key != previous:
            finish()
            previous = key
            parts.clear()
        suffix = "." + extension.lower().rpartition(".")[2]
        if size >= 2**31:
            raise DataError(f"{path}: {size:,} bytes for one file at byte {offset:,}; not a sample")
        if suffix in SUFFIXES:  # beside x.jpg, x.mask.png is something else
            plain = suffix == f".{extension.lower()}"
            if "image" not in parts or (plain and not parts["plain"][0]):
                parts["image"], parts["plain"] = (offset, size), (plain, 0)
        elif suffix in (".txt", ".json"):
            parts["text" if suffix == ".txt" else "json"] = (offset, size)
        elif suffix == ".cls":
            parts["cls"] = (_label(path, offset, size), 0)
    finish()
    return np.array(rows, FIELDS), tuple(folders)


def _label(path: Path, offset: int, size: int) -> int:
    with foreign.open_file(path, DataError) as file:
        file.seek(offset)
        text = file.read(min(size, 32)).strip()
    if not text.isdigit() or int(text) >= 2**31:
        raise DataError(f"{path}: a .cls at byte {offset:,} holds {text!r}; expected a number")
    return int(text)


def _class_names(folder: Path, count: int) -> tuple[str, ...]:
    """The lines of ``classnames.txt`` beside the shards, if they fit; else the numbers."""
    try:
        names = tuple(foreign.read_text(folder / "classnames.txt", DataError).splitlines())
    except DataError:
        names = ()
    return names if len(names) >= count else tuple(map(str, range(count)))
