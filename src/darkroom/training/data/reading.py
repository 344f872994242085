"""Reading many pictures of which some may be damaged: a set goes on without them, and says so."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from darkroom.errors import DataError

NAMED = 3  # of the pictures that are left out

S = TypeVar("S")
T = TypeVar("T")


class DamagedError(DataError):
    """One picture cannot be read; the others can."""


def attempts(decode: Callable[[S], T], sources: Iterable[S]) -> Iterator[T | None]:
    """``decode`` of each source in order, by several threads; None for what is damaged."""

    def attempt(source: S) -> T | None:
        try:
            return decode(source)
        except DamagedError:
            return None

    pool = ThreadPoolExecutor(os.cpu_count())  # pictures decode outside Python's lock
    try:
        yield from pool.map(attempt, sources)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_many(
    decode: Callable[[S], np.ndarray], sources: Sequence[S], names: Sequence[str], where: Path
) -> tuple[np.ndarray, list[int], tuple[str, ...]]:
    """Pictures of one size (K, H, W, C), which of the sources they are, and what is to be said.

    Raises:
        DataError: more than half are damaged, or the sizes differ.
    """
    pixels, kept = np.empty(0, np.uint8), list[int]()
    for i, image in enumerate(attempts(decode, sources)):
        if image is None:
            continue
        if not kept:
            pixels = np.empty((len(sources), *image.shape), np.uint8)
        elif image.shape != pixels.shape[1:]:
            sizes = ["{1}x{0}".format(*shape) for shape in (image.shape, pixels.shape[1:])]
            raise DataError(f"{where}: {names[i]} is {sizes[0]}, the first one {sizes[1]}")
        pixels[len(kept)] = image
        kept.append(i)
    here = set(kept)
    lost = [name for i, name in enumerate(names) if i not in here]
    return pixels[: len(kept)], kept, left_out(lost, len(sources), where)


def left_out(
    lost: Sequence[str], count: int, where: Path | str, why: str = "cannot be read"
) -> tuple[str, ...]:
    """What is to be said of a set of ``count`` pictures without some: one sentence, or none.

    Raises:
        DataError: more than half are lost.
    """
    if not lost:
        return ()
    verb = "is" if len(lost) == 1 else "are"
    what = f"{len(lost):,} of {count:,} pictures {why}"
    some = ", ".join(lost[:NAMED])
    remedy = f"`darkroom data check {where}` lists all"
    if 2 * len(lost) > count:
        raise DataError(f"{where}: {what}, such as {some}; {remedy}")
    return (f"{what} and {verb} left out: {some}; {remedy}",)
