"""A training run on stderr: a live table on a terminal, a plain line per ten percent elsewhere."""

import sys
from typing import Any

from darkroom.app.progress import Progress
from darkroom.app.terminal import bytes_text, seconds_text

SMOOTHING = 0.02  # weight of a new loss: a mean over about fifty steps; single ones jump too much
ROOM = (70, 110)  # columns, from which on the table has two and three pairs a row
LONGEST = 24  # characters of a name


class TrainingView(Progress):
    """Shows ``FitStep`` after ``FitStep``.

    Args:
        first: the step that the run begins or goes on with.
    """

    def __init__(self, title: str, first: Any) -> None:
        self.begun, self.step = first.index, first
        self.loss = self.speed_now = 0.0
        self.overflows = 0
        super().__init__(title, first.steps - first.index)

    def display(self, preview: bool) -> Any:
        """The table."""
        return _table(self)

    def show(self, step: Any) -> None:
        """Count one step."""
        seen = step.index - self.begun + 1
        self.loss += max(SMOOTHING, 1 / seen) * (step.loss - self.loss)
        self.speed_now += max(0.1, 1 / seen) * (step.samples_per_second - self.speed_now)
        self.overflows += step.skipped
        self.step = step
        self.advance(1, self._words())

    def count(self) -> str:
        """'12 of 30 steps', of the whole run."""
        return f"{self.step.index + 1} of {self.step.steps} steps"

    def _words(self) -> str:
        words = f"loss {self.loss:.4g}, lr {self.step.lr:.2e}, {self.speed_now:.4g} samples/s"
        for name, value in self.step.noted.items():
            words += f", {name.replace('_', ' ')} {value:.4g}"
        return f"{words}, {self.overflows} steps overflowed" if self.overflows else words

    def cells(self) -> list[tuple[str, str]]:
        """Names and values of the table."""
        left = (self.total - self.done) / self.rate if self.done > 1 and self.rate else None
        memory = peak_memory()
        pairs = [
            ("loss", f"{self.loss:.4g}"),
            ("learning rate", f"{self.step.lr:.2e}"),
            ("samples/s", f"{self.speed_now:.4g}"),
            ("gradient norm", f"{self.step.gradient_norm:.3g}"),
            ("time", seconds_text(self.elapsed)),
            ("time left", "-" if left is None else seconds_text(left)),
            *([("peak memory", bytes_text(memory))] if memory else []),
            *([("overflowed steps", str(self.overflows))] if self.overflows else []),
        ]
        return pairs + [(n.replace("_", " "), f"{v:.4g}") for n, v in self.step.noted.items()]


def peak_memory() -> int:
    """Bytes: of the GPU where one is in use, else of the process; 0 where nobody says."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _table(view: TrainingView) -> Any:
    """The rich display of a view; rich is imported only for a terminal."""
    from rich.console import Console
    from rich.console import Group as Lines
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    class Board:
        def __init__(self) -> None:
            self.console = Console(file=sys.stderr)
            self.live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )

        def render(self) -> Any:
            width = min(self.console.width, 140)
            done, total = view.step.index + 1, view.step.steps
            head = Table.grid(expand=False, padding=(0, 2, 0, 0))
            head.add_row(
                Text(view.title, style="bold", no_wrap=True, overflow="ellipsis"),
                Text(f"step {done:,} of {total:,}", no_wrap=True),
                Text(f"{100 * done // total} %", style="green", no_wrap=True),
            )
            bar = Table.grid()  # a bar alone would not end its line
            bar.add_row(ProgressBar(total=total, completed=done, width=width - 1))
            columns = 1 + sum(width >= room for room in ROOM)
            rows = Table.grid(padding=(0, 1, 0, 0))
            each = (width - 1) // columns
            name_width = min(LONGEST, each - 12)
            for _ in range(columns):
                rows.add_column(width=name_width, no_wrap=True, overflow="ellipsis", style="dim")
                rows.add_column(width=each - name_width - 2, no_wrap=True, overflow="ellipsis")
            pairs = view.cells()
            for i in range(0, len(pairs), columns):
                rows.add_row(*(Text(word) for pair in pairs[i : i + columns] for word in pair))
            return Lines(head, bar, rows)

        def start(self) -> None:
            self.live.start()

        def stop(self) -> None:
            self.live.stop()

        def update(self) -> None:
            pass  # it refreshes itself, also while a step or an evaluation takes long

        def print(self, text: str) -> None:
            self.console.print(Text(text))

    return Board()
