"""Edges after Canny (PAMI 1986), in whole numbers: the pixels that OpenCV's ``Canny`` marks.

That is with its 3x3 Sobel filter and |dx| + |dy| as the strength; OpenCV rounds the directions
to four by comparing with tan(22.5 degrees) * 2^15, and so do we.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darkroom.errors import ConfigError
from darkroom.vision.annotators.drawing import to_picture

TAN_22 = 13573  # tan(22.5 degrees) * 2^15, rounded
AROUND = ((0, 1), (1, -1), (1, 0), (1, 1))  # the later half of a pixel's eight neighbours


def canny(image: Image.Image, *, low: float = 100, high: float = 200) -> Image.Image:
    """White edges on black.

    Args:
        low: gradients above this continue an edge; whole numbers count, 0 to 2040.
        high: gradients above this start one.

    Raises:
        ConfigError: ``low`` is above ``high``, or negative.
    """
    marked = edges(np.asarray(image), low, high)
    return to_picture(marked.astype(np.uint8) * 255, image.size)


def edges(pixels: NDArray[np.uint8], low: float, high: float) -> NDArray[np.bool_]:
    """Which pixels of (H, W) or (H, W, C) lie on an edge; as ``canny``.

    Of several colours, each pixel's gradient is that of the colour where it is largest.
    """
    if not 0 <= low <= high:
        raise ConfigError(f"canny low={low:g}, high={high:g}: expected 0 <= low <= high")
    dx, dy = _sobel(pixels)
    strength = np.abs(dx) + np.abs(dy)
    if pixels.ndim == 3:
        best = strength.argmax(-1)[..., None]
        dx, dy, strength = (np.take_along_axis(a, best, -1)[..., 0] for a in (dx, dy, strength))
    ridge = _ridges(dx, dy, strength, int(low))
    return _connected(ridge, ridge & (strength > int(high)))


def _sobel(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Horizontal and vertical 3x3 Sobel filter; the border is repeated outwards."""
    outer = ((1, 1), (1, 1), (0, 0))[: pixels.ndim]
    p = np.pad(pixels, outer, mode="edge").astype(np.int32)
    across = p[:, 2:] - p[:, :-2]
    dx = across[:-2] + 2 * across[1:-1] + across[2:]
    down = p[2:] - p[:-2]
    dy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return dx, dy


def _ridges(
    dx: NDArray[np.int32], dy: NDArray[np.int32], strength: NDArray[np.int32], low: int
) -> NDArray[np.bool_]:
    """Pixels above ``low`` and not below either neighbour along their gradient.

    Outside the picture the strength is 0. Of two equal neighbours the left or upper one counts.
    """
    y, x = np.nonzero(strength > low)
    height, width = strength.shape
    stride = width + 2
    flat = np.pad(strength, 1).ravel()
    here = (y + 1) * stride + x + 1
    m, gx, gy = flat[here], dx[y, x], dy[y, x]
    steep = np.abs(gy).astype(np.int64) << 15
    tan_22 = np.abs(gx).astype(np.int64) * TAN_22
    across = steep < tan_22
    down = steep > tan_22 + (np.abs(gx).astype(np.int64) << 16)  # tan(67.5) = tan(22.5) + 2
    falling = np.where((gx ^ gy) < 0, stride - 1, stride + 1)
    step = np.where(across, 1, np.where(down, stride, falling))
    before, after = flat[here - step], flat[here + step]
    kept = (m > before) & np.where(across | down, m >= after, m > after)
    ridge = np.zeros((height, width), dtype=np.bool_)
    ridge[y[kept], x[kept]] = True
    return ridge


def _connected(among: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of ``among`` that touch a seed, or one that does, over sides and corners.

    Each pixel points to an earlier one of its piece. All pointers are shortened, then the pieces
    that touch are joined, until none do: about log2 of the longest chain, not its length.
    """
    height, width = among.shape
    number = np.full((height + 1, width + 2), -1, dtype=np.int64)
    inner = number[:height, 1:-1]
    inner[among] = root = np.arange(np.count_nonzero(among))
    pairs = []
    for down, right in AROUND:
        other = number[down : height + down, 1 + right : 1 + right + width]
        both = among & (other >= 0)
        pairs.append((inner[both], other[both]))
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    root = root.copy()
    while True:
        a, b = root[a], root[b]
        apart = a != b
        if not apart.any():
            break
        a, b = a[apart], b[apart]
        root[np.maximum(a, b)] = np.minimum(a, b)
        while not np.array_equal(shorter := root[root], root):
            root = shorter
    reached = np.zeros(len(root), dtype=np.bool_)
    reached[root[inner[seeds]]] = True
    found = np.zeros_like(among)
    found[among] = reached[root]
    return found
