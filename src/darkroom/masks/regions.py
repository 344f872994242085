"""The connected regions of a mask, found run by run.

A run is a stretch of pixels inside within one row: runs that touch in neighbouring rows are joined
(He, Ren, Gao et al., "The connected-component labeling problem", 2017, section 4), all at once by
array operations.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Regions", "drop_small", "find_regions"]


@dataclass(frozen=True, eq=False)
class Regions:
    """N regions of (H, W), numbered in the order of their first pixel, rows from the top.

    Args:
        starts: (R,) where each run begins in the flat picture.
        lengths: (R,) in pixels.
        of: (R,) which region a run belongs to.
        areas: (N,) in pixels.
    """

    shape: tuple[int, int]
    starts: np.ndarray
    lengths: np.ndarray
    of: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        """How many."""
        return len(self.areas)

    def map(self) -> np.ndarray:
        """(H, W) int32: 0 outside, 1 in the first region, and so on."""
        values = np.zeros(2 * len(self.of) + 1, np.int32)
        values[1::2] = self.of + 1
        return self._filled(self.starts, self.lengths, values)

    def where(self, wanted: np.ndarray) -> np.ndarray:
        """(H, W) bool: the pixels of the regions for which ``wanted`` (N,) is true."""
        runs = wanted[self.of]
        starts, lengths = self.starts[runs], self.lengths[runs]
        return self._filled(starts, lengths, np.arange(2 * len(starts) + 1) % 2 == 1)

    def at(self, places: np.ndarray) -> np.ndarray:
        """The region of each place of the flat picture; every one of them is in a region."""
        return self.of[np.searchsorted(self.starts, places, "right") - 1]

    def at_edge(self) -> np.ndarray:
        """(N,) bool: which have pixels in an outermost row or column."""
        height, width = self.shape
        rows, left = self.starts // width, self.starts % width
        edge = (rows == 0) | (rows == height - 1) | (left == 0) | (left + self.lengths == width)
        return np.bincount(self.of, edge, len(self.areas)) > 0

    def _filled(self, starts: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
        ends = np.stack([starts, starts + lengths], 1).ravel()
        size = self.shape[0] * self.shape[1]
        return np.repeat(values, np.diff(ends, prepend=0, append=size)).reshape(self.shape)


def find_regions(values: np.ndarray, corners: bool = True) -> Regions:
    """The regions of (H, W) of bool.

    Args:
        corners: pixels that touch at a corner belong together (8 neighbours; else 4).
    """
    height, width = values.shape
    stride = width + 2  # of rows with an empty pixel at both ends
    padded = np.zeros((height, stride), bool)
    padded[:, 1:-1] = values
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]  # of runs, the last just outside
    reach = int(corners)
    first = np.searchsorted(ends, starts + stride + 1 - reach, "left")
    last = np.searchsorted(starts, ends + stride - 1 + reach, "right")
    touching = (last - first).clip(0)  # runs of the next row
    above = np.repeat(np.arange(len(starts)), touching)
    offset = np.repeat(first - (np.cumsum(touching) - touching), touching)
    of = _joined(len(starts), above, np.arange(len(above)) + offset)
    is_first = of == np.arange(len(of))
    of = (np.cumsum(is_first) - 1)[of]
    lengths = ends - starts
    areas = np.bincount(of, lengths).astype(np.int64)
    return Regions((height, width), starts - 2 * (starts // stride), lengths, of, areas)


def drop_small(values: np.ndarray, below: float, keep_one: bool = True) -> np.ndarray:
    """Without the regions of fewer than ``below`` pixels; ``values`` itself if there are none.

    For the holes ask ``~drop_small(~values, below, keep_one=False)``.

    Args:
        keep_one: if all are small, the largest stays.
    """
    regions = find_regions(values)
    small = regions.areas < below
    if keep_one and len(small) and small.all():
        small[regions.areas.argmax()] = False
    if not small.any():
        return values
    runs = small[regions.of]
    starts, lengths = regions.starts[runs], regions.lengths[runs]
    offset = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    kept = np.array(values, order="C")
    kept.reshape(-1)[np.arange(len(offset)) + offset] = False
    return kept


def _joined(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each of ``count`` things the first it is joined to, a[i] being joined to b[i]."""
    first = np.arange(count)
    while len(a):
        a, b = first[a], first[b]
        apart = a != b
        a, b = a[apart], b[apart]
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := first[first], first):
            first = shorter
    return first
