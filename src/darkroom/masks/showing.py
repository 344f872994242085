"""Masks laid over pictures."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from darkroom.masks.mask import Mask

Colour = tuple[int, int, int]

__all__ = ["Colour", "colours", "overlay"]


def overlay(
    image: Image.Image,
    masks: Sequence[Mask],
    tints: Sequence[Colour] | None = None,
    alpha: float = 0.5,
) -> Image.Image:
    """The picture with each mask laid over it in a colour, in their order.

    Args:
        tints: a colour for each mask; None = ``colours``.
        alpha: 0 shows the picture alone, 1 the colours alone.

    Raises:
        ValueError: a mask has another size, or there are fewer colours than masks.
    """
    tints = colours(len(masks)) if tints is None else tints
    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    for mask, tint in zip(masks, tints[: len(masks)], strict=True):
        if mask.values.shape != pixels.shape[:2]:
            raise ValueError(
                f"a mask of {mask.width}x{mask.height} over a picture of "
                f"{image.width}x{image.height}"
            )
        share = (alpha * mask.values)[..., None]
        pixels = pixels * (1 - share) + np.array(tint, np.float32) * share
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def colours(count: int) -> list[Colour]:
    """Colours far apart: hues a golden section further each time."""
    turns = (i * 0.618034 % 1 for i in range(count))
    bright = (colorsys.hsv_to_rgb(turn, 0.75, 1.0) for turn in turns)
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in bright]
