"""Load the batches of coming steps while this one is being computed."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(
    load: Callable[[int], T], steps: range, ahead: int = 2, workers: int = 2
) -> Iterator[T]:
    """``load(step)`` for each of ``steps``, in order, up to ``ahead`` of them begun in advance.

    Threads, not processes: what takes time in loading (reading, decoding, resizing) happens outside
    Python's lock, and nothing is copied. An error is raised at its own step, and ends it. However
    the loop ends, what was begun is waited for, and no thread is left.

    Args:
        load: depends on its argument alone, so results are those of ``map(load, steps)``.
        ahead: batches held in memory beside the one in use; 0 = load when asked.
    """
    if ahead < 0 or workers < 1:
        raise ValueError("ahead must be at least 0, workers at least 1")
    return _prefetch(load, steps, ahead, workers) if ahead else map(load, steps)


def _prefetch(load: Callable[[int], T], steps: range, ahead: int, workers: int) -> Iterator[T]:
    pool = ThreadPoolExecutor(min(workers, ahead), "prefetch")
    begun: deque[Future[T]] = deque()
    coming = iter(steps)
    try:
        for step in coming:
            begun.append(pool.submit(load, step))
            if len(begun) == ahead:
                break
        while begun:
            batch = begun.popleft().result()
            if (step := next(coming, None)) is not None:
                begun.append(pool.submit(load, step))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
