"""Masks to files as they come; every file appears whole or not at all."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import DataError, ImageError
from darkroom.images import MAX_BYTES, peek
from darkroom.masks import Mask, colours
from darkroom.names import EXPORT_NAMES, did_you_mean
from darkroom.vision.export.coco import coco
from darkroom.vision.export.label_studio import interface, tasks
from darkroom.vision.export.records import OBJECT, Pictured
from darkroom.vision.export.yolo import data_yaml, label_lines

__all__ = ["Writer", "label_map", "writer"]

MARK = "darkroom segment"  # in the PNG files of masks
COLUMNS = (
    "picture", "width", "height", "number", "label", "score",
    "left", "top", "right", "bottom", "area", "source", "rle",
)  # fmt: skip


class Writer:
    """One format. ``found`` takes a mask, ``done`` ends a picture, ``close`` ends the whole.

    What was not ended is not in the files of many pictures. ``files`` says what was written;
    files of the same names are replaced, but for those in ``keep``, which are an error.

    Args:
        folder: made if it is not there.
        file: a name in it, for the one file of those formats that write one.
    """

    def __init__(self, folder: Path, file: str = "") -> None:
        self.folder, self.file = folder, file
        self.files: list[Path] = []
        self.removed = 0  # files of an earlier run
        self.keep: frozenset[Path] = frozenset()

    def found(self, picture: Pictured, mask: Mask) -> None:
        """A mask has just been added to ``picture``."""

    def done(self, picture: Pictured) -> None:
        """All of its masks are there."""

    def close(self) -> None:
        """No more pictures come."""

    def draw(self, name: str, picture: Image.Image) -> Path:
        """Write a PNG file beside the others."""
        self._write(name, _png(picture))
        return self.files[-1]

    def _write(self, name: str, content: str | bytes) -> None:
        path = self.folder / name
        if path.resolve() in self.keep:
            raise DataError(f"{path}: is one of the pictures; write to another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        self.files.append(path)


class Pictures(Writer):
    """``png``: a black and white picture for each mask, as soon as it is there."""

    def found(self, picture: Pictured, mask: Mask) -> None:
        """Write it."""
        number = len(picture.records)
        stem, dot, suffix = self.file.rpartition(".")
        name = f"{picture.name}/{number:04}.png"
        if self.file:
            name = self.file if number == 1 else f"{stem}-{number}{dot}{suffix}"
        self._write(name, _png(mask.binary().image(), marked=True))

    def done(self, picture: Pictured) -> None:
        """Remove the masks that an earlier run left beside its own.

        Raises:
            DataError: there are others of such names, which this did not write.
        """
        if self.file:
            return
        for path in sorted((self.folder / picture.name).glob("[0-9][0-9][0-9][0-9]*.png")):
            if not path.stem.isdecimal() or int(path.stem) <= len(picture.records):
                continue
            if not _is_marked(path):
                raise DataError(
                    f"{path}: is no mask of an earlier run, and would lie among the new ones; "
                    "choose another folder"
                )
            path.unlink()
            self.removed += 1


class LabelMaps(Writer):
    """``labelmap``: one picture for all masks, its pixels their numbers, 0 where there is none."""

    def done(self, picture: Pictured) -> None:
        """Write it."""
        self._write(self.file or f"{picture.name}-labels.png", _png(label_map(picture)))


class RunLengths(Writer):
    """``rle``: a JSON file for each picture, of boxes, areas, scores and run lengths."""

    def done(self, picture: Pictured) -> None:
        """Write it."""
        height, width = picture.size
        content = {"picture": picture.file, "width": width, "height": height}
        content["masks"] = [record.fields() for record in picture.records]
        self._write(self.file or f"{picture.name}.json", _json(content))


class Yolo(Writer):
    """``yolo``: ``labels/*.txt`` and ``data.yaml``; the pictures themselves go into ``images``."""

    def __init__(self, folder: Path, file: str = "") -> None:
        super().__init__(folder, file)
        self.classes = self._earlier()

    def done(self, picture: Pictured) -> None:
        """Write its labels, and copy the picture if it is a file here."""
        source = Path(picture.file)
        copy = f"images/{picture.name}{source.suffix}"
        if source.is_file() and (self.folder / copy).resolve() != source.resolve():
            self._write(copy, foreign.read_bytes(source, ImageError, MAX_BYTES))
        self._write(f"labels/{picture.name}.txt", label_lines(picture, self.classes))

    def _earlier(self) -> dict[str, int]:
        """Classes of the labels that are there already: they keep their numbers.

        Raises:
            DataError: there are labels, and nothing says of what.
        """
        if not any((self.folder / "labels").glob("**/*.txt")):
            return {}
        names = foreign.read_text(self.folder / "classes.txt", DataError).splitlines()
        return {name: i for i, name in enumerate(names)}

    def close(self) -> None:
        """Write which classes there are."""
        classes = self.classes or {OBJECT: 0}
        self._write("classes.txt", "".join(f"{name}\n" for name in classes))
        self._write("data.yaml", data_yaml(classes))


