"""A pickle reader that cannot run anything: it knows the opcodes and, of objects, only names.

A class or function that the
pickle names becomes a ``Global``; calling one asks ``pickle_globals`` for a builder of ours, and
gives an ``Inert`` record where there is none. No import, no attribute, no call leaves this folder.

Every opcode is charged against a budget that bounds both the time (about 2,000,000 opcodes) and
the memory (about 128 MB), so bombs of any shape end with an error.
"""

import struct
from collections.abc import Callable
from typing import Any, Protocol

from darkroom.weights.readers.faults import AGAIN, Fault
from darkroom.weights.readers.pickle_globals import BUILDERS, look_up
from darkroom.weights.readers.pickle_opcodes import COST, OPCODES, STOP
from darkroom.weights.readers.records import Global, Inert, TensorRecord

BUDGET = 128 << 20
_BOUND = (1 << 60) - 1  # beyond it, integers with equal hashes could be made


class Bytes(Protocol):
    """bytes or a mapped file."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def find(self, sub: bytes, start: int, end: int, /) -> int: ...


class Machine:
    """Reads one pickle after another from ``data``.

    Args:
        data: the bytes.
        at: where the first pickle starts.
        persistent: makes an object of a persistent id (PyTorch's way to name a storage).
    """

    def __init__(
        self, data: Bytes, at: int = 0, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.data = data
        self.at = at
        self.persistent = persistent
        self.budget = BUDGET
        self.skipped: dict[str, int] = {}  # names of Inert things, and how often
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next object; ``at`` is then just after it.

        Raises:
            Fault: malformed, too large, or it wants to run code (``unsafe``).
        """
        self.stack, self.marks, self.memo = [], [], {}
        data, start = self.data, self.at
        try:
            while True:
                code = data[self.at]
                self.at += 1
                self.budget -= COST[code]
                if self.budget < 0:
                    self.charge(0)
                if code == STOP:
                    return self.stack.pop()
                OPCODES[code](self)
        except IndexError:
            if self.at >= len(data):
                raise Fault("ends in the middle of its pickle", AGAIN) from None
            raise self.malformed(start) from None
        except (KeyError, TypeError, ValueError, struct.error, UnicodeError, OverflowError):
            raise self.malformed(start) from None

    def malformed(self, start: int = 0) -> Fault:
        return Fault(f"its pickle is malformed at byte {self.at - start:,}", AGAIN)

    def charge(self, size: int) -> None:
        """Count ``size`` bytes of work against the budget."""
        self.budget -= size
        if self.budget < 0:
            raise Fault("its pickle is larger than any checkpoint's", "use another file")

    def take(self, count: int, price: int = 1) -> bytes:
        """The next ``count`` bytes."""
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise Fault("ends in the middle of its pickle", AGAIN)
        self.charge(count * price)
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def line(self, longest: int = 1000) -> bytes:
        """The next line, without its end."""
        end = self.data.find(b"\n", self.at, min(len(self.data), self.at + longest + 1))
        if end < 0:
            raise self.malformed()
        piece = self.take(end - self.at, 5)
        self.at = end + 1
        return piece

    def to_mark(self) -> list[Any]:
        """What was pushed since the last MARK."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def name(self, module: Any, name: Any) -> Global:
        """A class or function by name.

        Raises:
            Fault: a name that only a pickle that runs code would mention.
        """
        if type(module) is not str or type(name) is not str:
            raise self.malformed()
        return look_up(module, name)

    def call(self, function: Any, args: Any) -> Any:
        """The object that ``function(*args)`` stands for: built by us, or inert."""
        if type(args) is not tuple:
            raise self.malformed()
        if type(function) is Global:
            builder = BUILDERS.get(function.name)
            if builder is not None:
                return builder(self, args)
            return self.inert(function.name, args)
        if type(function) is Inert:
            return self.inert(f"{function.name}()"[:200], args)
        raise self.malformed()

    def inert(self, name: str, args: Any = ()) -> Inert:
        self.charge(300)
        self.skipped[name] = self.skipped.get(name, 0) + 1
        return Inert(name, args)

    def key(self, value: Any) -> Any:
        """A value that is safe as a dictionary key: hashing it takes no time and no recursion."""
        kind = type(value)
        if kind is str or kind is bytes or kind is float or value is None or kind is bool:
            return value
        if kind is int:
            if -_BOUND < value < _BOUND:
                return value
            raise self.malformed()
        if kind in (Inert, Global, TensorRecord):
            return value
        if kind in (tuple, frozenset):
            return self.inert(f"{kind.__name__} as a key", value)
        raise self.malformed()
