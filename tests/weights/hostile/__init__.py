"""Makes malformed and hostile checkpoint files: 223 kinds, any number of each, always the same.

``cases(folder, count)`` writes one file at a time. A kind is a function of a random generator; a
``Case`` says whether the file must be refused (a flipped bit may leave a valid file).
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from hostile import (  # each lists its kinds
    archives,
    bombs,
    foreign,
    headers,
    modules,
    names,
    running,
    scripts,
    streams,
    wrong,
)
from hostile.kinds import KINDS, MARKER, Case, Kind

__all__ = ["KINDS", "MARKER", "Case", "Kind", "cases"]
_LISTED = (headers, foreign, archives, running, bombs, wrong, streams, modules, scripts, names)


def cases(
    folder: Path, count: int, start: int = 0, kinds: Sequence[Kind] = KINDS
) -> Iterator[Case]:
    """Write case after case; each file is removed when the next is asked for."""
    for number in range(start, start + count):
        chosen = kinds[number % len(kinds)]
        rng = random.Random(f"{chosen.name} {number // len(kinds)}")
        path = folder / f"{chosen.name}_{number // len(kinds)}{chosen.suffix}"
        made = chosen.make(rng)
        if callable(made):
            made(path)
        else:
            path.write_bytes(made)
        try:
            yield Case(chosen, path)
        finally:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