class Together(Writer):
    """Formats with one file for all pictures."""

    def __init__(self, folder: Path, file: str = "") -> None:
        super().__init__(folder, file)
        self.pictures: list[Pictured] = []

    def done(self, picture: Pictured) -> None:
        """Keep it."""
        self.pictures.append(picture)


class Coco(Together):
    """``coco``: ``annotations.json``, with run lengths."""

    polygons = False

    def close(self) -> None:
        """Write the file."""
        name = f"annotations{'-polygons' * self.polygons}.json"
        self._write(self.file or name, _json(coco(self.pictures, self.polygons)))


class CocoPolygons(Coco):
    """``coco-polygons``: ``annotations-polygons.json``, with outlines."""

    polygons = True


class LabelStudio(Together):
    """``labelstudio``: tasks to import, with polygons, and the interface that they need."""

    brush = False

    def close(self) -> None:
        """Write both."""
        names = dict.fromkeys(r.name for picture in self.pictures for r in picture.records)
        stem = self.file.rpartition(".")[0] or f"tasks{'-brush' * self.brush}"
        self._write(f"{stem}.json", _json(tasks(self.pictures, self.brush)))
        self._write(f"{stem}-interface.xml", interface(names, self.brush))


class LabelStudioBrush(LabelStudio):
    """``labelstudio-brush``: with brush strokes."""

    brush = True


class Table(Together):
    """``csv``: a line for each mask, its run lengths as ``HEIGHTxWIDTH:counts``."""

    def close(self) -> None:
        """Write the file."""
        text = io.StringIO(newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        for picture in self.pictures:
            height, width = picture.size
            for number, r in enumerate(picture.records, 1):
                score = "" if r.score is None else r.score
                runs = f"{height}x{width}:{r.rle['counts']}"
                where = (picture.file, width, height, number, r.label, score)
                lines.writerow((*where, *r.box, r.area, r.source, runs))
        self._write(self.file or "masks.csv", text.getvalue())


WRITERS: dict[str, type[Writer]] = {
    "coco": Coco,
    "coco-polygons": CocoPolygons,
    "yolo": Yolo,
    "labelstudio": LabelStudio,
    "labelstudio-brush": LabelStudioBrush,
    "png": Pictures,
    "labelmap": LabelMaps,
    "rle": RunLengths,
    "csv": Table,
}


def writer(kind: str, folder: Path, file: str = "") -> Writer:
    """What writes masks in a format of ``EXPORT_NAMES``.

    Raises:
        ValueError: there is no such format, or it needs a folder.
    """
    if kind not in WRITERS:
        known = " ".join(EXPORT_NAMES)
        raise ValueError(f"no format {kind!r}{did_you_mean(kind, EXPORT_NAMES)}; known: {known}")
    if kind == "yolo" and file:
        raise ValueError(f"{file}: YOLO's labels are many files; give a folder")
    return WRITERS[kind](folder, file)


def label_map(picture: Pictured) -> Image.Image:
    """The number of each pixel's mask, counted from 1; where they overlap the smallest shows.

    Of up to 255 masks a picture with a palette, of more one of 16 bits.

    Raises:
        ValueError: more than 65,535 masks.
    """
    count = len(picture.records)
    if count > 65535:
        raise ValueError(f"{count} masks; a map has room for 65,535")
    numbers = np.zeros(picture.size, np.uint8 if count < 256 else np.uint16)
    for index in sorted(range(count), key=lambda i: -picture.records[i].area):
        numbers[picture.records[index].mask.values] = index + 1
    drawn = Image.fromarray(numbers)
    if count < 256:
        drawn.putpalette(bytes(v for colour in ((0, 0, 0), *colours(255)) for v in colour))
    return drawn


def _png(picture: Image.Image, marked: bool = False) -> bytes:
    data, info = io.BytesIO(), PngInfo()
    if marked:
        info.add_text("Software", MARK)
    picture.save(data, "PNG", pnginfo=info)
    return data.getvalue()


def _is_marked(path: Path) -> bool:
    """Whether a mask was written here."""
    try:
        return peek(path).info.get("Software") == MARK
    except ImageError:
        return False


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
