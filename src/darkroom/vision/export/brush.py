"""Label Studio's packing of a brush stroke: the run-length coding of thi.ng/rle-pack, of RGBA.

Bits, highest first: 32 say how many bytes there are, 5 the bits of a byte less one, 4 x 4 the bits
of the lengths (less one) that a block may choose from. Then blocks: 1 bit, whether one value is
repeated; 2 bits, which size its length has; the length less one; the value, or the values.
"""

import numpy as np

from darkroom.errors import DataError
from darkroom.images import MAX_PIXELS
from darkroom.masks import Mask

__all__ = ["pack", "unpack"]

SIZES = np.array((4, 8, 12, 16))  # bits of a length
LONGEST = 1 << 16
WORD = 8


def pack(mask: Mask) -> list[int]:
    """Bytes of the picture that is opaque white inside and nothing outside."""
    flat = mask.binary().values.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=~flat[:1], append=~flat[-1:]))
    lengths, inside = 4 * np.diff(edges), flat[edges[:-1]]
    pieces = -(-lengths // LONGEST)  # of runs that are too long for one block
    values = np.repeat(np.where(inside, 255, 0), pieces)
    lengths = np.repeat(lengths, pieces)
    order = np.arange(len(lengths)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    lengths = np.minimum(lengths - order * LONGEST, LONGEST) - 1
    size = np.searchsorted(1 << SIZES, lengths, "right")
    header = [(4 * flat.size, 32), (WORD - 1, 5), *((int(bits) - 1, 4) for bits in SIZES)]
    blocks = ((1 << 2 | size) << SIZES[size] | lengths) << WORD | values
    numbers = np.concatenate([[number for number, _ in header], blocks])
    widths = np.concatenate([[bits for _, bits in header], 3 + SIZES[size] + WORD])
    return _bytes(numbers.astype(np.int64), widths.astype(np.int64))


def unpack(data: list[int], size: tuple[int, int]) -> Mask:
    """What is opaque by at least a half, in a picture of ``size`` (height, width).

    Raises:
        DataError: the bytes are damaged, or of another size.
    """
    try:
        bits = "".join(format(byte, "08b") for byte in bytes(data))
        place = 0

        def read(count: int) -> int:
            nonlocal place
            place += count
            return int(bits[place - count : place], 2)

        total, word = read(32), read(5) + 1
        if total != 4 * size[0] * size[1] or total > 4 * MAX_PIXELS:
            raise DataError(f"a brush of {total} bytes in a picture of {size[1]}x{size[0]}")
        sizes = [read(4) + 1 for _ in range(4)]
        found = np.zeros(total, np.uint8)
        done = 0
        while done < total:
            same, length = read(1), read(sizes[read(2)]) + 1
            if same:
                found[done : done + length] = read(word) & 255
            else:
                values = [read(word) & 255 for _ in range(min(length, total - done))]
                found[done : done + len(values)] = values
            done += length
    except (TypeError, ValueError) as error:
        raise DataError(
            f"a damaged brush ({error}); expected bytes as Label Studio packs"
        ) from None
    return Mask(found.reshape(*size, 4)[..., 3] >= 128)


def _bytes(numbers: np.ndarray, widths: np.ndarray) -> list[int]:
    """The numbers one after the other, each in so many bits; zeros fill the last byte."""
    ends = np.cumsum(widths)
    bits = np.zeros(-(-int(ends[-1]) // 8) * 8, np.uint8)
    for bit in range(int(widths.max())):
        long = widths > bit
        bits[ends[long] - 1 - bit] = numbers[long] >> bit & 1
    return np.packbits(bits).tolist()
