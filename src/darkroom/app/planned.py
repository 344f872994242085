"""The plan of a training run, in words and as JSON."""

import dataclasses
from typing import TYPE_CHECKING, Any

from darkroom.app.terminal import bytes_text, say, seconds_text, table

if TYPE_CHECKING:
    from darkroom.recipes.running.planning import Plan, Stage


def fields(plan: "Plan") -> dict[str, Any]:
    """JSON-ready: sizes in bytes, times in seconds."""
    stages = [
        dataclasses.asdict(stage) | {"memory": stage.memory, "seconds": stage.seconds}
        for stage in plan.stages
    ]
    return dataclasses.asdict(plan) | {"stages": stages}


def show(plan: "Plan", name: str) -> None:
    """A table on stdout; what deserves a warning on stderr."""
    rows = [("data", f"{found.path}: {_data(found)}") for found in plan.data]
    for number, stage in enumerate(plan.stages, 1):
        title = f"stage {number}: " if len(plan.stages) > 1 else ""
        rows += [(title + what, text) for what, text in stage_rows(stage)]
    total = plan.preparation + sum(stage.seconds for stage in plan.stages)
    rows.append(("preparation", f"{seconds_text(plan.preparation)} (measured)"))
    rows.append(("in all", f"{seconds_text(total)} on {plan.device}, without evaluation"))
    table(("", name), rows)
    for note in plan.notes:
        say(f"note: {note}", "yellow")
    _warn_of_memory(plan)


def stage_rows(stage: "Stage") -> list[tuple[str, str]]:
    """(what, text) of one training loop."""
    parts = ", ".join(f"{name} {count:,}" for name, count in stage.parameters.items())
    fixed = sum(stage.parameters.values()) - stage.trained
    frozen = f"; {fixed:,} of them not trained" if fixed > 0 else ""
    memory = {
        "weights": stage.weights,
        "gradients": stage.gradients,
        "Adam": stage.optimizer,
        "average": stage.average,
        "activations": stage.activations,
        "data": stage.data,
    }
    shares = ", ".join(f"{name} {bytes_text(size)}" for name, size in memory.items() if size)
    left = f", {stage.done:,} of them done" if stage.done else ""
    return [
        ("parameters", f"{sum(stage.parameters.values()):,} ({parts}){frozen}"),
        ("memory", f"{bytes_text(stage.memory)} ({shares})"),
        ("steps", f"{stage.steps:,} of {stage.batch} samples{left}"),
        (
            "time",
            f"{seconds_text(stage.seconds)} ({1000 * stage.seconds_per_step:,.0f} ms a step, "
            f"measured: {stage.batch / max(stage.seconds_per_step, 1e-9):,.1f} samples/s)",
        ),
    ]


def _data(found: Any) -> str:
    classes = f", {found.classes} classes" if found.classes else ""
    return f"{found.items:,} items ({found.kind}){classes}{', captions' * found.captioned}"


def _warn_of_memory(plan: "Plan") -> None:
    from darkroom.machine import memory

    most = max((stage.memory for stage in plan.stages), default=0)
    free = memory()
    if plan.device == "cpu" and free and free.available and most > free.available:
        say(
            f"note: {bytes_text(most)} are needed and {bytes_text(free.available)} are free; "
            "lower fit.batch or raise fit.accumulate",
            "yellow",
        )
