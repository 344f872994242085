"""``darkroom grid``: one prompt under many settings, side by side."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.drawing.checking import check_adapters, check_model
from darkroom.app.drawing.request import Request
from darkroom.app.drawing.saving import prompt_texts
from darkroom.app.drawing.styles import available, chosen
from darkroom.app.grid.axes import NAMES, NOTHING, Axis, against, axis
from darkroom.app.grid.cells import COLUMNS, Cell, cells, drawn
from darkroom.app.options import drawing as options
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.output import TEMPORARY, check_place, slug, write_new
from darkroom.app.terminal import say, seconds_text, show
from darkroom.atomic import sweep

EXAMPLES = """Examples:

darkroom grid "a red fox" --x steps=10,20,30 --y guidance=3..9/3

darkroom grid "a red fox" --ab "photorealistic, cinematic" --y seed=1,2,3,4

darkroom grid "a red fox" --x replace=fox,cat,owl --y style=none,cinematic,sketch

darkroom grid "a fox" --x lora:film-grain=0..1/0.25 --y model=sd15,sdxl --dry-run
"""
MOST = 10_000  # cells
AXES = "Axes"


def _axis(which: str) -> Any:
    return typer.Option(
        f"--{which}", metavar="NAME=VALUES", help=f"The {which} axis.", rich_help_panel=AXES
    )


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("grid", epilog=EXAMPLES + "\n" + EXIT_CODES)(grid)


def grid(
    ctx: typer.Context,
    prompt: options.Prompt = None,
    x: Annotated[str | None, _axis("x")] = None,
    y: Annotated[str | None, _axis("y")] = None,
    z: Annotated[str | None, _axis("z")] = None,
    ab: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="As --x: the prompt as it is, and with these words after it.",
            rich_help_panel=AXES,
        ),
    ] = None,
    model: options.Model = None,
    negative: options.Negative = None,
    size: options.Size = None,
    seed: Annotated[
        Any,
        typer.Option(
            metavar="N",
            parser=values.seed,
            help="Of every picture. Default: 0.",
            rich_help_panel=options.PICTURE,
        ),
    ] = None,
    image: options.Image = None,
    strength: options.Strength = None,
    lora: options.Loras = None,
    style: options.Styles = None,
    styles: options.StylesFile = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    spacing: options.Spacing = None,
    timesteps: options.Timesteps = None,
    guidance: options.Guidance = None,
    clip_skip: options.ClipSkip = None,
    refiner: options.Refiner = None,
    refiner_start: options.RefinerStart = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where grid.png, .html, .csv and cells/ go. Default: grids/ and the prompt.",
            rich_help_panel=options.FILES,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List the cells; draw nothing.", rich_help_panel=options.FILES
        ),
    ] = False,
    json: options.Json = False,
    no_mark: options.NoMark = False,
) -> None:
    """Draw PROMPT under many settings, side by side.

    The same command again goes on where it was interrupted: a cell that is there is not drawn anew.
    """
    texts = prompt_texts(prompt)
    known = available(styles)
    said = [x, y, z]
    if ab is not None and x is not None:
        raise usage("--ab is an x axis; put the other one on --y")
    if not (ab or any(said)):
        raise usage(f"give an axis, such as --x steps=10,20,30; NAME is one of {' '.join(NAMES)}")
    axes = [axis(text, known) if text else NOTHING for text in said]
    axes[0] = against(ab) if ab else axes[0]
    names = [found.name for found in axes if found.name not in ("", "replace")]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise usage(f"{doubled} is on two axes")
    if not texts:
        on_prompt = next((found for found in axes if found.name == "prompt" and not ab), None)
        if on_prompt is None:
            raise usage("give a PROMPT, or an axis of them: --x 'prompt=a fox,a cat'")
        texts = (on_prompt.values[0].label,)
    request = Request(
        prompts=texts,
        model=model,
        negative=negative,
        steps=steps,
        sampler=sampler,
        spacing=spacing,
        timesteps=timesteps,
        guidance=guidance,
        seed=0 if seed is None else seed,
        size=size,
        image=image,
        strength=strength,
        dtype=dtype,
        device=device,
        clip_skip=clip_skip,
        loras=tuple(lora or ()),
        refiner=refiner,
        refiner_start=refiner_start,
    )
    common = chosen(style or (), styles)
    found = cells(request, axes, common)
    if len(found) > MOST:
        raise usage(f"{len(found):,} cells; at most {MOST:,} are drawn")
    folder = Path(out).expanduser() if out else Path("grids") / (slug(texts[0]) or "grid")
    if folder.is_file():
        raise usage(f"{folder}: a file; a grid needs a folder", "--out")
    _check(found)
    known_cells = drawn(folder / "cells")
    todo = [cell for cell in found if cell.key not in known_cells]
    check_place(folder / "cells" / "cell.png")
    answer: Answer = ctx.obj
    answer.fields |= {"folder": str(folder), "drawn": 0, "reused": len(found) - len(todo)}
    if dry_run:
        _list(answer, found, axes, known_cells)
        return
    _draw(answer, todo, folder, mark=not no_mark)
    _write(answer, found, axes, folder, texts[0])


def _check(found: list[Cell]) -> None:
    """Refuse what is not there, before torch is imported; each model and LoRA once."""
    seen: set[Any] = set()
    for cell in found:
        request = cell.request
        names = request.model_name, request.refiner_name, request.lora_names
        if names not in seen:
            check_model(replace(request, model=request.model_name) if seen else request)
            check_adapters(request)
            seen.add(names)


def _list(answer: Answer, found: list[Cell], axes: list[Axis], known: dict[str, Path]) -> None:
    answer.fields["cells"] = []
    for cell in found:
        state = "drawn" if cell.key in known else "to draw"
        answer.fields["cells"].append({**_row(cell, cell.file), "state": state})
        if not answer.wanted:
            pairs = zip(axes, cell.labels, strict=True)
            places = "  ".join(f"{axis.name}={label}" for axis, label in pairs if axis.name)
            show(f"{places}  ({state})")
    say(f"{len(found)} cells, {len(found) - answer.fields['reused']} to draw")


def _draw(answer: Answer, todo: list[Cell], folder: Path, *, mark: bool) -> None:
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    sweep(folder / "cells", TEMPORARY)
    if answer.fields["reused"]:
        say(f"{answer.fields['reused']} cells are drawn already")
    if not todo:
        return
    from darkroom.app.grid.drawing import draw

    started = time.perf_counter()
    pictures = draw(todo)
    try:
        for cell, picture in pictures:
            with contextlib.suppress(FileExistsError):  # another process was quicker
                write_new(folder / "cells" / cell.file, picture.to_bytes("PNG", mark=mark))
            answer.fields["drawn"] += 1
            for note in picture.params.notes:
                say(f"{cell.file}: {note}", "yellow")
    finally:
        pictures.close()
        seconds = time.perf_counter() - started
        answer.fields["seconds"] = round(seconds, 3)
        count = answer.fields["drawn"]
        again = "" if count == len(todo) else "; the same command goes on from here"
        say(f"{count} of {len(todo)} cells in {seconds_text(seconds)}{again}")


def _write(answer: Answer, found: list[Cell], axes: list[Axis], folder: Path, title: str) -> None:
    from darkroom.app.grid import page, sheet

    known = drawn(folder / "cells")
    pictures = {cell.place: known[cell.key] for cell in found}
    paths = {kind: folder / f"grid.{kind}" for kind in ("png", "html", "csv")}
    rows = [
        _row(cell, pictures[cell.place].relative_to(folder).as_posix(), pictures[cell.place])
        for cell in found
    ]
    facts = {f"{key} {rows[0][key]}" for key in ("model", "steps", "sampler") if rows[0][key]}
    about = f"{len(found)} cells; {', '.join(sorted(facts))}. Each picture links to its file."
    sheet.write(paths["png"], title, axes, pictures)
    page.write(paths["html"], title, axes, pictures, about)
    page.write_table(paths["csv"], rows)
    answer.fields |= {kind: str(path) for kind, path in paths.items()}
    answer.fields["cells"] = rows
    if not answer.wanted:
        for path in paths.values():
            show(str(path))


def _row(cell: Cell, file: str, picture: Path | None = None) -> dict[str, Any]:
    """A line of the table: as asked for, and where there is a picture, as it was drawn."""
    request, (x, y, z) = cell.request, cell.labels
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"x": x, "y": y, "z": z, "file": file, "prompt": cell.prompt, "seed": cell.seed}
    row["model"] = request.model_name
    if picture is None:
        return row
    from darkroom.generation.metadata import read_params

    params = read_params(picture)
    height, width = params.size
    return row | {
        "negative": params.negative or "",
        "steps": params.steps,
        "sampler": params.sampler,
        "spacing": params.spacing or ",".join(map(str, params.timesteps)),
        "guidance": params.guidance,
        "width": width,
        "height": height,
        "strength": params.image.strength if params.image else "",
        "loras": " ".join(f"{lora.name}:{lora.weight:g}" for lora in params.loras),
        "styles": " ".join(params.styles),
        "refiner": params.refiner.name if params.refiner else "",
    }
