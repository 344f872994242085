"""Read pictures in threads while the network is at work."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def read_ahead(
    read: Callable[[S], T], items: Iterable[S], ahead: int = 64, workers: int | None = None
) -> Iterator[T]:
    """``read(item)`` of each, in order, up to ``ahead`` of them begun before they are asked for.

    Threads: reading, decoding and resizing happen outside Python's lock. ``items`` is drawn from in
    the caller's thread. However the loop ends, no thread is left.

    Args:
        workers: default: as many as there are processors, 2 to 8.
    """
    workers = workers or min(8, max(2, os.cpu_count() or 2))
    pool = ThreadPoolExecutor(workers, "read")
    begun: deque[Future[T]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(read, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
