"""What a recipe would do: it is run up to its training loops, which are measured and left out.

A recipe needs nothing for this: while ``PLANNER`` is set, ``Run.steps`` hands its loop to the
planner and yields nothing. ``out`` is a temporary folder meanwhile, so whatever a recipe writes
before or between its stages is thrown away.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.errors import CheckpointError, DataError
from darkroom.training.data import open_data
from darkroom.training.fit import Draw, FitOptions, Training, fit
from darkroom.training.saving import read_facts

MEASURED = 3  # steps; the first warms up
PATIENCE = 30.0  # seconds; a first step that takes longer is the only one
PLANNER: ContextVar["Planner | None"] = ContextVar("PLANNER", default=None)


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies at a path of the configuration."""

    path: str
    kind: str
    items: int
    classes: int
    captioned: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training loop. Sizes in bytes."""

    folder: str  # inside ``out``
    parameters: dict[str, int]  # of each part of the network
    trained: int  # parameters
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int  # kept for the backward pass: measured
    data: int  # pictures or latents that are in memory all the time
    steps: int
    done: int  # steps that an earlier run has left
    batch: int
    seconds_per_step: float  # measured

    @property
    def memory(self) -> int:
        """All of it together."""
        state = self.weights + self.gradients + self.optimizer + self.average
        return state + self.activations + self.data

    @property
    def seconds(self) -> float:
        """Expected, for the steps that are left."""
        return self.seconds_per_step * max(self.steps - self.done, 0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is, and what a run would cost."""

    data: list[Found]
    stages: list[Stage]
    preparation: float  # seconds before and between the stages
    device: str
    notes: list[str]


class Planner:
    """Collects the stages of one recipe."""

    def __init__(self, real: Path | None, temporary: Path, expected: int) -> None:
        self.real, self.temporary, self.expected = real, temporary, expected
        self.stages: list[Stage] = []
        self.notes: list[str] = []
        self.measuring = 0.0  # seconds

    def record(
        self, folder: Path, training: Training, loss: Callable[[Draw], Tensor], data: int
    ) -> None:
        """Measure a training loop that holds ``data`` bytes; the last one ends the recipe."""
        started = time.perf_counter()
        within = self.real and folder.is_relative_to(self.temporary)
        inside = folder.relative_to(self.temporary) if within else folder
        self.stages.append(_measured(str(inside), training, loss, data, self._done(inside)))
        self.measuring += time.perf_counter() - started
        if len(self.stages) >= self.expected:
            raise Enough

    def _done(self, inside: Path) -> int:
        """How far an earlier run got."""
        if not self.real or not (state := self.real / inside / "state.safetensors").is_file():
            return 0
        try:
            return int(read_facts(state)["step"])
        except (CheckpointError, KeyError, TypeError, ValueError):
            return 0  # the run itself will say what is wrong with it


class Enough(BaseException):
    """Ends a recipe whose last training loop has been seen; no recipe may swallow it."""


def plan(train: Callable[[Any], Iterator[Any]], config: Any, stages: int | None = None) -> Plan:
    """Run ``train(config)`` up to and between its training loops.

    Args:
        stages: its training loops; default: one for each ``FitOptions`` of the configuration.

    Raises:
        DarkroomError: whatever keeps the recipe from its first loop.
    """
    expected = len(list(_fits(config))) if stages is None else stages
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="darkroom-plan-") as folder:
        real = getattr(config, "out", None)
        planner = Planner(real, Path(folder), max(expected, 1))
        notes = planner.notes
        moved = dataclasses.replace(config, out=Path(folder)) if real else config
        token = PLANNER.set(planner)
        try:
            for _ in train(moved):
                pass
        except Enough:
            pass
        except Exception as error:
            if not planner.stages:
                raise
            # a later stage may need what only a trained earlier one gives
            notes.append(f"what follows was not reached ({error})")
        finally:
            PLANNER.reset(token)
    seconds = time.perf_counter() - started - planner.measuring
    device = str(next(_fits(config), FitOptions()).place)
    return Plan(list(_data(config, notes)), planner.stages, seconds, device, notes)


def _measured(
    folder: str, training: Training, loss: Callable[[Draw], Tensor], data: int, done: int
) -> Stage:
    model, options = training.model, training.options
    parameters = {name: _count(child) for name, child in model.named_children()}
    rest = _count(model) - sum(parameters.values())
    if rest > 0:
        parameters["itself"] = rest
    trained = sum(p.numel() for p in training.parameters)
    size = sum(p.nbytes for p in training.parameters)
    held = [*model.parameters(), *model.buffers()]
    kept, times = Kept(held), []
    steps = fit(training, loss)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        times += _timed(steps, 1)
    if times and times[0] < PATIENCE:
        times += _timed(steps, MEASURED - 1)
    if hasattr(steps, "close"):
        steps.close()  # pyright: ignore[reportAttributeAccessIssue]
    return Stage(
        folder,
        parameters,
        trained,
        weights=sum(tensor.nbytes for tensor in held),
        gradients=size,
        optimizer=2 * size,  # Adam's two moments
        average=sum(tensor.nbytes for tensor in training.average),
        activations=kept.most,
        data=data,
        steps=options.steps,
        done=min(done, options.steps),
        batch=options.batch,
        seconds_per_step=statistics.median(times[1:] or times or [0.0]),
    )


def _timed(steps: Iterator[Any], count: int) -> list[float]:
    times, started = [], time.perf_counter()
    for _ in itertools.islice(steps, count):
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
    return times


class Kept:
    """Counts the memory that autograd keeps for the backward pass, without the weights."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.not_counted = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.counts: dict[int, int] = {}
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in self.not_counted:
            if not self.counts.get(place):
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
            self.counts[place] = self.counts.get(place, 0) + 1
        return tensor.detach()

    def unpack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if self.counts.get(place):
            self.counts[place] -= 1
            self.now -= 0 if self.counts[place] else storage.nbytes()
        return tensor


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _fits(config: Any) -> Iterator[FitOptions]:
    """The training loops that a configuration speaks of."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, FitOptions):
            if value.steps:
                yield value
        elif dataclasses.is_dataclass(value):
            yield from _fits(value)


def _data(config: Any, notes: list[str]) -> Iterator[Found]:
    """What lies at ``data`` and its like."""
    for field in dataclasses.fields(config):
        path = getattr(config, field.name)
        if isinstance(path, Path) and field.name.split("_")[0] == "data":
            try:
                found = open_data(path)
            except DataError as error:
                notes.append(str(error))
                continue
            yield Found(str(path), found.kind, len(found), len(found.classes), found.captioned)
