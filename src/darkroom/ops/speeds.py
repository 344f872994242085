"""The quickest row of an operation on this machine: measured once, then known.

    row = quickest("linear", (512, 1280, 1280), {"torch": plain, "onednn": faster})

The first row is the plain one, which wins unless another is faster by ``MARGIN``. What was measured
is kept in the user's cache, in one file for each processor, set of its instructions, number of
threads and version of PyTorch; what is damaged there is measured again.

Other programs disturb a measurement. A run during which the system took the processor away more
than now and then does not count; where too few are left, the plain row is used unless another is
faster by ``DOUBT``, and the next process measures again. One thread is measured by its own CPU
time, which is not disturbed.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom import machine
from darkroom.atomic import atomic_write

MARGIN = 1.1  # how many times as fast as the plain row another must be
LEAST = 2**26  # multiplications below which an operation is not worth a measurement: half a ms
QUIET = 0.01  # seconds between interruptions: 0.015 and more on quiet cores, 0.004 on busy ones
DOUBT = 1.5  # the same, of a disturbed measurement
ROUNDS, CLEAN = 9, 3  # of all rows in turn; of them undisturbed; the least time of each counts
ENOUGH = 0.05  # seconds after which CLEAN rounds will do
BUDGET = 10.0  # seconds of measuring in a process; then what is not known goes the plain way
REVISION = 2  # of the rows: raise it when one gets quicker or slower
MOST = 2**20  # bytes of a file of figures

Seconds = Mapping[str, float]  # by row, the plain one first


class Speeds:
    """What rows of operations take, and which is to be used. Threads may share it.

    Args:
        folder: where to keep the figures; None = nowhere.
        clock: seconds; None = of the wall, or of CPU time where there is one thread.
        interruptions: how often the system has taken a processor from this process, where that
            disturbs; None = as it counts them, or none where there is one thread.
    """

    def __init__(
        self,
        folder: Path | None = None,
        clock: Callable[[], float] | None = None,
        interruptions: Callable[[], int] | None = None,
    ) -> None:
        self.folder = folder
        self.clock = clock or _clock
        self.interruptions = interruptions or _interruptions
        self.spent = 0.0  # seconds of measuring
        self._lock = threading.RLock()  # a row may be made of other operations
        self._chosen: dict[tuple[int, str, tuple[int, ...]], str] = {}
        self._tables: dict[int, dict[str, Seconds]] = {}  # by number of threads

    def quickest(
        self, operation: str, shape: tuple[int, ...], rows: Mapping[str, Callable[[], object]]
    ) -> str:
        """The row to use for an operation of this shape, measured now if it is not known.

        Args:
            rows: each runs once what is to be timed; the plain one first.
        """
        key = torch.get_num_threads(), operation, shape
        row = self._chosen.get(key)
        if row is None:
            with self._lock:
                row = self._chosen.get(key) or self._find(*key, rows)
                self._chosen[key] = row
        return row

    def known(self) -> dict[str, Seconds]:
        """What has been measured with as many threads as there are now, by operation and shape."""
        with self._lock:
            return dict(self._table(torch.get_num_threads()))

    def forget(self) -> None:
        """Measure again what comes."""
        with self._lock:
            self.spent = 0.0
            self._chosen.clear()
            self._tables = {torch.get_num_threads(): {}}
            file = self.file()
            if file is not None:
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)

    def file(self, threads: int | None = None) -> Path | None:
        """Where the figures of so many threads are kept."""
        if self.folder is None:
            return None
        facts = json.dumps(conditions(threads), sort_keys=True)
        return self.folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"

    def _find(
        self,
        threads: int,
        operation: str,
        shape: tuple[int, ...],
        rows: Mapping[str, Callable[[], object]],
    ) -> str:
        table, name = self._table(threads), f"{operation} {'x'.join(map(str, shape))}"
        if name in table and list(table[name]) == list(rows):
            return winner(table[name])
        if self.spent > BUDGET:
            return next(iter(rows))
        began = self.clock()
        seconds, clean = self._measured(rows)
        self.spent += self.clock() - began
        if clean:
            table[name] = seconds
            self._write(threads)
        return winner(seconds, MARGIN if clean else DOUBT)

    def _measured(self, rows: Mapping[str, Callable[[], object]]) -> tuple[Seconds, bool]:
        """The least seconds of each row, and whether enough runs were undisturbed."""
        clean: dict[str, list[float]] = {name: [] for name in rows}
        disturbed: dict[str, list[float]] = {name: [] for name in rows}
        usable = [(name, run) for name, run in rows.items() if _runs(run)]
        spent = 0.0
        for turn in range(3 * ROUNDS):
            for name, run in usable if turn % 2 else usable[::-1]:
                before, began = self.interruptions(), self.clock()
                run()
                took = self.clock() - began
                often = self.interruptions() - before > took / QUIET
                (disturbed if often else clean)[name].append(took)
                spent += took
            least = min(len(clean[name]) for name, _ in usable)
            long = spent > ENOUGH and (least >= CLEAN or (turn >= CLEAN and spent > 5 * ENOUGH))
            if least >= ROUNDS or long:
                break
        enough = all(len(clean[name]) >= 2 for name, _ in usable)
        runs = {name: clean[name] if enough else clean[name] + disturbed[name] for name in rows}
        return {name: min(found, default=math.inf) for name, found in runs.items()}, enough

    def _table(self, threads: int) -> dict[str, Seconds]:
        if threads not in self._tables:
            self._tables[threads] = self._read(threads)
        return self._tables[threads]

    def _read(self, threads: int) -> dict[str, Seconds]:
        file = self.file(threads)
        try:
            if file is None or file.stat().st_size > MOST:
                return {}
            held = json.loads(file.read_text("utf-8"))
            if held["conditions"] != conditions(threads):
                return {}
            return {name: rows for name, rows in held["seconds"].items() if _are_seconds(rows)}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}

    def _write(self, threads: int) -> None:
        """Beside what other processes have found; not at all where nothing can be written."""
        file = self.file(threads)
        if file is None:
            return
        table = self._tables[threads] = {**self._read(threads), **self._tables[threads]}
        held = {"conditions": conditions(threads), "seconds": table}
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as stream:
                stream.write(json.dumps(held, indent=1).encode())


def quickest(
    operation: str, shape: tuple[int, ...], rows: Mapping[str, Callable[[], object]]
) -> str:
    """As ``Speeds.quickest``, by what this machine's user has measured."""
    return here().quickest(operation, shape, rows)


@functools.cache
def here() -> Speeds:
    """The figures of this machine's user."""
    return Speeds(cache_folder())


def cache_folder() -> Path:
    """Where figures are kept: under ``DARKROOM_HOME``, or the user's cache."""
    if given := os.environ.get("DARKROOM_HOME"):
        return Path(given).expanduser() / "speed"
    from platformdirs import user_cache_path

    return user_cache_path("darkroom") / "speed"


def conditions(threads: int | None = None) -> dict[str, Any]:
    """What figures depend on: where one of these differs, they are measured again."""
    names = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
    return {
        "processor": machine.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ[name] for name in names if os.environ.get(name)},
        "threads": torch.get_num_threads() if threads is None else threads,
        "torch": torch.__version__,
        "rows": REVISION,
    }


def winner(seconds: Seconds, margin: float = MARGIN) -> str:
    """The quickest row; the plain one unless another is faster beyond a margin."""
    plain, *_ = seconds
    best = min(seconds, key=lambda row: seconds[row])
    return best if seconds[best] * margin < seconds[plain] else plain


def measurable(*tensors: Tensor | None) -> bool:
    """Whether these may go to another row than the plain one: numbers, float32, on a CPU.

    Not what is traced, compiled, counted or differentiated by functions on functions.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(x.dtype is torch.float32 and x.device.type == "cpu" for x in given)
        and all(type(x) in (Tensor, torch.nn.Parameter) for x in given)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None  # pyright: ignore[reportAttributeAccessIssue]
        and torch.autograd.forward_ad._current_level < 0
    )


def rounded(count: int, most: int) -> int:
    """The power of two at or below ``count``, at most ``most``: shapes that share a figure."""
    return min(1 << (count.bit_length() - 1), most)


def _clock() -> float:
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _interruptions() -> int:
    return 0 if torch.get_num_threads() == 1 else machine.interruptions()


def _runs(run: Callable[[], object]) -> bool:
    """Once without the clock: kernels are found, memory is fetched."""
    try:
        run()
    except RuntimeError:  # not on this machine, or out of memory
        return False
    return True


def _are_seconds(rows: object) -> bool:
    return (
        isinstance(rows, dict)
        and bool(rows)
        and all(isinstance(s, float) and s > 0 for s in rows.values())
    )
