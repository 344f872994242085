"""Progress on stderr: a live bar on a terminal, one plain line per ten percent elsewhere."""

import math
import sys
import time
from types import TracebackType
from typing import Any, Self

from darkroom.app.terminal import bytes_text, is_live, say, seconds_text


class Progress:
    """Counts towards ``total`` and shows it, with speed and time left.

    ``with Progress("drawing", 30) as bar: bar.advance()``. The clock starts at the first
    ``advance``'s beginning, and the rate leaves out the first unit (or batch), which warms up.

    Args:
        total: in units; bytes are shown as such.
        preview: keep room above the bar for ``picture``.
    """

    def __init__(self, title: str, total: float, unit: str = "step", preview: bool = False) -> None:
        self.title, self.total, self.unit, self.note = title, total, unit, ""
        self.done, self.started, self.first = 0.0, time.monotonic(), 0.0
        self.tenths = 0
        self.live: Any = self.display(preview) if is_live() else None

    def display(self, preview: bool) -> Any:
        """What shows it on a terminal."""
        return _live(self, preview)

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count ``amount`` units as done; ``note`` says what is being worked on."""
        now = time.monotonic()
        if not self.done:
            self.first, self.warm = now, 0.0
        if now - self.first < 0.01:  # units of one batch come together
            self.warm += amount
        self.done, self.note = self.done + amount, note
        if self.live:
            self.live.update()
            return
        tenths = min(10, math.floor(10 * self.done / self.total + 1e-9)) if self.total else 10
        if tenths > self.tenths:
            self.tenths = tenths
            say(self.line())

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.live:
            self.live.print(text)
        else:
            say(text)

    def picture(self, image: Any) -> None:
        """Show a PIL image above the bar, where the terminal can."""
        if self.live:
            self.live.picture(image)

    @property
    def elapsed(self) -> float:
        """Seconds since the bar was made."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Units a second; 0 while unknown."""
        if self.done > getattr(self, "warm", 0):
            return (self.done - self.warm) / max(time.monotonic() - self.first, 1e-6)
        return self.done / max(self.elapsed, 1e-6)

    def line(self) -> str:
        """'drawing: 40 % (12 of 30 steps), 5.2 it/s, 3.4 s left'."""
        percent = math.floor(100 * self.done / self.total + 1e-9) if self.total else 100
        left = (self.total - self.done) / self.rate if self.rate else math.inf
        note = f", {self.note}" if self.note else ""
        rest = f", {seconds_text(left)} left" if 0 < left < math.inf else ""
        return f"{self.title}: {percent} % ({self.count()}), {self.speed()}{rest}{note}"

    def count(self) -> str:
        """'12 of 30 steps' or '1.2 MB of 4.0 MB'."""
        if self.unit == "bytes":
            return f"{bytes_text(self.done)} of {bytes_text(self.total)}"
        return f"{self.done:.0f} of {self.total:.0f} {self.unit}s"

    def speed(self) -> str:
        """'5.2 it/s' or '81.0 MB/s'."""
        return f"{bytes_text(self.rate)}/s" if self.unit == "bytes" else f"{self.rate:.1f} it/s"


def _live(progress: Progress, preview: bool) -> Any:
    """The rich display of a Progress; rich is imported only for a terminal."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    class Bar:
        def __init__(self) -> None:
            self.console = Console(file=sys.stderr)
            self.image: Text | None = None
            self.seen = 0.0
            self.live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
            )

        def render(self) -> Any:
            p = progress
            left = (p.total - p.done) / p.rate if p.done and p.rate else None
            row = Table.grid(padding=(0, 1))
            row.add_row(
                Text(p.title, style="bold", no_wrap=True, overflow="ellipsis"),
                ProgressBar(total=p.total or 1, completed=p.done, width=self.bar_width()),
                Text(p.count(), no_wrap=True),
                Text(p.speed() if p.done else "-", style="green", no_wrap=True),
                Text(f"{seconds_text(left)} left" if left is not None else "", no_wrap=True),
                Text(p.note, style="dim", no_wrap=True, overflow="ellipsis"),
            )
            return Group(self.image, row) if self.image is not None else row

        def bar_width(self) -> int:
            return max(8, min(30, self.console.width - 60))

        def start(self) -> None:
            self.live.start()

        def stop(self) -> None:
            self.live.stop()

        def update(self) -> None:
            if time.monotonic() - self.seen > 0.1:
                self.seen = time.monotonic()
                self.live.refresh()

        def print(self, text: str) -> None:
            self.console.print(Text(text))

        def picture(self, image: Any) -> None:
            if preview:
                self.image = half_blocks(image, min(48, self.console.width), Text)

    return Bar()


def half_blocks(image: Any, width: int, text_class: Any) -> Any:
    """A PIL image as coloured half blocks: two pixels above each other a character."""
    height = max(2, round(image.height * width / image.width / 2) * 2)
    small = image.convert("RGB").resize((width, height))
    pixels = small.load()
    text = text_class(no_wrap=True)
    for y in range(0, height, 2):
        for x in range(width):
            upper, lower = pixels[x, y], pixels[x, y + 1]
            text.append("▀", style=f"rgb({_csv(upper)}) on rgb({_csv(lower)})")
        if y + 2 < height:
            text.append("\n")
    return text


def _csv(pixel: tuple[int, int, int]) -> str:
    return ",".join(map(str, pixel))
