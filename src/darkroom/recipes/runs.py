"""What every recipe does around its loss: resume, log, evaluate, save, report, finish."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from darkroom import foreign
from darkroom.atomic import Held, atomic_write, on_disk, remove_unfinished
from darkroom.config import to_dict
from darkroom.errors import DataError, DataWarning
from darkroom.machine import processor
from darkroom.recipes.report import Report
from darkroom.recipes.running.planning import PLANNER
from darkroom.recipes.running.stopping import Stop
from darkroom.recipes.running.tracking import Board
from darkroom.training import distributed
from darkroom.training.data.pictures import Pictures
from darkroom.training.fit import Draw, FitStep, Training, fit
from darkroom.training.saving import refuse_if_full, write_state

LOG_EVERY = 20  # steps
MAX_LOG = 1 << 30  # bytes


class Run:
    """One training run in a folder.

    ``state.safetensors`` (goes on from there), ``log.jsonl``, and at the end ``run.json``,
    ``report.html`` and the trained parts; a run that ends early leaves a report as well. Of
    several processes, the first one writes.
    """

    def __init__(
        self, folder: Path, recipe: str, config: Any, training: Training, save_every: int
    ) -> None:
        self.folder, self.recipe, self.config = folder, recipe, config
        self.training, self.save_every = training, save_every
        self.state, self.log = folder / "state.safetensors", folder / "log.jsonl"
        self.report = Report(recipe, config)
        self.saved = -1  # the step in ``state.safetensors``
        self.noted: dict[str, float] = {}  # last
        self.board: Board | None = None
        self.streamed: Pictures | None = None  # set where pictures come from the disk as they are
        self.held = 0  # bytes of pictures or latents that are in memory all the time
        self.told = 0  # how many streamed pictures were said to be unreadable
        folder.mkdir(parents=True, exist_ok=True)
        self.held_folder: Held | None = None
        if distributed.first():
            self._hold()  # a look; it is held while steps are made
            self._release()
            remove_unfinished(folder)
        if self.state.is_file():
            training.load(self.state)
            if distributed.first():
                self._forget_after(training.step)

    def steps(self, loss: Callable[[Draw], Tensor]) -> Iterator[FitStep]:
        """Train to the end, logging and saving on the way; Ctrl-C and closing save too."""
        if planner := PLANNER.get():
            planner.record(self.folder, self.training, loss, self.held)
            return
        if self.training.step >= self.training.options.steps:
            self.training.unshard()
            return  # a finished stage: nothing to log, nothing to save
        if distributed.first():
            self._hold()
        try:
            yield from self._steps(loss)
        finally:
            self._release()
        self._tell_all()
        self.training.unshard()

    def _steps(self, loss: Callable[[Draw], Tensor]) -> Iterator[FitStep]:
        if distributed.first():
            self.board = Board(self.folder, self.training.step)
        self._write({"event": "start", "step": self.training.step, **machine()})
        stop, together = Stop(), self.training.shards is None
        stop.listen()
        try:
            for step in self._logged(loss, stop):
                self._tell()
                yield step
                if self.training.step % self.save_every == 0:
                    self._save()
                if stop.now(self.training.options.place):
                    together = True
                    stop.act()
            together = True
        finally:
            stop.end()
            # shards are saved by all processes: not where one of them has failed alone
            if together and self.training.steady:
                self._save()
            if self.board is not None:
                self.board.close()
            if self.training.step < self.training.options.steps and distributed.first():
                self._report("This run has not come to its end yet.")

    def _logged(self, loss: Callable[[Draw], Tensor], stop: Stop) -> Iterator[FitStep]:
        """The steps of ``fit``, with a row of the log for every 20 and for the last."""
        started, losses, skipped = time.perf_counter(), [], 0
        steps = fit(self.training, loss)
        while True:
            stop.stepping = True
            step = next(steps, None)
            stop.stepping = False
            if step is None:
                return
            losses.append(step.loss)
            skipped += step.skipped
            if step.index % LOG_EVERY == LOG_EVERY - 1 or step.index + 1 == step.steps:
                row = {
                    "step": step.index + 1,
                    "loss": step.loss,
                    "mean_loss": sum(losses) / len(losses),
                    "lr": step.lr,
                    "gradient_norm": step.gradient_norm,
                    "samples_per_second": round(step.samples_per_second, 1),
                    "seconds": round(time.perf_counter() - started, 1),
                }
                self._write(row | ({"skipped": skipped} if skipped else {}))
                losses, skipped = [], 0
            yield replace(step, noted=self.noted)

    def _save(self) -> None:
        if self.saved != self.training.step:
            self.training.save(self.state)
            self.saved = self.training.step

    def _hold(self) -> None:
        """Refuse a second training in this folder until this one has ended.

        Raises:
            DataError: another process trains here.
        """
        try:
            self.held_folder = Held(self.folder)
        except BlockingIOError:
            raise DataError(
                f"{self.folder}: another training is at work in this folder; wait for it, or give "
                "this one another `out`"
            ) from None

    def _release(self) -> None:
        if self.held_folder is not None:
            self.held_folder.release()
            self.held_folder = None

    def due(self, every: int) -> bool:
        """Whether something that happens every ``every`` steps, and at the end, is due now."""
        step = self.training.step
        return step == self.training.options.steps or (every > 0 and step % every == 0)

    def note(self, **values: float) -> None:
        """Log what was measured at this step; the report draws it as curves."""
        self.noted |= values
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

    def remark(self, *sentences: str) -> None:
        """Say something of the data: as a ``DataWarning``, in the log and in the report."""
        for sentence in dict.fromkeys(sentences):
            if planner := PLANNER.get():
                planner.notes.append(sentence)
            elif distributed.first():
                warnings.warn(sentence, DataWarning, stacklevel=2)
                self._write({"event": "data", "step": self.training.step, "said": sentence})
                self.text(sentence)

    def _tell(self) -> None:
        """Say the first time that a streamed picture cannot be read."""
        if self.streamed is not None and self.streamed.lost and not self.told:
            self.remark(*(f"so far, {sentence}" for sentence in self.streamed.remarks()))
            self.told = len(self.streamed.lost)

    def _tell_all(self) -> None:
        """Say what all processes together could not read, if that is more than was said."""
        if self.streamed is None:
            return
        for names in distributed.collect(list(self.streamed.lost)):
            self.streamed.lost.update(dict.fromkeys(names))
        if len(self.streamed.lost) > self.told:
            self.remark(*self.streamed.remarks())

    def finish(self, **parts: nn.Module) -> None:
        """Write each trained part as safetensors with its configuration, the facts, the report."""
        if not distributed.first():
            return
        for name, module in parts.items():
            path = self.folder / f"{name}.safetensors"
            write_state(path, module.state_dict(), {"config": to_dict(module.config)})
        with atomic_write(self.folder / "run.json") as file:
            file.write(json.dumps(self._facts(), indent=2, default=str).encode())
        self._report()

    def _facts(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "config": to_dict(self.config), **machine()}

    def _report(self, note: str = "") -> None:
        path = self.folder / "report.html"
        try:
            self.report.write(path, self.rows(), self._facts(), note)
        except OSError as error:
            refuse_if_full(error, path, 0)
            raise

    def rows(self) -> list[dict[str, Any]]:
        """The log so far; a last line that a full disk has cut short is left out."""
        rows = []
        if self.log.is_file():
            for line in foreign.read_text(self.log, DataError, MAX_LOG).splitlines():
                with contextlib.suppress(ValueError):
                    rows.append(json.loads(line))
        return rows

    def _forget_after(self, step: int) -> None:
        """Drop log rows past the saved state: they are about to be written again."""
        kept = [row for row in self.rows() if row["step"] <= step]
        with atomic_write(self.log) as file:
            file.write("".join(json.dumps(row) + "\n" for row in kept).encode())

    def _write(self, row: dict[str, Any]) -> None:
        if not distributed.first():
            return
        try:
            with on_disk(self.log), self.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        except OSError as error:
            refuse_if_full(error, self.log, 0)
            raise
        if self.board is not None:
            self.board.write(row)


def machine() -> dict[str, Any]:
    """Where a run happens."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }
