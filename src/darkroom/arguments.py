"""Plain values that callers give, checked: each is what it should be, or the error says so.

Numbers of NumPy and of PyTorch, of no dimension, are numbers like Python's.
"""

import numbers
import operator
from collections.abc import Iterable
from typing import Any

from darkroom.errors import ArgumentError

__all__ = ["items", "number", "shown", "string", "switch", "whole", "wholes"]


def number(name: str, value: object, expected: str = "a number") -> float:
    """``value`` as a float; its range is the caller's business.

    Raises:
        ArgumentError: it is none; ``expected`` says what to give.
    """
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise ArgumentError(f"{name} {shown(value)}: expected {expected}")
    return float(plain)


def whole(name: str, value: object, expected: str = "a whole number", least: int = 0) -> int:
    """``value`` as an int of at least ``least``.

    Raises:
        ArgumentError: it is none.
    """
    plain = _plain(value)
    try:
        found = -1 if isinstance(plain, bool) else operator.index(plain)
    except TypeError:
        found = None
    if found is None or isinstance(plain, bool) or found < least:
        raise ArgumentError(f"{name} {shown(value)}: expected {expected}")
    return found


def wholes(name: str, values: object, expected: str, least: int = 0) -> tuple[int, ...]:
    """Several whole numbers, of a list, a tuple, a range, an array.

    Raises:
        ArgumentError: they are none.
    """
    return tuple(whole(name, value, expected, least) for value in items(name, values, expected))


def items(name: str, values: object, expected: str) -> list[Any]:
    """The items of something that can be iterated over, but is no text.

    Raises:
        ArgumentError: it cannot.
    """
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise ArgumentError(f"{name} {shown(values)}: expected {expected}")
    try:
        return list(values)
    except TypeError:  # an array of no dimension says that it can be iterated over
        raise ArgumentError(f"{name} {shown(values)}: expected {expected}") from None


def string(name: str, value: object, expected: str = "a text") -> str:
    """``value``, which must be a str.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(value, str):
        raise ArgumentError(f"{name} {shown(value)}: expected {expected}")
    return value


def switch(name: str, value: object) -> bool:
    """``value``, which must be True or False.

    Raises:
        ArgumentError: it is neither.
    """
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise ArgumentError(f"{name} {shown(value)}: expected True or False")
    return plain


def shown(value: object) -> str:
    """A value in a message: short, on one line, arrays by their shape."""
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f"of shape {tuple(shape)}"
    try:
        said = " ".join(repr(value).split())
    except Exception:  # a stranger's own __repr__
        said = f"a {type(value).__name__}"
    return said if len(said) <= 60 else f"{said[:59]}…"


def _plain(value: Any) -> Any:
    """Of an array or tensor without dimensions, its number."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value
