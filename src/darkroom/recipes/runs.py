"""What every recipe does around its loss: resume, log, save, finish."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.atomic import atomic_write
from darkroom.config import to_dict
from darkroom.training.fit import FitStep, Training, fit
from darkroom.training.saving import write_state

LOG_EVERY = 20  # steps


class Run:
    """One training run in a folder: ``state.safetensors``, ``log.jsonl``, ``run.json``."""

    def __init__(
        self, folder: Path, recipe: str, config: Any, training: Training, save_every: int
    ) -> None:
        self.folder, self.recipe, self.config = folder, recipe, config
        self.training, self.save_every = training, save_every
        self.state, self.log = folder / "state.safetensors", folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if self.state.is_file():
            training.load(self.state)
            self._forget_after(training.step)

    def steps(self, loss: Callable[[int], Tensor]) -> Iterator[FitStep]:
        """Train to the end, logging and saving on the way; Ctrl-C and closing save too."""
        if self.training.step >= self.training.options.steps:
            return  # a finished stage: nothing to log, nothing to save
        with self.log.open("a", encoding="utf-8") as log:
            self._write(log, {"event": "start", "step": self.training.step, **machine()})
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
                        self._write(log, row)
                        losses = []
                    if self.training.step % self.save_every == 0:
                        self.training.save(self.state)
                    yield step
            finally:
                self.training.save(self.state)

    def finish(self, **parts: nn.Module) -> None:
        """Write each trained part as safetensors with its configuration, and the run's facts."""
        for name, module in parts.items():
            path = self.folder / f"{name}.safetensors"
            write_state(path, module.state_dict(), {"config": to_dict(module.config)})
        facts = {"recipe": self.recipe, "config": to_dict(self.config), **machine()}
        with atomic_write(self.folder / "run.json") as file:
            file.write(json.dumps(facts, indent=2, default=str).encode())

    def _forget_after(self, step: int) -> None:
        """Drop log rows past the saved state: they are about to be written again."""
        rows = [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]
        kept = [row for row in rows if row["step"] <= step]
        with atomic_write(self.log) as file:
            file.write("".join(json.dumps(row) + "\n" for row in kept).encode())

    @staticmethod
    def _write(log: Any, row: dict[str, Any]) -> None:
        log.write(json.dumps(row) + "\n")
        log.flush()


def machine() -> dict[str, Any]:
    """Where a run happens."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
