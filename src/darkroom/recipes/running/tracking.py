"""TensorBoard event files beside the log, where the package ``tensorboard`` is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Scalars of a run in ``folder/tensorboard``; without the package it does nothing.

    A tracker that fails is put aside: training goes on.

    Args:
        step: where the run goes on; what was written past it is hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.writer: Any = None
        self.problem = ""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._try(self._open, SummaryWriter, folder / "tensorboard", step)

    def _open(self, writer: Any, folder: Path, step: int) -> None:
        self.writer = writer(str(folder), purge_step=step + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row of the log."""
        if self.writer is not None and "event" not in row:
            self._try(self._add, row)

    def _add(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self._try(self.writer.close)

    def _try(self, action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            self.writer, self.problem = None, f"{type(error).__name__}: {error}"
