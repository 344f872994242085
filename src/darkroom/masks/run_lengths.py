"""COCO's run lengths of a mask, packed into text (pycocotools' compressed form).

From the fourth run on, a run is told as its difference to the last but one, of its own kind.
Numbers go in groups of five bits, lowest first; bit 5 says that more follow, bit 4 of the last one
is the sign; 48 makes each printable.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["pack", "unpack"]

GROUPS = 11  # of five bits: more than any picture needs


def pack(runs: "Sequence[int] | np.ndarray") -> str:
    """Runs to text."""
    rest = np.array(runs, np.int64)
    rest[3:] -= rest[1:-2].copy()
    groups = np.zeros((GROUPS, len(rest)), np.uint8)  # 0 = none
    left = np.arange(len(rest))
    for group in groups:
        bits, rest = rest & 31, rest >> 5
        more = rest != np.where(bits & 16, -1, 0)
        group[left] = 48 + bits + 32 * more
        left, rest = left[more], rest[more]
    told = groups.T.ravel()
    return told[told > 0].tobytes().decode()


def unpack(text: bytes) -> list[int]:
    """The inverse of ``pack``.

    Raises:
        ValueError: the text is cut off, or has other characters.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    strange = np.flatnonzero((codes < 0) | (codes > 63))
    if len(strange):
        raise ValueError(f"{chr(text[strange[0]])!r} in the counts")
    last = np.flatnonzero(codes < 32)  # group of each number
    if len(codes) and not codes[-1] < 32:
        raise ValueError("the counts are cut off")
    if not len(last):
        return []
    first = np.concatenate([[0], last[:-1] + 1])
    shift = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    if shift.max() > 50:
        raise ValueError("a count of more than 55 bits")
    runs = np.add.reduceat((codes & 31) << shift, first)
    size = 5 * (last - first + 1)
    runs -= np.where(codes[last] & 16, np.left_shift(1, size), 0)
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return runs.tolist()
