"""Logits brought to a picture's size: bilinear, twice, a few rows at a time.

SAM enlarges its logits to the padded square that it sees, cuts the padding off, and scales what is
left to the picture. Both steps are linear along each axis, so there is one matrix for the rows and
one for the columns, with at most three neighbouring numbers in each of their rows.

Shapes: h w of the logits, H W of the picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.ops.linear import can_multiply, product

BAND = 128  # rows of the picture at a time: 1 MB where it is 2,000 wide
REACH = 3  # neighbouring logits that a pixel may depend on, along an axis


@dataclass(frozen=True, eq=False)
class Axis:
    """How a row (or column) of logits becomes one of pixels: float32 on the CPU.

    Args:
        weights: (pixels, logits).
        first: (pixels,) the first logit that a pixel depends on; it depends on ``REACH`` at most.
        count: (logits,) how many pixels have it for their first.
    """

    weights: Tensor
    first: np.ndarray
    count: np.ndarray

    @classmethod
    def between(cls, logits: int, padded: int, scaled: int, pixels: int) -> "Axis":
        """Of ``logits`` numbers over ``padded`` pixels, of which the picture has ``scaled``."""
        whole = F.interpolate(torch.eye(logits)[None], padded, mode="linear")[..., :scaled]
        weights = F.interpolate(whole, pixels, mode="linear")[0].t().contiguous()
        first = (weights > 0).int().argmax(dim=1).numpy()
        return cls(weights, first, np.bincount(first, minlength=logits).astype(float))

    def pixels(self, first: int, last: int) -> tuple[int, int]:
        """From which pixel up to which (outside) any depends on the logits first..last."""
        start = int(np.searchsorted(self.first, first - REACH + 1))
        end = int(np.searchsorted(self.first, last, "right"))
        return start, end


@dataclass(frozen=True, eq=False)
class Enlarging:
    """From logits (h, w) to a picture (H, W)."""

    rows: Axis
    columns: Axis

    @classmethod
    def between(
        cls, logits: tuple[int, int], padded: int, scaled: tuple[int, int], size: tuple[int, int]
    ) -> "Enlarging":
        """For logits of a padded square, of which the picture of ``size`` has ``scaled``."""
        rows, columns = (
            Axis.between(low, padded, *lengths)
            for low, *lengths in zip(logits, scaled, size, strict=True)
        )
        return cls(rows, columns)

    def window(self, logits: Tensor, above: float) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom) outside of which no pixel is above; None if no logit is."""
        inside = logits.numpy() > above
        down, across = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        if not len(down):
            return None
        top, bottom = self.rows.pixels(int(down[0]), int(down[-1]))
        left, right = self.columns.pixels(int(across[0]), int(across[-1]))
        return left, top, right, bottom

    def bands(self, logits: Tensor, window: tuple[int, int, int, int]) -> Iterator[Tensor]:
        """The window of the picture, from the top, in bands of ``BAND`` rows or fewer."""
        left, top, right, bottom = window
        if left >= right or top >= bottom:
            return
        low, high = int(self.columns.first[left]), int(self.columns.first[right - 1]) + REACH
        wide = _times(self.columns.weights[left:right, low:high], logits[:, low:high])  # (W', h)
        for start in range(top, bottom, BAND):
            end = min(start + BAND, bottom)
            low, high = int(self.rows.first[start]), int(self.rows.first[end - 1]) + REACH
            yield _times(self.rows.weights[start:end, low:high], wide[:, low:high])

    def counts(self, logits: Tensor, threshold: float) -> tuple[int, int]:
        """Between which numbers the count of pixels above ``threshold`` lies, from logits alone.

        A pixel is a weighted mean of 3x3 logits at most: it is above if all of them are, and only
        if one is.
        """
        inside = logits.numpy() > threshold
        low, high = (
            self.rows.count @ pool(pool(inside, 0), 1) @ self.columns.count for pool in (_all, _any)
        )
        return int(low), int(high)


def _all(values: np.ndarray, axis: int) -> np.ndarray:
    """Of each place and the next ``REACH`` - 1 along an axis, whether all are true."""
    return ~_any(~values, axis)


def _any(values: np.ndarray, axis: int) -> np.ndarray:
    """Of each place and the next ``REACH`` - 1 along an axis, whether one is true."""
    found = values.copy()
    near, from_ = np.moveaxis(found, axis, 0), np.moveaxis(values, axis, 0)
    for step in range(1, REACH):
        near[:-step] |= from_[step:]
    return found


def _times(x: Tensor, y: Tensor) -> Tensor:
    """X yᵀ, by what is faster on a CPU."""
    if can_multiply():
        return product(x.contiguous(), y.contiguous())
    return x @ y.t()
