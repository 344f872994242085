"""Cases of a parametrized test that run always, and those that wait for the slow run."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(few: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """All ``values``, those that are not among the ``few`` marked as slow."""
    few, values = list(few), list(values)
    missing = [value for value in few if value not in values]
    assert not missing, f"no such cases: {missing}"
    return [value if value in few else _slow(value) for value in values]


def _slow(value: Any) -> Any:
    arguments = value if isinstance(value, tuple) else (value,)
    return pytest.param(*arguments, marks=pytest.mark.slow)
