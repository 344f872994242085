"""The picture that is edited: made larger, cut out, and what was painted put back into it."""

import numpy as np
from PIL import Image

from darkroom.masks import Mask

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two just outside, as PIL's


def pad_canvas(
    image: Image.Image, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0
) -> tuple[Image.Image, Mask]:
    """A larger picture, and a mask of what is new in it: for outpainting.

    The new pixels repeat those at the edges.

    Args:
        left: how many columns to add there, and so on.

    Raises:
        ValueError: fewer than 0.
    """
    if min(left, top, right, bottom) < 0:
        raise ValueError(
            f"{(left, top, right, bottom)}: sides can be extended, not cut; expected 0 or more"
        )
    pixels = np.asarray(image.convert("RGB"))
    sides = ((top, bottom), (left, right))
    new = np.pad(np.zeros(pixels.shape[:2], bool), sides, constant_values=True)
    return Image.fromarray(np.pad(pixels, (*sides, (0, 0)), mode="edge")), Mask(new)


def around(box: Box, padding: int, canvas: tuple[int, int]) -> Box:
    """``box`` and ``padding`` pixels on each side, as far as the canvas (height, width) goes."""
    left, top, right, bottom = box
    height, width = canvas
    return (
        max(left - padding, 0),
        max(top - padding, 0),
        min(right + padding, width),
        min(bottom + padding, height),
    )


def widened(box: Box, shape: tuple[int, int], canvas: tuple[int, int]) -> Box:
    """The smallest box around ``box`` that has the proportions of ``shape``, both (height, width).

    It is centred on ``box`` where the canvas allows, and cut where the canvas is too small.
    """
    left, top, right, bottom = box
    ratio = shape[1] / shape[0]
    width = max(right - left, int((bottom - top) * ratio))
    height = max(bottom - top, int((right - left) / ratio))
    left, right = _placed(left, right, width, canvas[1])
    top, bottom = _placed(top, bottom, height, canvas[0])
    return left, top, right, bottom


def pasted(canvas: Image.Image, painted: Image.Image, box: Box, weights: np.ndarray) -> Image.Image:
    """``canvas``, and in ``box`` the painted picture, resized to it and mixed in by ``weights``.

    Args:
        weights: (H, W) of the canvas, in [0, 1]; where it is 0 the pixels stay, bit for bit.
    """
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    if painted.size != size:
        painted = painted.resize(size, Image.Resampling.LANCZOS)
    pixels = np.array(canvas)
    old = pixels[top:bottom, left:right]
    share = weights[top:bottom, left:right, None].astype(np.float32)
    mixed = share * np.asarray(painted) + (1 - share) * old
    pixels[top:bottom, left:right] = mixed.round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _placed(first: int, last: int, length: int, limit: int) -> tuple[int, int]:
    """``length`` (at most ``limit``) with first to last in its middle, moved to fit into limit."""
    length = min(length, limit)
    first = first - (length - (last - first)) // 2
    first = min(max(first, 0), limit - length)
    return first, first + length
