"""``open_data``: what lies at a path, recognised by its names, opened without reading pictures."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from darkroom import foreign
from darkroom.errors import DataError
from darkroom.training.data import words
from darkroom.training.data.flickr8k import Split, read_captions, split_names
from darkroom.training.data.labelled import SUFFIXES, class_tar, idx
from darkroom.training.data.pictures import Files, Held, Item, Pictures
from darkroom.training.data.shards import Shards, expand

KOHYA = re.compile(r"(\d{1,6})_(.+)")
NOTES = (".txt", ".caption")  # beside a picture, what is said of it
SPLITS = {  # as Hugging Face's loader knows them
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
EXPECTED = (
    "expected class/file folders, metadata.jsonl or metadata.csv, Images/ with captions.txt, "
    "<repeats>_<name>/ folders, IDX files, .tar shards, or train/ with trainannot/"
)


def open_data(path: str | Path, split: str = "train") -> Pictures:
    """The pictures at a path, whatever format they come in.

    Args:
        path: a folder, a tar, or tars as ``shards/{00000..00041}.tar``.
        split: "train", "validation" or "test", where the data says which is which.

    Raises:
        DataError: nothing there, nothing recognised, or no picture in it.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    found = _open(path, split)
    found.where = str(path)
    return found


def _open(path: str | Path, split: str) -> Pictures:
    if "{" in str(path) and not Path(path).exists():
        return Shards(expand(str(path)))
    path = Path(path)
    if path.is_file():
        return _tar(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file; check the path")
    if (path / "captions.txt").is_file():
        return flickr(path, split)
    if metadata := metadata_files(path, split):
        return image_folder_files(path, metadata)
    if any(path.glob("*-images[-.]idx3-ubyte*")):
        return Held("IDX", idx(path, train=split == "train"))
    if tars := sorted(path.glob("*.tar")):
        return Shards(tars)
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    names = {folder.name for folder in folders}
    part = next((name for name in SPLITS[split] if name in names), None)
    if part and f"{part}annot" in names:
        return camvid_pairs(path, part)
    if kohya := _kohya_folders(path):
        return kohya_folders(path, kohya)
    if part and names <= {name for group in SPLITS.values() for name in group}:
        return _open(path / part, split)
    if any(_pictures(folder) for folder in folders):
        return class_files(path, folders)
    if found := _pictures(path):
        return beside(path, found)
    raise DataError(f"{path}: no data set that is known here; {EXPECTED}")


def class_files(path: Path, folders: Iterable[Path]) -> Files:
    """``class/file``; folders without pictures are no class."""
    found = {folder.name: _pictures(folder) for folder in folders}
    classes = tuple(name for name, pictures in found.items() if pictures)
    items = [
        Item(picture, label=label) for label, name in enumerate(classes) for picture in found[name]
    ]
    return Files("class folders", path, items, classes)


def beside(path: Path, pictures: Iterable[Path]) -> Files:
    """Pictures in one folder, each with its ``.txt`` or ``.caption`` beside it, if any."""
    items = [Item(picture, _note(picture)) for picture in pictures]
    return Files("folder of pictures", path, items, captioned=True)


def kohya_folders(path: Path, folders: Iterable[Path]) -> Files:
    """``<repeats>_<name>/``: each picture so many times an epoch; the name captions the silent.

    As kohya's scripts do it: the first line of the ``.txt`` or ``.caption`` counts.
    """
    items = []
    for folder in folders:
        repeats, name = folder.name.split("_", 1)
        for picture in _pictures(folder):
            items.append(
                Item(
                    picture, _note(picture)[:1] or (name,), repeats=int(repeats), row={"name": name}
                )
            )
    if items and not any(item.repeats for item in items):
        raise DataError(f"{path}: every folder is repeated 0 times; name one 1_something")
    return Files("kohya folders", path, items, captioned=True)


def camvid_pairs(path: Path, part: str) -> Files:
    """``train/x.png`` with its mask ``trainannot/x.png``."""
    items = []
    for picture in _pictures(path / part):
        mask = path / f"{part}annot" / f"{picture.stem}.png"
        if not mask.is_file():
            raise DataError(f"{picture}: no mask {mask.name} in {mask.parent.name}/")
        items.append(Item(picture, row={"mask": str(mask)}))
    return Files("camvid pairs", path, items)


def flickr(path: Path, split: str) -> Files:
    """Kaggle's Flickr8k; all of it where the official lists are missing."""
    parts: dict[str, Split] = {"train": "train", "validation": "dev", "test": "test"}
    part = parts[split]
    listed = (path / f"Flickr_8k.{part}Images.txt").is_file()
    return flickr_files(path, part if listed else "all")


def flickr_files(path: Path, split: Split) -> Files:
    """One split of Kaggle's Flickr8k. Raises as ``flickr8k`` does."""
    captions = read_captions(path)
    names = split_names(path, split, captions)
    items = [Item(path / "Images" / name, captions[name]) for name in names]
    found = Files("Flickr8k", path, items, captioned=True)
    found.where = str(path)
    return found


def image_folder_files(path: Path, metadata: Iterable[Path]) -> Files:
    """Hugging Face's imagefolder: ``metadata.jsonl`` or ``.csv`` in any folder of the tree.

    ``file_name`` counts from the metadata's own folder; ``text`` or ``caption`` is what is said,
    ``label`` what it is; every other column is kept as it is.
    """
    items, labels = [], []
    for file in metadata:
        for number, row in _rows(file):
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise DataError(f"{file}: row {number} has no file_name")
            said = next((row[key] for key in ("text", "caption") if row.get(key)), ())
            said = (said,) if isinstance(said, str) else tuple(map(str, said))
            items.append(Item(_inside(file.parent, name, file), said, row=row))
            labels.append(row.get("label"))
    told = any(item.captions for item in items)
    names = []
    if items and not any(label is None for label in labels):
        names = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
        items = [
            Item(item.path, item.captions, names.index(label), row=item.row)
            for item, label in zip(items, labels, strict=True)
        ]
    captioned = told or not names
    found = Files("imagefolder", path, items, tuple(map(str, names)), captioned=captioned)
    found.cut_outs = True
    return found


def _tar(path: Path) -> Pictures:
    """Shards; or, compressed, classes held in memory."""
    with foreign.open_file(path, DataError) as file:
        start = file.read(6)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\0":
        return Held("tar of class/file", class_tar(path))
    return Shards([path])


def metadata_files(path: Path, split: str = "train") -> list[Path]:
    """Every metadata file; those of one split only, where the folders are named after splits."""
    found = sorted(p for p in path.rglob("metadata.*") if p.suffix in (".jsonl", ".csv"))
    by_split = [p for p in found if p.relative_to(path).parts[0] in SPLITS[split]]
    return by_split or found


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, its columns)."""
    try:
        with words.reading(foreign.open_file(file, DataError)) as lines:
            if file.suffix == ".csv":
                yield from (
                    (number, dict(row)) for number, row in enumerate(csv.DictReader(lines), 2)
                )
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = foreign.parse_json(line, f"{file}: line {number}", DataError)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no object")
                    yield number, row
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{file}: not readable as {file.suffix[1:]} ({error})") from None


def _inside(folder: Path, name: str, source: Path) -> Path:
    """``folder / name``, if that stays in the folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name[:2]:
        raise DataError(f"{source}: {name!r} leads out of {folder}")
    return folder / parts


def _kohya_folders(path: Path) -> list[Path]:
    """Folders named so, here or in ``img/``, where kohya's own window puts them."""
    for place in (path, path / "img"):
        if place.is_dir():
            found = [p for p in sorted(place.iterdir()) if p.is_dir() and KOHYA.fullmatch(p.name)]
            if any(_pictures(folder) for folder in found):
                return found
    return []


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
    )


def _note(picture: Path) -> tuple[str, ...]:
    """The lines beside a picture that say something."""
    for suffix in NOTES:
        note = picture.with_suffix(suffix)
        if not note.exists():
            continue
        lines = words.decoded(foreign.read_bytes(note, DataError)).splitlines()
        return tuple(line.strip() for line in lines if line.strip())
    return ()
