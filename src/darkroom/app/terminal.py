"""What is shown to people: results on stdout, everything else on stderr."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

ANSI = {"bold red": "1;31", "bold": "1", "dim": "2", "green": "32", "yellow": "33"}


def is_live(stream: TextIO | None = None) -> bool:
    """Whether lines can be redrawn: a terminal that is not ``dumb``. Default: stderr."""
    chosen: Any = sys.stderr if stream is None else stream
    return chosen is not None and chosen.isatty() and os.environ.get("TERM", "") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """``text`` in a style of ``ANSI``; unchanged where colours are not wanted (NO_COLOR)."""
    if os.environ.get("NO_COLOR") or not is_live(stream):
        return text
    return f"\x1b[{ANSI[style]}m{text}\x1b[0m"


def say(text: str, style: str = "") -> None:
    """One line to the person, on stderr."""
    sys.stderr.write((paint(text, style) if style else text) + "\n")
    sys.stderr.flush()


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that something without steps is going on; on a terminal only, and only meanwhile."""
    if not is_live():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def show(text: str) -> None:
    """One line of result, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: drawn on a terminal, tab-separated elsewhere."""
    if not is_live(sys.stdout):
        for row in (columns, *rows):
            show("\t".join(row))
        return
    import rich.box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(drawn)


def bytes_text(size: float) -> str:
    """1,234,567 -> '1.2 MB' (powers of ten, as disks and downloads count)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_text(seconds: float) -> str:
    """3.21 -> '3.2 s'; 75 -> '1:15'; 4000 -> '1:06:40'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
