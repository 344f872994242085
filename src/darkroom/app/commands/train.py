"""``darkroom train``: run a recipe, watch it, stop it and go on later."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer
from darkroom.app.progress import Progress
from darkroom.app.terminal import say, seconds_text

EXAMPLES = """Examples:

darkroom train emoji.toml --dry-run

"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("train", epilog=EXAMPLES + "\n" + EXIT_CODES)(train)


def train(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to train.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and its data; train nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Train what CONFIG.toml describes, with the losses on show.

    Ctrl-C saves and exits with 130; the same command goes on from there, with the same losses.
    """
    values.existing(config, "file")
    from darkroom.recipes import run

    answer: Answer = ctx.obj
    steps = run(config)
    answer.fields["config"] = str(config)
    if dry_run:
        close(steps)
        answer.fields["dry_run"] = True
        say(f"{config} is in order; nothing was trained (--dry-run)")
        return
    watch(steps, answer, str(config))


def watch(steps: Any, answer: Answer, name: str) -> None:
    """Advance a training run to its end; on Ctrl-C let it save, then end with 130."""
    bar: Progress | None = None
    first = last = None
    loss = 0.0
    try:
        with contextlib.ExitStack() as stack:
            for step in steps:
                if bar is None:
                    first = step.index
                    bar = stack.enter_context(Progress("train", step.steps - first))
                    if first:
                        say(f"going on after step {first} of {step.steps}")
                last = step
                # a mean over about the last fifty steps: single losses jump too much to read
                weight = max(0.02, 1 / (step.index - first + 1))
                loss += weight * (step.loss - loss)
                bar.advance(1, f"loss {loss:.4f}, lr {step.lr:.2e}")
    finally:
        close(steps)  # lets the run save, whatever ended it
        if last is not None and bar is not None:
            answer.fields |= {
                "step": last.index + 1,
                "steps": last.steps,
                "loss": last.loss,
                "mean_loss": loss,
                "seconds": round(bar.elapsed, 1),
            }
            state = "done" if last.index + 1 == last.steps else "saved; go on with the same command"
            say(
                f"{name}: step {last.index + 1} of {last.steps}, loss {loss:.4f}, "
                f"{seconds_text(bar.elapsed)}; {state}"
            )
    if last is None:
        say(f"{name}: already trained to its end")


def close(steps: Any) -> None:
    """End a generator early, running its ``finally``."""
    if hasattr(steps, "close"):
        steps.close()
