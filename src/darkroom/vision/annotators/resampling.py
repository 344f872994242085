"""Resizing and blurring of arrays with the filters that the annotators were published with.

Each is a matrix along one axis, so that ``rows @ array @ columns.T`` is the result. Arrays are
(H, W) or (H, W, C), floating point.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def resize(values: NDArray, height: int, width: int) -> Array:
    """(H, W[, C]) at another size: over areas if that is smaller in all, with Lanczos if not."""
    rows, columns = values.shape[:2]
    weights = area if height + width < rows + columns else lanczos
    return _apply(weights(rows, height), weights(columns, width), values)


def area(size: int, wanted: int) -> Array:
    """(wanted, size): the mean over the part of the old axis that each new place covers."""
    edges = np.arange(wanted + 1)[:, None] * (size / wanted)
    places = np.arange(size)
    covered = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return _normalised(covered.clip(0))


def lanczos(size: int, wanted: int, lobes: int = 4) -> Array:
    """(wanted, size): interpolation with sinc(x) sinc(x / lobes); the border is repeated."""
    centres = (np.arange(wanted) + 0.5) * (size / wanted) - 0.5
    first = np.floor(centres).astype(int) - lobes + 1
    taps = first[:, None] + np.arange(2 * lobes)
    away = centres[:, None] - taps
    kernel = _normalised(np.sinc(away) * np.sinc(away / lobes))
    weights = np.zeros((wanted, size))
    np.add.at(weights, (np.arange(wanted)[:, None], taps.clip(0, size - 1)), kernel)
    return weights


def blur(
    values: NDArray, sigma: float, radius: int, border: Literal["reflect", "symmetric"] = "reflect"
) -> Array:
    """A Gaussian cut off at ``radius`` pixels, along both axes.

    Args:
        border: what lies outside: "reflect" mirrors at the outermost pixel's centre, "symmetric"
            at its edge.
    """
    rows, columns = (_gaussian(n, sigma, radius, border) for n in values.shape[:2])
    return _apply(rows, columns, values)


def blur_bytes(values: NDArray[np.uint8], sigma: float, radius: int) -> NDArray[np.uint8]:
    """``blur`` of (H, W), the kernel in whole 256ths, as OpenCV blurs 8 bits: equal to a bit."""
    exact = np.exp(-0.5 * (np.arange(-radius, 0) / sigma) ** 2)
    exact *= 256 / (2 * exact.sum() + 1)
    side, left_over = [], 0.0
    for weight in exact:  # what rounding one takes away, the next one gets
        side.append(round(weight + left_over))
        left_over += weight - side[-1]
    kernel = np.array([*side, 256 - 2 * sum(side), *side[::-1]])
    height, width = values.shape
    rows = np.pad(values, radius, mode="reflect").astype(np.int64)
    columns = np.sum([k * rows[:, i : i + width] for i, k in enumerate(kernel)], axis=0)
    total = np.sum([k * columns[i : i + height] for i, k in enumerate(kernel)], axis=0)
    return ((total + (1 << 15)) >> 16).astype(np.uint8)


def _gaussian(
    size: int, sigma: float, radius: int, border: Literal["reflect", "symmetric"]
) -> Array:
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    sources = np.pad(np.arange(size), radius, mode=border)
    weights = np.zeros((size, size))
    taps = sources[np.arange(size)[:, None] + np.arange(2 * radius + 1)]
    np.add.at(weights, (np.arange(size)[:, None], taps), kernel / kernel.sum())
    return weights


def _apply(rows: Array, columns: Array, values: NDArray) -> Array:
    resized = np.tensordot(rows, values, axes=(1, 0))  # (H', W[, C])
    return np.moveaxis(np.tensordot(columns, resized, axes=(1, 1)), 0, 1)


def _normalised(weights: Array) -> Array:
    return weights / weights.sum(1, keepdims=True)
