"""Bounds that hold on every machine: counted work, and a guard against what never ends.

No test compares seconds: a busy machine or another processor would break it. Work is counted in
lines of Python; the guard is there so that a hang is one failed test, not a suite that stands
still, and is hundreds of times what the guarded call takes.
"""

import contextlib
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GUARD = 120.0  # seconds of this process's own CPU time


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python ``call()`` executes; the same on every machine."""
    count = 0

    def each(frame, event, argument):
        nonlocal count
        if event == "line":
            count += 1
        return each

    before = sys.gettrace()
    sys.settrace(each)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors made while it was on that lived at once.

    Weights and inputs, which are older, do not count; what a kernel uses inside of one operation
    is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self._add((arguments, keywords), old=True)
        out = operation(*arguments, **(keywords or {}))
        self._add(out)
        return out

    def _add(self, tensors: object, old: bool = False) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), old)

    def _count(self, storage: torch.UntypedStorage, old: bool) -> None:
        address, size = storage.data_ptr(), 0 if old else storage.nbytes()
        if not address or address in self.seen:
            return
        self.seen.add(address)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self.seen.discard(address)
        self.now -= size


@contextlib.contextmanager
def guarded(seconds: float = GUARD) -> Iterator[None]:
    """Fail if the block uses so much CPU time; regular expressions are interrupted, too."""
    here = threading.current_thread() is threading.main_thread()
    if not here or not hasattr(signal, "SIGPROF"):
        yield
        return

    def ended(number, frame):
        raise AssertionError(f"no end after {seconds:.0f} s of CPU time")

    before = signal.signal(signal.SIGPROF, ended)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
