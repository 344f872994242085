"""``darkroom doctor``: the machine, the installation, the models, and what to do about problems."""

import sys
from typing import Annotated, Any

import typer

from darkroom.app.outcome import EXIT_CODES, Answer
from darkroom.app.terminal import bytes_text, paint, show, table, waiting

EXAMPLES = """Examples:

darkroom doctor

darkroom doctor --speed

darkroom doctor --json
"""
SHOWN = 12  # operations, unless all are asked for


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("doctor", epilog=EXAMPLES + "\n" + EXIT_CODES)(doctor)


def doctor(
    ctx: typer.Context,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed", help="Measure anew which operations are quickest here: half a minute."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what this machine offers, what is installed, what is quickest, and what to do.

    Ends with 0 when Darkroom is usable here, with 1 when it is not.
    """
    from darkroom.app.doctor import examine

    answer: Answer = ctx.obj
    if speed:
        with waiting("measuring"):
            answer.fields |= examine(measure=True)
    else:
        answer.fields |= examine()
    if not json:
        _print(answer.fields, every=speed)
    if not answer.fields["usable"]:
        raise typer.Exit(1)


def _print(facts: dict[str, Any], every: bool) -> None:
    torch, processor = facts["torch"], facts["processor"]
    lines = {
        "darkroom": f"{facts['darkroom']}, Python {facts['python']}, {facts['system']}",
        "processor": f"{processor['model']}, {processor['cores']} cores usable",
    }
    if torch:
        build = f"CUDA {torch['cuda']}" if torch["cuda"] else "CPU build"
        lines["torch"] = (
            f"{torch['version']} ({build}), {torch['threads']} threads, {torch['cpu_capability']}"
        )
        lines["devices"] = "; ".join(f"{d['name']}: {d['what']}" for d in torch["devices"])
        lines["default"] = f"{torch['default_device']}, {torch['default_dtype']}"
    if memory := facts["memory"]:
        lines["memory"] = (
            f"{bytes_text(memory['available'])} available of {bytes_text(memory['total'])}"
        )
    for name, place in facts["disk"].items():
        lines[f"disk ({name})"] = f"{bytes_text(place['free'])} free at {place['path']}"
    lines["extras"] = ", ".join(
        f"{name} {'yes' if here else 'no'}" for name, here in facts["extras"].items()
    )
    lines["models"] = ", ".join(model["name"] for model in facts["models"]) or "none"
    for name, text in lines.items():
        show(f"{paint(f'{name:14}', 'bold', sys.stdout)} {text}")
    _print_speed(facts["speed"], every)
    for problem in facts["problems"]:
        word = paint("problem" if problem["fatal"] else "note", "yellow", sys.stdout)
        show(f"{word}: {problem['what']}")
        show(f"  do: {problem['remedy']}")
    show("usable" if facts["usable"] else "not usable")


def _print_speed(speed: dict[str, Any], every: bool) -> None:
    """Which row each operation takes, and what it and PyTorch's take."""
    found = speed.get("operations", [])
    title = paint(f"{'speed':14}", "bold", sys.stdout)
    if not found:
        show(f"{title} nothing measured yet: `darkroom doctor --speed`, or the first picture, does")
        return
    other = sum(entry["row"] != next(iter(entry["seconds"])) for entry in found)
    show(
        f"{title} {len(found)} operations measured with {speed['conditions']['threads']} threads; "
        f"{other} take another row than PyTorch's, where it is {speed['margin']:g} times as fast"
    )
    rows = []
    for entry in found if every else found[:SHOWN]:
        plain, *_ = entry["seconds"].values()
        taken = entry["seconds"][entry["row"]]
        others = ", ".join(
            f"{row} {'-' if seconds is None else f'{seconds * 1e3:.2f}'}"
            for row, seconds in entry["seconds"].items()
        )
        rows.append((entry["operation"], entry["row"], f"{plain / taken:.2f}", others))
    table(("operation", "row", "times as fast", "milliseconds"), rows)
    if len(rows) < len(found):
        show(f"{len(found) - len(rows)} quicker ones are in --json; --speed measures anew")
