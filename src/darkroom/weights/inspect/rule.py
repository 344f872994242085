"""How the names of tensors tell what a file is: what one row of the tables says.

A pattern is a part of a tensor's name; ``^`` at its start or ``$`` at its end ties it to that end.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One row: every pattern of ``needs`` must occur, none of ``lacks``."""

    kind: str
    layout: str
    needs: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    known: tuple[str, ...] = ()  # prefixes a file of this kind may have; empty: any
    licence: str = ""  # where every public file of this kind has the same one


class Names:
    """The names of a file's tensors, for many quick searches."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = list(names)
        self._text = "\n" + "\n".join(self.all) + "\n"

    def have(self, pattern: str) -> bool:
        """Whether the pattern occurs in any name."""
        if pattern.startswith("^"):
            pattern = "\n" + pattern[1:]
        if pattern.endswith("$"):
            pattern = pattern[:-1] + "\n"
        return pattern in self._text

    def first(self, *endings: str) -> str | None:
        """The first name that ends in one of ``endings``."""
        return next((name for name in self.all if name.endswith(endings)), None)
