"""``darkroom inspect``: what a model file, a model folder or a picture is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.terminal import bytes_text, show, table, waiting

EXAMPLES = """Examples:

darkroom inspect v1-5-pruned-emaonly.safetensors

darkroom inspect pictures/00001-a-red-apple-1.png --json

darkroom inspect sdxl --layers --depth 2 --size 1024x768
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("inspect", epilog=EXAMPLES + "\n" + EXIT_CODES)(inspect)


def inspect(
    ctx: typer.Context,
    path: Annotated[
        str, typer.Argument(metavar="FILE|FOLDER|PICTURE|NAME", help="What to look at.")
    ],
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Every block: shapes, parameters, FLOPs. Also of sd15, sdxl, mnist, ...",
        ),
    ] = False,
    depth: Annotated[
        int | None, typer.Option(min=0, show_default="4", help="With --layers: how deep to look.")
    ] = None,
    size: Annotated[
        Any,
        typer.Option(
            parser=values.size, metavar="WxH", help="With --layers: the picture. Default: usual."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what a file is, from its header alone; or how a picture was drawn.

    No weight is read and no code in the file runs.
    """
    from darkroom.weights.inspect import inspect as inspect_path

    answer: Answer = ctx.obj
    if layers:
        answer.fields |= _layers(path, 4 if depth is None else depth, size, not json)
        return
    if depth is not None or size is not None:
        raise usage("goes with --layers", "--depth" if depth is not None else "--size")
    place = _place(path)
    answer.fields |= inspect_path(place).summary()
    if answer.fields["kind"] == "picture":
        answer.fields["params"] = _parameters(place, answer)
    if not json:
        table(("", path), rows(answer.fields))


def _place(path: str) -> Path:
    """The path itself, or where a model of that name lies."""
    from darkroom.app.found import found_models
    from darkroom.errors import ModelNotFoundError
    from darkroom.foreign import near
    from darkroom.names import did_you_mean
    from darkroom.weights.shelves import one_called, open_shelves

    place = Path(path).expanduser()
    if place.exists():
        return place
    models = {model.name: model.path for model in found_models()}
    if path in models:
        return models[path]
    if shelved := one_called(path, open_shelves().found, lambda shelved: True):
        return shelved.path
    raise ModelNotFoundError(
        f"{path}: no such file, folder or model{did_you_mean(path, models) or near(place)}; check "
        "the path"
    )


def _layers(name: str, depth: int, size: tuple[int, int] | None, print_it: bool) -> dict[str, Any]:
    """Every network of a model as a tree; ``name`` may be an architecture without a file."""
    from darkroom import foreign
    from darkroom.errors import CheckpointError, ModelNotFoundError
    from darkroom.names import did_you_mean
    from darkroom.weights.inspect.layers import architectures, networks_called, networks_of

    with waiting(f"looking into {name}"):
        try:
            networks = networks_of(_place(name), size)
        except ModelNotFoundError as error:
            networks = networks_called(name, size)
            if networks is None:
                known = architectures()
                raise ModelNotFoundError(
                    f"{error}, or name an architecture ({', '.join(known)})"
                    f"{did_you_mean(name, known)}"
                ) from None
    parts = []
    for network in networks:
        with foreign.understood(name, CheckpointError):
            found = network.trace(depth)
        parts.append({"part": network.part, "blocks": [_plain(block) for block in found]})
        if print_it:
            show(f"{network.part}\n{found}\n")
    return {"networks": parts}


def _plain(block: Any) -> dict[str, Any]:
    return {
        "name": block.name,
        "class": block.kind,
        "inputs": [value.shape for value in block.inputs],
        "outputs": [value.shape for value in block.outputs],
        "parameters": block.parameters,
        "flops": block.flops,
        "calls": block.calls,
    }


def _parameters(picture: Path, answer: Answer) -> dict[str, Any] | None:
    """How a picture was drawn; None, and a note, if it does not say."""
    from darkroom.errors import ConfigError
    from darkroom.generation.metadata import read_params

    try:
        return read_params(picture).to_plain()
    except ConfigError as error:
        answer.fields["notes"] = [*answer.fields.get("notes", ()), str(error)]
        return None


def rows(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of every field that says something; nested ones with a dotted name."""
    found = []
    for name, value in fields.items():
        if value in (None, "", [], {}, ()) or value is False or name == "path":
            continue
        if name == "params":
            found += [(key, _text(key, said)) for key, said in drawn(value).items()]
        elif isinstance(value, dict):
            found += rows(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name.replace("_", " "), _text(name, value)))
    return found


def drawn(params: dict[str, Any]) -> dict[str, Any]:
    """What people want to know of a picture's parameters."""
    seeds, index = params["seeds"], params["index"]
    height, width = params["size"]
    batch = f" (picture {index + 1} of a batch of {len(seeds)})" if len(seeds) > 1 else ""
    image = params["image"] or {}
    told = {
        "prompt": params["prompt"],
        "negative": params["negative"],
        "seed": f"{seeds[index]}{batch}",
        "size": f"{width}x{height}" if width else "",
        "steps": params["steps"],
        "sampler": params["sampler"],
        "spacing": params["spacing"],
        "timesteps": ", ".join(map(str, params["timesteps"])),
        "options": ", ".join(f"{k}={v}" for k, v in params["options"].items()),
        "guidance": params["guidance"],
        "rescale": params["rescale"],
        "strength": image.get("strength"),
        "clip skip": params["clip_skip"] + 1 if params["clip_skip"] else None,
        "refiner": (params["refiner"] or {}).get("name"),
        "model": params["model"],
        "dtype": params["dtype"],
        "drawn with": f"darkroom {params['darkroom']}" if params["darkroom"] else "",
        **drawn_elsewhere(params["origin"] or {}),
        "notes": params["notes"],
    }
    return {name: value for name, value in told.items() if value not in (None, "", 0, [], {})}


def drawn_elsewhere(origin: dict[str, Any]) -> dict[str, Any]:
    """The same, of the program that drew it; nothing where that was Darkroom."""
    return {
        "drawn by": origin.get("program"),
        "not reproduced": origin.get("missing"),
        "to be decided": list(origin.get("questions", {}).values()),
    }


def _text(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = _printable(", ".join(map(str, value[:12])))
        return f"{shown}, and {len(value) - 12} more" if len(value) > 12 else shown
    if name in ("bytes", "file_size") and isinstance(value, int):
        return f"{bytes_text(value)} ({value:,} bytes)"
    if isinstance(value, int) and value > 99_999:
        return f"{value:,}"
    return _printable(str(value))


def _printable(text: str) -> str:
    """A stranger's text, without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
