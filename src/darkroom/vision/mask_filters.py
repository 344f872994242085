"""Which of many candidate masks to keep: grids of points, crops, boxes and duplicates.

Boxes are (N, 4) of left, top, right, bottom, the last two being the last pixels inside, as in
segment-anything.
"""

import math

import numpy as np

from darkroom.masks.regions import drop_small

Box = tuple[int, int, int, int]
NEAR = 20  # pixels from a crop's edge at which an object is taken to go on beyond


def grid(side: int) -> np.ndarray:
    """``side`` x ``side`` points (N, 2), x and y in [0, 1], in the middles of equal squares."""
    middles = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)


def crops(size: tuple[int, int], layers: int, overlap: float) -> list[tuple[int, Box]]:
    """The whole picture, layer 0, then 4, 16, 64 ... crops that overlap.

    Args:
        size: height and width.
        overlap: of the crops of layer 1, over the shorter side; halved with each layer.

    Returns:
        (layer, (left, top, right, bottom)), the last two just outside; none is empty.
    """
    height, width = size
    found = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        shared = int(overlap * min(size) * (2 / count))
        across, down = (
            math.ceil((length + shared * (count - 1)) / count) for length in (width, height)
        )
        for left in ((across - shared) * i for i in range(count)):
            for top in ((down - shared) * i for i in range(count)):
                box = (left, top, min(left + across, width), min(top + down, height))
                if left < width and top < height:
                    found.append((layer, box))
    return found


def goes_on(box: Box, crop: Box, size: tuple[int, int]) -> bool:
    """Whether a box ends near an edge of its crop that is no edge of the picture."""
    whole = (0, 0, size[1], size[0])
    return any(
        abs(at - edge) <= NEAR < abs(at - end)
        for at, edge, end in zip(box, crop, whole, strict=True)
    )


def without_duplicates(
    boxes: np.ndarray, scores: np.ndarray, overlap: float, most: int | None = None
) -> np.ndarray:
    """Of boxes whose IoU is above ``overlap`` only the best: indices, best first.

    Equal scores go by their order. What a box loses to must itself be kept; a box without area
    overlaps with none (torchvision's ``nms``, float32 like it). It stops when it has ``most``.
    """
    boxes = boxes.astype(np.float32).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores.astype(np.float32), kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) != most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[left, :2])
        sides = (np.minimum(boxes[best, 2:], boxes[left, 2:]) - corner).clip(0)
        both = sides[:, 0] * sides[:, 1]
        union = areas[best] + areas[left] - both
        with np.errstate(invalid="ignore"):
            same = (both / union).astype(np.float64) > overlap
        left = left[~same]
    return np.array(kept, int)


def tidied(values: np.ndarray, least: int) -> tuple[np.ndarray, bool]:
    """(H, W) bool with holes of fewer than ``least`` pixels filled, then islands dropped.

    The largest island stays if all are small.

    Returns:
        The mask, and whether there was anything small, an only island among it.
    """
    outside = ~values
    filled = drop_small(outside, least, keep_one=False)
    tidy = drop_small(values if filled is outside else ~filled, least)
    return tidy, tidy is not values or 0 < int(tidy.sum()) < least


def tight(values: np.ndarray) -> Box | None:
    """The box of what is inside of (H, W) bool; None = nothing."""
    down, across = (np.flatnonzero(values.any(axis=axis)) for axis in (1, 0))
    if not len(down):
        return None
    return int(across[0]), int(down[0]), int(across[-1]), int(down[-1])
