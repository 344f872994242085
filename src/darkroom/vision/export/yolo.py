"""YOLO's segmentation labels: a text file for each picture, a line for each mask.

A line is ``class x1 y1 x2 y2 ...``, of one closed outline in shares of the width and height. It has
no room for holes or parts: they are tied to it by lines that run there and back.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from darkroom.errors import DataError
from darkroom.masks import Mask
from darkroom.masks.outlines import tied
from darkroom.vision.export.coco import rings
from darkroom.vision.export.records import OBJECT, Pictured

__all__ = ["data_yaml", "label_lines", "read_labels"]


def label_lines(picture: Pictured, classes: dict[str, int]) -> str:
    """The label file of a picture; new classes are numbered in ``classes``."""
    height, width = picture.size
    lines = []
    for record in picture.records:
        number = classes.setdefault(record.name, len(classes))
        points = (tied(rings(record)) / (width, height)).clip(0, 1).ravel()
        lines.append(" ".join([str(number), *(f"{share:.6g}" for share in points)]) + "\n")
    return "".join(lines)


def data_yaml(classes: Mapping[str, int]) -> str:
    """The file that names the data set: pictures in ``images``, labels in ``labels``."""
    names = [f"  {number}: {json.dumps(name)}\n" for name, number in classes.items()]
    return "".join(["train: images\n", "val: images\n", "names:\n", *names])


def read_labels(text: str, size: tuple[int, int], names: Sequence[str] = (OBJECT,)) -> list[Mask]:
    """The masks of a label file for a picture of ``size`` (height, width).

    Raises:
        DataError: a line is no outline, or its class has no name.
    """
    masks = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            kind, *shares = line.split()
            points = np.array(shares, float).reshape(-1, 2) * (size[1], size[0])
            label = names[int(kind)]
        except (ValueError, IndexError):
            raise DataError(f"line {number}: {line[:60]!r} is no class and outline") from None
        if len(points) < 3:
            raise DataError(f"line {number}: {len(points)} points; expected 3 or more")
        mask = Mask.from_polygons([(points,)], size)
        masks.append(Mask(mask.values, label="" if label == OBJECT else label))
    return masks
