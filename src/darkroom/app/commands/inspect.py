"""``darkroom inspect``: what a model file, a model folder or a picture is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app.outcome import EXIT_CODES, Answer
from darkroom.app.output import SUFFIXES
from darkroom.app.terminal import bytes_text, table

EXAMPLES = """Examples:

darkroom inspect v1-5-pruned-emaonly.safetensors

darkroom inspect pictures/00001-a-red-apple-1.png --json
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("inspect", epilog=EXAMPLES + "\n" + EXIT_CODES)(inspect)


def inspect(
    ctx: typer.Context,
    path: Annotated[
        str, typer.Argument(metavar="FILE|FOLDER|PICTURE|NAME", help="What to look at.")
    ],
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what a file is, from its header alone; or how a picture was drawn.

    Nothing is loaded and no code in the file runs.
    """
    answer: Answer = ctx.obj
    place = _place(path)
    if place.suffix.lower() in SUFFIXES and not place.is_dir():
        answer.fields |= _picture(place)
    else:
        from darkroom.weights.inspect import inspect as inspect_file

        answer.fields |= plain(inspect_file(place))
    if not json:
        table(("", path), rows(answer.fields))


def _place(path: str) -> Path:
    """The path itself, or where a model of that name lies."""
    from darkroom.app.found import found_models
    from darkroom.errors import ModelNotFoundError
    from darkroom.names import did_you_mean

    place = Path(path).expanduser()
    if place.exists():
        return place
    models = {model.name: model.path for model in found_models()}
    if path in models:
        return models[path]
    raise ModelNotFoundError(
        f"{path}: no such file, folder or model{did_you_mean(path, models)}; check the path"
    )


def _picture(path: Path) -> dict[str, Any]:
    from darkroom.generation.metadata import read_params
    from darkroom.images import peek

    image = peek(path)
    size = f"{image.width}x{image.height}"
    head = {"kind": "picture", "path": str(path), "format": image.format, "pixels": size}
    return head | {"params": read_params(path).to_plain()}


def plain(report: Any) -> dict[str, Any]:
    """JSON-ready fields of a dataclass."""
    from darkroom.config import to_dict

    return to_dict(report)


def rows(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of every field that says something; nested ones with a dotted name."""
    found = []
    for name, value in fields.items():
        if value in (None, "", [], {}, ()):
            continue
        if isinstance(value, dict):
            found += rows(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name.replace("_", " "), _text(name, value)))
    return found


def _text(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = ", ".join(map(str, value[:12]))
        return f"{shown}, and {len(value) - 12} more" if len(value) > 12 else shown
    if name in ("bytes", "file_size") and isinstance(value, int):
        return f"{bytes_text(value)} ({value:,} bytes)"
    return f"{value:,}" if isinstance(value, int) and value > 99_999 else str(value)
