"""``darkroom generate``: from a prompt to picture files."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer, usage
from darkroom.app.output import SUFFIXES, Output, output
from darkroom.app.request import Request
from darkroom.app.terminal import is_live, say, seconds_text, show
from darkroom.errors import ModelNotFoundError
from darkroom.names import DEFAULT_MODEL

if TYPE_CHECKING:
    from darkroom.generation.metadata import Params
    from darkroom.generation.picture import Picture

EXAMPLES = """Examples:

darkroom generate "a red apple" --seed 1 --count 4

darkroom generate "a cat on a yellow background" --steps 30 --sampler dpmpp_2m --spacing karras

darkroom generate "the same, in winter" --image photo.jpg --strength 0.5 --out winter.png

darkroom generate "a fox in the snow" --model sd15.safetensors --lora film-grain:0.8

darkroom generate --from pictures/00001-a-red-apple-1.png --guidance 4

darkroom generate --prompts ideas.txt --count 2 --json
"""
PICTURE, RUN, FILES = "What to draw", "How to draw it", "Files and output"


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("generate", epilog=EXAMPLES + "\n" + EXIT_CODES)(generate)


def generate(
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(show_default=False, help="What to draw; '-' reads it from stdin."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help=f"A name (`darkroom models list`), file or folder. Default: {DEFAULT_MODEL}.",
            autocompletion=values.complete_model,
            rich_help_panel=PICTURE,
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What to move away from.", rich_help_panel=PICTURE),
    ] = None,
    size: Annotated[
        Any,
        typer.Option(
            metavar="WxH",
            parser=values.size,
            help="Width and height in pixels. Default: the model's.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    seed: Annotated[
        Any,
        typer.Option(
            metavar="N",
            parser=values.seed,
            help="Of the first picture; the next ones count up. Default: random.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000, metavar="N", help="Pictures per prompt.", rich_help_panel=PICTURE
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from this picture.", rich_help_panel=PICTURE),
    ] = None,
    strength: Annotated[
        Any,
        typer.Option(
            metavar="X",
            parser=values.strength,
            help="How far to leave --image: above 0, at most 1. Default: 0.6.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    lora: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="NAME:WEIGHT",
            parser=values.lora,
            help="Add a LoRA, by file or name; may be repeated. In a prompt: <lora:NAME:WEIGHT>.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    redraw: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PICTURE",
            help="Redraw this picture from its metadata; other flags override.",
            rich_help_panel=PICTURE,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts, one a line.", rich_help_panel=PICTURE),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, metavar="N", help="Noise levels to visit.", rich_help_panel=RUN
        ),
    ] = None,
    sampler: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            parser=values.sampler,
            autocompletion=values.complete_sampler,
            help=f"One of {' '.join(values.SAMPLER_NAMES)}. Default: the model's.",
            rich_help_panel=RUN,
        ),
    ] = None,
    spacing: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            parser=values.spacing,
            autocompletion=values.complete_spacing,
            help=f"One of {' '.join(values.SPACING_NAMES)}. Default: the model's.",
            rich_help_panel=RUN,
        ),
    ] = None,
    guidance: Annotated[
        Any,
        typer.Option(
            metavar="X",
            parser=values.guidance,
            help="How strictly to follow the prompt; 1 is off. Default: the model's.",
            rich_help_panel=RUN,
        ),
    ] = None,
    clip_skip: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=12,
            metavar="N",
            help="Read the text tower N layers from its end, as A1111 counts; 1 is the last.",
            rich_help_panel=RUN,
        ),
    ] = None,
    dtype: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            parser=values.dtype,
            autocompletion=values.complete_dtype,
            help="float32 (default on a CPU), float16 (default on CUDA) or bfloat16.",
            rich_help_panel=RUN,
        ),
    ] = None,
    device: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            parser=values.device,
            autocompletion=values.complete_device,
            help="cpu, cuda, cuda:N or mps. Default: the fastest there is.",
            rich_help_panel=RUN,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE|-",
            help="A folder, a file, or '-' for stdout. Nothing is ever overwritten.",
            rich_help_panel=FILES,
        ),
    ] = "pictures",
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=FILES)
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview", help="Show the picture forming, on a terminal.", rich_help_panel=FILES
        ),
    ] = False,
    no_mark: Annotated[
        bool,
        typer.Option(
            "--no-mark",
            help="Leave out the note that a machine made the picture.",
            rich_help_panel=FILES,
        ),
    ] = False,
) -> None:
    """Draw pictures of PROMPT.

    Pictures carry their parameters: --from draws one again. Paths go to stdout, progress to stderr.
    """
    if (prompt is not None) + (prompts is not None) > 1:
        raise usage("give a PROMPT or --prompts FILE, not both")
    said = Request(
        prompts=_prompts(prompt, prompts),
        model=model,
        negative=negative,
        steps=steps,
        sampler=sampler,
        spacing=spacing,
        guidance=guidance,
        seed=seed,
        count=count,
        size=size,
        image=image,
        strength=strength,
        dtype=dtype,
        device=device,
        clip_skip=clip_skip,
        loras=tuple(lora or ()),
    )
    target = None if out == "-" else output(out)
    pictures = len(said.prompts) * (count or 1)
    if target is None and json:
        raise usage("writes the picture to stdout, where --json would go; choose one", "--out -")
    if target is None and pictures > 1:
        raise usage(f"holds one picture, not {pictures}; give a folder", "--out -")
    if target is None and sys.stdout.isatty():
        raise usage("would write a picture to the terminal; redirect stdout", "--out -")
    if preview and not is_live():
        say("--preview: shows the picture on a terminal only")
    _draw(ctx.obj, said, redraw, target, preview=preview, mark=not no_mark)


def _prompts(prompt: str | None, file: Path | None) -> tuple[str, ...]:
    if file is not None:
        return values.prompts_file(file)
    if prompt == "-":
        return (sys.stdin.read().strip(),)
    return () if prompt is None else (prompt,)


def _draw(
    answer: Answer,
    said: Request,
    redraw: Path | None,
    target: Output | None,
    *,
    preview: bool,
    mark: bool,
) -> None:
    from darkroom.app.drawing import draw
    from darkroom.app.session import Session

    request = replace(said, redrawn=_params(redraw) if redraw else None).checked()
    _check_model(request)
    _check_loras(request)
    wanted = request.pictures
    answer.fields |= {"model": request.model_name, "pictures": []}
    started = time.perf_counter()
    pictures = draw(Session(), request, preview=preview)
    try:
        for picture in pictures:
            _save(answer, picture, target, mark)
    finally:
        pictures.close()
        done = len(answer.fields["pictures"])
        seconds = time.perf_counter() - started
        answer.fields["seconds"] = round(seconds, 3)
        if done or wanted > 1:
            say(f"{done} of {wanted} pictures in {seconds_text(seconds)}")


def _save(answer: Answer, picture: "Picture", target: Output | None, mark: bool) -> None:
    params = picture.params
    if target is None:
        sys.stdout.buffer.write(picture.to_bytes("PNG", mark=mark))
        sys.stdout.buffer.flush()
        path = "-"
    else:
        data = picture.to_bytes(SUFFIXES[target.suffix], mark=mark)
        path = str(target.save(data, params.prompt, params.seed))
        if not answer.wanted:
            show(path)
    for note in params.notes:
        say(f"{path}: {note}", "yellow")
    answer.fields["pictures"].append(
        {"path": path, "seed": params.seed, "params": params.to_plain()}
    )


def _params(picture: Path) -> "Params":
    values.existing(picture, "picture")
    from darkroom.generation.metadata import read_params

    return read_params(picture)


def _check_model(request: Request) -> None:
    """Refuse a model that is not there, before torch is imported; introduce the built-in one."""
    from darkroom.app.session import check_model_name

    try:
        check_model_name(request.model_name)
    except ModelNotFoundError as error:
        if request.model or not request.redrawn:
            raise
        raise ModelNotFoundError(
            f"--from: the picture was drawn by {request.model_name!r}, which is not found by that "
            f"name; say --model NAME|PATH ({error})"
        ) from None
    if not request.model and not request.redrawn:
        say(
            f"model: {DEFAULT_MODEL} (built in, small); for a real one: "
            "darkroom models pull hf:owner/name, then --model NAME"
        )


def _check_loras(request: Request) -> None:
    """Refuse a LoRA that is not there, is none, or is for another base, before torch is imported.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelMismatchError: it does not go with the model.
    """
    from darkroom.app.session import base_of
    from darkroom.weights.lora import check_base, check_kind, find_lora

    said = {lora.name for lora in request.loras}
    drawn = {lora.name for lora in request.redrawn.loras} if request.redrawn else set()
    for name in request.lora_names:
        try:
            path = find_lora(name)
        except ModelNotFoundError as error:
            if name in drawn - said:
                raise ModelNotFoundError(
                    f"--from: the picture was drawn with the LoRA {name!r}: {error}; "
                    "or say --lora PATH:WEIGHT"
                ) from None
            raise
        if base := check_kind(path):
            check_base(path, base, base_of(request.model_name))
