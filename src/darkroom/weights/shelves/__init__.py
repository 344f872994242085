"""People's models by name, in the folders that they keep them in. No torch.

A folder of models is looked through as it is, sub-folders included: our own, and those of A1111,
Forge, ComfyUI and InvokeAI. A model goes by the name of its file with or without the ending, or of
its folder; where several are called so, by more of its path: ``sd15/dreamy``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import ModelNotFoundError
from darkroom.weights import registry
from darkroom.weights.shelves.walk import ADAPTERS, PICTURES, Shelved, models_in

LISTED = 6  # files that an error lists

__all__ = ["ADAPTERS", "Shelved", "Shelves", "matching", "one_called", "open_shelves"]


@dataclass(frozen=True)
class Shelves:
    """What lies in the folders of models."""

    found: tuple[Shelved, ...]
    problems: tuple[str, ...]  # folders that are missing, or hold too much

    def names(self, others: Iterable[str] = ()) -> dict[Path, str]:
        """What each is called: its stem, or as much of its path as tells it from others.

        Args:
            others: names that are taken by what lies elsewhere.
        """
        names: dict[Path, str] = {}
        others = set(others)
        for level in (lambda s: s.stem, lambda s: s.path.name, lambda s: s.label):
            counts: dict[str, int] = {}
            left = [shelved for shelved in self.found if shelved.path not in names]
            for shelved in left:
                counts[level(shelved)] = counts.get(level(shelved), 0) + 1
            taken = others | set(names.values())
            for shelved in left:
                if counts[level(shelved)] == 1 and level(shelved) not in taken:
                    names[shelved.path] = level(shelved)
        return {s.path: names.get(s.path, str(s.path)) for s in self.found}


def open_shelves(pictures: bool = False) -> Shelves:
    """Look through every folder of models; a file is listed once, however often it is linked.

    Args:
        pictures: those that may hold a textual inversion, too.
    """
    found: list[Shelved] = []
    problems: list[str] = []
    seen: set[tuple[int, int]] = set()
    for root in registry.model_folders():
        found += models_in(root, seen, problems)
    if not pictures:
        found = [s for s in found if s.path.suffix.lower() not in PICTURES]
    return Shelves(tuple(found), tuple(problems))


def matching(name: str, found: Iterable[Shelved]) -> list[Shelved]:
    """Those that are called ``name``: file names before stems."""
    parts = name.replace("\\", "/").split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        return []
    *folders, last = parts
    count = len(folders)
    near = [
        shelved
        for shelved in found
        if last in (shelved.path.name, shelved.stem)
        and (not count or list(shelved.path.parent.parts[-count:]) == folders)
    ]
    whole = [shelved for shelved in near if shelved.path.name == last]
    return whole or near


def one_called(
    name: str, found: Sequence[Shelved], is_meant: Callable[[Shelved], bool]
) -> Shelved | None:
    """The one that ``name`` leads to, or None.

    Args:
        is_meant: asked where several have the name; may read their headers.

    Raises:
        ModelNotFoundError: several have it.
    """
    near = matching(name, found)
    if len(near) > 1:
        near = [shelved for shelved in near if is_meant(shelved)] or near
    if len(near) < 2:
        return near[0] if near else None
    labels = [shelved.label for shelved in near]
    if len(set(labels)) < len(labels):
        labels = [str(shelved.path) for shelved in near]
    more = f" and {len(labels) - LISTED} more" if len(labels) > LISTED else ""
    raise ModelNotFoundError(
        f"{len(near)} models are called {name!r}: {', '.join(labels[:LISTED])}{more}; say which, "
        "by so much of its path"
    )
