"""Convolutions of 3x3 by Winograd's minimal filtering: 36 products give 4x4 pixels, not 144.

    Y = Aᵀ ((G g Gᵀ) ∘ (Bᵀ d B)) A        one filter g, 6x6 pixels d in, 4x4 pixels Y out

After Lavin and Gray, arXiv:1509.09308; the matrices are those of the points 0, 1, -1, 1/2, -2 and
infinity, whose rounding is the least of those of this size (Barabasz et al., arXiv:1803.10986):
float32 errors are 6 times those of the sum written out, 2e-6 of the output's deviation. Written as
products of matrices: Kronecker's product of a matrix with itself does both sides of a tile at once.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

TILE, SPAN = 4, 6  # pixels of a tile along each side, and those that it depends on
PIXELS, FILTERS = 32 * 2**20, 8 * 2**20  # bytes of transformed ones at a time
KEPT = 64 * 2**20  # bytes of transformed filters that are kept for the next strip of pixels
INPUT = (  # Bᵀ
    (1, -1.5, -2, 1.5, 1, 0),
    (0, -1, 0.5, 2.5, 1, 0),
    (0, 1, -2.5, 0.5, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 0.5, -1, -0.5, 1, 0),
    (0, 1, -1.5, -2, 1.5, 1),
)
FILTER = (  # G
    (1, 0, 0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 1),
)
OUTPUT = (  # Aᵀ
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 0.5, -2, 0),
    (0, 1, 1, 0.25, 4, 0),
    (0, 1, -1, 0.125, -8, 1),
)


def convolve_winograd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """As ``convolve_torch``, for kernels of 3x3 and a stride of 1. No gradient.

    Strips of tiles are worked off one by one, and some filters at a time, so that what lies between
    stays in the cache: beside the output it takes some tens of megabytes. The filters are
    transformed at each call: that pays from about 1,024 pixels on.
    """
    assert tuple(stride) == (1, 1)
    batch, channels, height, width = x.shape
    outputs, (top, left) = len(weight), padding
    high, wide = height + 2 * top - 2, width + 2 * left - 2
    down, across = -(-high // TILE), -(-wide // TILE)  # tiles
    right = TILE * across + 2 - left - width
    each = SPAN**2 * channels * x.element_size()  # bytes of a transformed tile, and of a filter
    kept = outputs * each <= KEPT
    most = PIXELS if kept else 4 * PIXELS
    strip, some = max(most // (each * batch * across), 1), max(FILTERS // each, 1)
    filters = [slice(o, o + some) for o in range(0, outputs, some)]
    again = kept and strip < down  # more than one strip
    transformed = [_filters(weight[part]) for part in filters] if again else None
    y = x.new_empty(batch, outputs, TILE * down, TILE * across)
    placed = y.view(batch, outputs, down, TILE, across, TILE).permute(3, 5, 1, 0, 2, 4)
    for first in range(0, down, strip):
        last = min(first + strip, down)
        above, below = TILE * first - top, TILE * last + 2 - top  # rows of the picture
        edges = left, right, max(-above, 0), max(below - height, 0)
        pixels = _pixels(F.pad(x[:, :, max(above, 0) : min(below, height)], edges))
        for i, part in enumerate(filters):
            kernels = _filters(weight[part]) if transformed is None else transformed[i]
            products = torch.bmm(kernels, pixels).view(SPAN**2, -1)
            tiles = _twice(OUTPUT, x.dtype) @ products
            tiles = tiles.view(TILE, TILE, -1, batch, last - first, across)
            there = placed[:, :, part, :, first:last]
            if bias is None:
                there.copy_(tiles)
            else:
                torch.add(tiles, bias[part].view(-1, 1, 1, 1), out=there)
    return y[:, :, :high, :wide].contiguous()


def _filters(weight: Tensor) -> Tensor:
    """G g Gᵀ of each filter: (O, C, 3, 3) to (36, O, C)."""
    outputs, channels = weight.shape[:2]
    flat = weight.reshape(outputs * channels, 9).t()
    return (_twice(FILTER, weight.dtype) @ flat).view(-1, outputs, channels)


def _pixels(strip: Tensor) -> Tensor:
    """Bᵀ d B of each tile: (B, C, 4 h + 2, 4 w + 2) to (36, C, B h w)."""
    channels = strip.shape[1]
    tiles = strip.unfold(2, SPAN, TILE).unfold(3, SPAN, TILE).permute(4, 5, 1, 0, 2, 3)
    flat = tiles.reshape(SPAN**2, -1)
    return (_twice(INPUT, strip.dtype) @ flat).view(SPAN**2, channels, -1)


@functools.cache
def _twice(matrix: tuple[tuple[float, ...], ...], dtype: torch.dtype) -> Tensor:
    """Kronecker's product of a matrix with itself: it transforms rows and columns at once."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(dtype)
