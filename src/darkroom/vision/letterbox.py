"""Bring a picture to a network's size, whole, with grey beside it; and coordinates back again.

Shapes: H W height and width of the picture, h w those of what the network sees.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["GREY", "Letterbox", "resized"]

GREY = 114  # of 255, beside the picture
ONE = 2048  # fixed point: the weights of two pixels add up to it


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in what the network sees."""

    size: tuple[int, int]  # H, W
    scaled: tuple[int, int]  # height and width of the picture in there
    seen: tuple[int, int]  # h, w: multiples of ``step``
    offset: tuple[int, int]  # rows above the picture, columns to its left

    @classmethod
    def of(cls, size: tuple[int, int], longest: int, step: int = 32) -> "Letterbox":
        """The longer side becomes ``longest``; the shorter one is filled to a multiple of ``step``.

        The filling is halved between both sides, the odd pixel comes below or to the right.

        Raises:
            ValueError: ``longest`` is no positive multiple of ``step``.
        """
        if longest < step or longest % step:
            raise ValueError(f"a longer side of {longest} pixels; expected a multiple of {step}")
        scale = longest / max(size)
        height, width = (max(round(length * scale), 1) for length in size)
        above, left = (-(height - longest) % step // 2, -(width - longest) % step // 2)
        seen = (height + -height % step, width + -width % step)
        return cls(size, (height, width), seen, (above, left))

    def see(self, pixels: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 to (1, 3, h, w) uint8."""
        seen = np.full((*self.seen, 3), GREY, np.uint8)
        (above, left), (height, width) = self.offset, self.scaled
        seen[above : above + height, left : left + width] = resized(pixels, self.scaled)
        return torch.from_numpy(seen).permute(2, 0, 1)[None]

    def back(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) in what is seen, as boxes in the picture, cut off at its edges."""
        above, left = self.offset
        (height, width), (high, wide) = self.size, self.scaled
        scale = boxes.new_tensor((wide / width, high / height) * 2)
        placed = (boxes - boxes.new_tensor((left, above) * 2)) / scale
        return torch.minimum(placed.clamp(min=0), placed.new_tensor((width, height) * 2))


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) uint8 to (*size, C), bilinear between the four nearest pixels.

    It does not blur what it shrinks. In fixed point, to the same bits as OpenCV's INTER_LINEAR,
    so that a network sees what it saw in its training.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels
    above, below, up, down = _between(pixels.shape[0], size[0], clamped=False)
    before, after, near, far = _between(pixels.shape[1], size[1], clamped=True)
    wide = pixels.astype(np.int32)
    rows = wide[:, before] * near[None, :, None] + wide[:, after] * far[None, :, None]
    rows >>= 4
    top = (rows[above] * up[:, None, None]) >> 16
    bottom = (rows[below] * down[:, None, None]) >> 16
    return ((top + bottom + 2) >> 2).clip(0, 255).astype(np.uint8)


def _between(
    length: int, made: int, clamped: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each of ``made`` pixels: the two it lies between, and their weights.

    Args:
        clamped: at the ends the weight is all on the last pixel; else on that pixel twice, which
            fixed point rounds otherwise.
    """
    place = ((np.arange(made) + 0.5) * (1 / (made / length)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = place - first.astype(np.float32)
    if clamped:
        share[(first < 0) | (first >= length - 1)] = 0
    near, far = (
        np.rint(part * np.float32(ONE)).astype(np.int32) for part in (np.float32(1) - share, share)
    )
    return first.clip(0, length - 1), (first + 1).clip(0, length - 1), near, far
