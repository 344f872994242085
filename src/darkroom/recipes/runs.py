"""What every recipe does around its loss: resume, log, evaluate, save, report, finish."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from darkroom.atomic import atomic_write
from darkroom.config import to_dict
from darkroom.machine import processor
from darkroom.recipes.report import Report
from darkroom.training import distributed
from darkroom.training.fit import Draw, FitStep, Training, fit
from darkroom.training.saving import write_state

LOG_EVERY = 20  # steps


class Run:
    """One training run in a folder.

    ``state.safetensors`` (goes on from there), ``log.jsonl``, and at the end ``run.json``,
    ``report.html`` and the trained parts. Of several processes, the first one writes.
    """

    def __init__(
        self, folder: Path, recipe: str, config: Any, training: Training, save_every: int
    ) -> None:
        self.folder, self.recipe, self.config = folder, recipe, config
        self.training, self.save_every = training, save_every
        self.state, self.log = folder / "state.safetensors", folder / "log.jsonl"
        self.report = Report(recipe, config)
        folder.mkdir(parents=True, exist_ok=True)
        if self.state.is_file():
            training.load(self.state)
            if distributed.first():
                self._forget_after(training.step)

    def steps(self, loss: Callable[[Draw], Tensor]) -> Iterator[FitStep]:
        """Train to the end, logging and saving on the way; Ctrl-C and closing save too."""
        if self.training.step >= self.training.options.steps:
            return  # a finished stage: nothing to log, nothing to save
        self._write({"event": "start", "step": self.training.step, **machine()})
        started, losses = time.perf_counter(), []
        try:
            for step in fit(self.training, loss):
                losses.append(step.loss)
                if step.index % LOG_EVERY == LOG_EVERY - 1:
                    row = {
                        "step": step.index + 1,
                        "loss": step.loss,
                        "mean_loss": sum(losses) / len(losses),
                        "lr": step.lr,
                        "gradient_norm": step.gradient_norm,
                        "samples_per_second": round(step.samples_per_second, 1),
                        "seconds": round(time.perf_counter() - started, 1),
                    }
                    self._write(row)
                    losses = []
                yield step
                if self.training.step % self.save_every == 0:
                    self.training.save(self.state)
        finally:
            self.training.save(self.state)

    def due(self, every: int) -> bool:
        """Whether something that happens every ``every`` steps, and at the end, is due now."""
        step = self.training.step
        return step == self.training.options.steps or (every > 0 and step % every == 0)

    def note(self, **values: float) -> None:
        """Log what was measured at this step; the report draws it as curves."""
        self._write({"step": self.training.step, **values})

    def picture(self, name: str, image: Image.Image, caption: str = "") -> None:
        """Keep a picture as ``name.png`` and show it in the report."""
        if distributed.first():
            with atomic_write(self.folder / f"{name}.png") as file:
                image.save(file, "PNG")
        self.report.picture(image, caption or name)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show a table in the report."""
        self.report.table(title, columns, rows)

    def text(self, sentence: str) -> None:
        """Show a paragraph in the report."""
        self.report.text(sentence)

    def finish(self, **parts: nn.Module) -> None:
        """Write each trained part as safetensors with its configuration, the facts, the report."""
        if not distributed.first():
            return
        for name, module in parts.items():
            path = self.folder / f"{name}.safetensors"
            write_state(path, module.state_dict(), {"config": to_dict(module.config)})
        facts = {"recipe": self.recipe, "config": to_dict(self.config), **machine()}
        with atomic_write(self.folder / "run.json") as file:
            file.write(json.dumps(facts, indent=2, default=str).encode())
        self.report.write(self.folder / "report.html", self.rows(), facts)

    def rows(self) -> list[dict[str, Any]]:
        """The log so far."""
        if not self.log.is_file():
            return []
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]

    def _forget_after(self, step: int) -> None:
        """Drop log rows past the saved state: they are about to be written again."""
        kept = [row for row in self.rows() if row["step"] <= step]
        with atomic_write(self.log) as file:
            file.write("".join(json.dumps(row) + "\n" for row in kept).encode())

    def _write(self, row: dict[str, Any]) -> None:
        if distributed.first():
            with self.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")


def machine() -> dict[str, Any]:
    """Where a run happens."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }
