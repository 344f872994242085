"""``darkroom train``: run a recipe, watch it, stop it and go on later."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import planned, values
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.terminal import say, seconds_text, table, waiting

EXAMPLES = """Examples:

darkroom train emoji.toml --data noto-emoji --out runs/emoji

darkroom train my-recipe.toml --dry-run

darkroom train my-recipe.toml --set fit.steps=100 --set fit.lr=3e-4
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("train", epilog=EXAMPLES + "\n" + EXIT_CODES)(train)


def train(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG.toml", help="What to train: a file, or the name of one that ships."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The data, over what the file says.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to, over what the file says.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any field, over what the file says: fit.steps=100."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what there is and what it would cost, by three steps that are thrown away.",
        ),
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List the recipes that ship, a line each.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Train what CONFIG.toml describes, with the losses on show.

    Ctrl-C saves and exits with 130; the same command goes on from there, with the same losses.
    """
    import darkroom.recipes as recipes
    from darkroom.acceleration import keep_freed_memory

    answer: Answer = ctx.obj
    if listed or config is None:
        if config is not None:
            raise usage("lists recipes, and trains none; leave CONFIG.toml out", "--list")
        if not listed:
            raise usage("which recipe? give CONFIG.toml; `darkroom train --list` lists them")
        answer.fields["recipes"] = recipes.shipped()
        if not json:
            table(("RECIPE", "WHAT IT TRAINS"), answer.fields["recipes"].items())
        return
    keep_freed_memory()
    path = recipe_file(config)
    overrides = {"data": data, "out": out}
    given = {name: str(value) for name, value in overrides.items() if value is not None}
    check_data(recipes.read(path, given, changes or ())[1])
    answer.fields["config"] = str(path)
    if dry_run:
        with waiting("measuring three steps of each training loop"):
            plan = recipes.plan(path, given, changes or ())
        answer.fields |= {"dry_run": True} | planned.fields(plan)
        if not json:
            planned.show(plan, config.name)
        say("nothing was trained (--dry-run)")
        return
    steps = recipes.run(path, given, changes or ())
    with noting():
        watch(steps, answer, config.name)


def check_data(config: Any) -> None:
    """Where the data of a recipe are not here and are a public set, say how to bring it.

    Raises:
        DataError: so it is.
    """
    from darkroom.errors import DataError
    from darkroom.training.data.public import SETS

    data = getattr(config, "data", None)
    if not isinstance(data, Path) or data.exists():
        return
    for one in SETS:
        if data.name in one.made:
            bring = f"bring it: `darkroom data fetch {one.name}"
            bring += f" --out {data.parent}`" if data.parent != Path("data") else "`"
            raise DataError(
                f"{data}: is not here; {one.how or bring}, or say where it is with --data"
            )


def recipe_file(config: Path) -> Path:
    """The file itself, or the one that ships under that name, with or without its ending.

    Raises:
        ModelNotFoundError: there is neither; with the nearest names.
    """
    import darkroom.recipes as recipes
    from darkroom.errors import ModelNotFoundError
    from darkroom.names import did_you_mean

    folder = Path(recipes.__file__).parent
    for path in (config, folder / config.name, folder / f"{config.name}.toml"):
        if path.is_file():
            return path
    if config.is_dir():
        raise ModelNotFoundError(f"{config}: is a folder, expected a recipe; see `train --list`")
    near = did_you_mean(config.name, [*recipes.shipped(), *values.neighbours(config)])
    raise ModelNotFoundError(f"{config}: no such file or recipe{near}; see `darkroom train --list`")


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Show what is to be said of the data as notes, and other warnings as ever."""
    from darkroom.errors import DataWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        ordinary = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, DataWarning):
                say(f"note: {message}", "yellow")
            else:
                ordinary(message, category, *rest, **named)

        warnings.showwarning = show
        yield


def watch(steps: Any, answer: Answer, name: str) -> None:
    """Advance a training run to its end; on Ctrl-C let it save, then end with 130.

    Of several processes, the first one speaks.
    """
    from darkroom.app.training_view import TrainingView
    from darkroom.errors import CancelledError
    from darkroom.training import distributed

    view: TrainingView | None = None
    last, speaks, failed = None, distributed.first(), False
    try:
        with contextlib.ExitStack() as stack:
            for step in steps:
                if not speaks:
                    continue
                if view is None or (last and step.index <= last.index):  # there may be stages
                    stack.close()
                    view = stack.enter_context(TrainingView(name, step))
                    if step.index:
                        view.say(f"going on after step {step.index} of {step.steps}")
                last = step
                view.show(step)
    except (KeyboardInterrupt, CancelledError):
        raise
    except BaseException:  # its own line says all
        failed = True
        raise
    finally:
        close(steps)  # lets the run save, whatever ended it
        if last is not None and view is not None and not failed:
            answer.fields |= {
                "step": last.index + 1,
                "steps": last.steps,
                "loss": last.loss,
                "mean_loss": view.loss,
                "seconds": round(view.elapsed, 1),
                **({"noted": dict(last.noted)} if last.noted else {}),
            }
            state = "done" if last.index + 1 == last.steps else "saved; go on with the same command"
            say(
                f"{name}: step {last.index + 1} of {last.steps}, loss {view.loss:.4f}, "
                f"{seconds_text(view.elapsed)}; {state}"
            )
    if last is None and speaks:
        say(f"{name}: already trained to its end")


def close(steps: Any) -> None:
    """End a generator early, running its ``finally``."""
    if hasattr(steps, "close"):
        steps.close()
