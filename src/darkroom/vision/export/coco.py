"""COCO's one file of annotations for many pictures."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from darkroom.errors import DataError
from darkroom.masks import Mask
from darkroom.masks.outlines import tied
from darkroom.vision.export.records import OBJECT, Pictured, Record

__all__ = ["LEAST", "TOLERANCE", "coco", "read_coco", "rings"]

TOLERANCE = 0.5  # pixels that a simplified outline may pass from the mask
LEAST = 0.99  # IoU that it keeps
SMALL = 256  # pixels; smaller masks keep the edges of their pixels exactly


def coco(pictures: Iterable[Pictured], polygons: bool = False) -> dict[str, Any]:
    """The content of ``annotations.json``: images, annotations, categories; numbered from 1.

    Args:
        polygons: outlines instead of run lengths; a hole is tied to its outline by a line.
    """
    images, annotations, classes = [], [], {}
    for number, picture in enumerate(pictures, 1):
        height, width = picture.size
        images.append({"id": number, "file_name": picture.file, "width": width, "height": height})
        for record in picture.records:
            category = classes.setdefault(record.name, len(classes) + 1)
            fields = record.fields()
            fields.pop("label", None)
            if polygons:
                fields["segmentation"] = [ring.ravel().tolist() for ring in rings(record)]
            names = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            annotations.append(names | {"iscrowd": 0} | fields)
    categories = [{"id": number, "name": name} for name, number in classes.items()]
    return {
        "info": {"description": "Masks by Darkroom"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def rings(record: Record) -> list[np.ndarray]:
    """A closed line (N, 2) for each part of a mask, its holes tied in; to hundredths of pixels."""
    tolerance = TOLERANCE if record.area >= SMALL else 0.0
    return [tied(parts).round(2) for parts in record.mask.polygons(tolerance, LEAST)]


def read_coco(content: Mapping[str, Any]) -> list[Pictured]:
    """The pictures of an ``annotations.json``, with run lengths or polygons, crowds too.

    Raises:
        DataError: it is not COCO's.
    """
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
        found = {
            entry["id"]: Pictured(
                str(PurePath(entry["file_name"]).with_suffix("")),
                str(entry["file_name"]),
                (int(entry["height"]), int(entry["width"])),
            )
            for entry in content["images"]
        }
        for entry in content["annotations"]:
            picture = found[entry["image_id"]]
            outline = entry["segmentation"]
            if isinstance(outline, list):
                parts = [(_ring(part),) for part in outline]
                mask = Mask.from_polygons(parts, picture.size)
            else:
                mask = Mask.from_rle(outline)
            label = names.get(entry.get("category_id"), "")
            label = "" if label == OBJECT else label
            picture.add(Mask(mask.values, entry.get("score"), entry.get("source", ""), label))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"not COCO's annotations ({error!r}); expected images and so on") from None
    return list(found.values())


def _ring(flat: list[float]) -> np.ndarray:
    points = np.array(flat, float)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise DataError(f"a polygon of {points.size} numbers; expected x and y of 3 points or more")
    return points.reshape(-1, 2)
