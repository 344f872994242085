"""Pictures that show the same: found exactly, block by block, without a table of all pairs."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.vision.search.codes import margin, products, unit
from darkroom.vision.search.store import Entry, Index

BLOCK = 1024  # pictures that are compared with as many others at once
FEW = 4096  # pairs that are looked up one by one; more are multiplied as a block
THRESHOLD = 0.98  # cosine; emoji-clip takes other photographs for copies below


class Copy(NamedTuple):
    """A picture that shows what a better one shows."""

    entry: Entry
    similarity: float  # cosine with the one to keep
    identical: bool  # the same bytes


class Group(NamedTuple):
    """Pictures that show the same, each near enough to the one to keep."""

    keep: Entry
    copies: list[Copy]


class Found(NamedTuple):
    """How far the search has come."""

    done: int  # pictures, as the first of a pair
    groups: list[Group]  # that are complete since the last


def duplicates(index: Index, threshold: float = THRESHOLD, block: int = BLOCK) -> Iterator[Found]:
    """Group near duplicates.

    Pictures come in the order of pixels, then bytes, most first. Each that belongs to no group yet
    is kept, and takes all later ones whose cosine with it is at least the threshold: so every
    copy is near the picture that is kept for it, not just near another copy.

    Raises:
        ValueError: the threshold is not within -1 to 1.
    """
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected a cosine, -1 to 1")
    order = torch.tensor(index.best_first(), dtype=torch.int64)
    free = torch.ones(len(order), dtype=torch.bool)
    for start in range(0, len(order), block):
        mine = start + free[start : start + block].nonzero()[:, 0]
        taken: dict[int, list[tuple[int, float]]] = {}
        for other in range(start, len(order), block):
            theirs = other + free[other : other + block].nonzero()[:, 0]
            pairs, cosines = _near(index, order[mine], order[theirs], threshold)
            where = torch.stack([mine[pairs[:, 0]], theirs[pairs[:, 1]]], 1).tolist()
            for (a, b), cosine in zip(where, cosines.tolist(), strict=True):
                if a < b and free[a] and free[b]:
                    free[b] = False
                    taken.setdefault(a, []).append((b, cosine))
            mine = mine[free[mine]]
        groups = [_group(index, order, keep, taken[keep]) for keep in sorted(taken)]
        yield Found(min(start + block, len(order)), groups)


def identical(index: Index) -> list[Group]:
    """Group files with the same bytes; no vector is looked at."""
    entries = index.entries(index.best_first())
    alike: dict[bytes, list[Entry]] = {}
    for entry in entries:
        alike.setdefault(entry.digest, []).append(entry)
    return [
        Group(keep, [Copy(other, 1.0, True) for other in others])
        for keep, *others in alike.values()
        if others
    ]


def unchanged(folder: Path, entry: Entry) -> bool:
    """Whether the file is still what was embedded, by its size and time."""
    try:
        status = (folder / entry.file.path).stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == entry.file[1:]


def _near(index: Index, left: Tensor, right: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs (K, 2) of numbers in two lists of rows, by the first then the second; cosines (K,)."""
    if not len(left) or not len(right):
        return torch.empty(0, 2, dtype=torch.int64), torch.empty(0)
    a, b = index.codes.part(left), index.codes.part(right)
    pairs = (products(a, b) >= threshold - margin(a, b)).nonzero()
    if len(pairs) > FEW:
        cosines = unit(index.vectors[left]) @ unit(index.vectors[right]).T
        pairs = (cosines >= threshold).nonzero()
        return pairs, cosines[pairs[:, 0], pairs[:, 1]]
    first, second = (index.vectors[rows[pairs[:, i]]] for i, rows in enumerate((left, right)))
    cosines = (unit(first) * unit(second)).sum(1)
    near = cosines >= threshold
    return pairs[near], cosines[near]


def _group(index: Index, order: Tensor, keep: int, copies: list[tuple[int, float]]) -> Group:
    rows = order[[keep, *(copy for copy, _ in copies)]].tolist()
    kept, *others = index.entries(rows)
    return Group(
        kept,
        [
            Copy(other, cosine, other.digest == kept.digest)
            for other, (_, cosine) in zip(others, copies, strict=True)
        ],
    )
