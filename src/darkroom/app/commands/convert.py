"""``darkroom models convert`` and ``merge``."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer
from darkroom.app.progress import Progress
from darkroom.app.terminal import bytes_text, say
from darkroom.text.prompt import LoraRequest

if TYPE_CHECKING:
    from darkroom.weights.convert import Step

JSON = typer.Option("--json", help="One JSON object on stdout.")
FORCE = typer.Option("--force", help="Replace what is there.")
DTYPE = typer.Option(metavar="NAME", help="fp16, bf16 or fp32. Default: as stored.")
PREDICTION = typer.Option(
    metavar="NAME", help="Of an SD 2 file that does not say it: noise or velocity."
)
RATIO = typer.Option(min=-10, max=10, help="How much of B, or of the difference.")
PART = typer.Option(min=-10, max=10, help="Of this part, in place of --ratio.")


def add_to(parent: typer.Typer) -> None:
    """Register both verbs."""
    parent.command(
        "convert",
        epilog="Examples:\n\ndarkroom models convert ./sd15 sd15.safetensors --dtype fp16\n\n"
        "darkroom models convert old.ckpt ./folder\n\n"
        f"darkroom models convert ./sd15 ./half --dtype fp16 --variant fp16\n\n{EXIT_CODES}",
    )(convert)
    parent.command(
        "merge",
        epilog="Examples:\n\ndarkroom models merge a.safetensors b.safetensors --ratio 0.3 "
        "--out ab.safetensors\n\ndarkroom models merge sd15-inpainting dreamy sd15 "
        f"--method difference --ratio 1 --out dreamy-inpainting.safetensors\n\n{EXIT_CODES}",
    )(merge)


def convert(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            autocompletion=values.complete_model, help="A name, a file, a folder or hf:OWNER/NAME."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="A folder, or a name ending .safetensors.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="diffusers, single or darkroom; a LoRA: kohya, diffusers or peft; a textual "
            "inversion: a1111 or diffusers. Default: what TARGET looks like.",
        ),
    ] = None,
    dtype: Annotated[str | None, DTYPE] = None,
    ema: Annotated[
        str, typer.Option(metavar="WHAT", help="Averaged weights in a file: use, drop or keep.")
    ] = "use",
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that a LoRA is for.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name a folder's weights so, such as fp16.")
    ] = None,
    prediction: Annotated[str | None, PREDICTION] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a CLIP file that does not say it: quick_gelu or gelu."
        ),
    ] = None,
    force: Annotated[bool, FORCE] = False,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Write a model in another form: a diffusers folder, one file, other numbers.

    Tensors are renamed and reshaped, never changed, unless --dtype says so.
    """
    from darkroom.weights import convert as weights

    target = target.expanduser()
    steps = weights.convert(
        source,
        target,
        to=to,
        dtype=dtype,
        ema=ema,
        base=base,
        variant=variant,
        prediction=prediction,
        activation=activation,
        force=force,
    )
    _follow(ctx.obj, "converting", target, steps)


def merge(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C]", autocompletion=values.complete_model, help="Names, files or folders."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="A folder, or a name ending .safetensors.")
    ],
    ratio: Annotated[float, RATIO] = 0.3,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="weighted: (1 - ratio) A + ratio B; difference: A + ratio (B - C).",
        ),
    ] = "weighted",
    unet_ratio: Annotated[float | None, PART] = None,
    text_ratio: Annotated[float | None, PART] = None,
    vae_ratio: Annotated[float | None, PART] = None,
    lora: Annotated[
        list[LoraRequest] | None,
        typer.Option(
            parser=values.lora, metavar="NAME:WEIGHT", help="Write a LoRA into it; repeatable."
        ),
    ] = None,
    dtype: Annotated[str | None, DTYPE] = None,
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Of files that hold both: averaged weights.")
    ] = True,
    prediction: Annotated[str | None, PREDICTION] = None,
    force: Annotated[bool, FORCE] = False,
    json: Annotated[bool, JSON] = False,
) -> None:
    """Merge two models, add the difference of two to a third, or write LoRAs into one.

    An inpainting model goes first: its further channels stay its own.
    """
    from darkroom.weights import convert as weights

    out = out.expanduser()
    given = {"unet": unet_ratio, "text": text_ratio, "vae": vae_ratio}
    recipe = weights.Recipe(
        ratio=ratio,
        method=method,
        ratios={part: value for part, value in given.items() if value is not None},
        loras=[(one.name, one.unet) for one in lora or ()],
    )
    steps = weights.merge(
        models, out, recipe, dtype=dtype, ema=ema, prediction=prediction, force=force
    )
    _follow(ctx.obj, "merging", out, steps)


def _follow(answer: Answer, title: str, target: Path, steps: "Iterator[Step]") -> None:
    """Take every step, with a bar for each thing that is gone through."""
    notes: list[str] = []
    with closing(steps):  # type: ignore[type-var]
        step: Step | None = next(steps)
        total = step.total
        while step is not None:
            hashing = step.file.startswith("hashing")
            with Progress(step.file if hashing else title, step.total, "bytes") as bar:
                while step is not None and step.file.startswith("hashing") == hashing:
                    for note in step.notes:
                        say(f"note: {note}")
                        notes.append(note)
                    if step.done > bar.done:
                        bar.advance(step.done - bar.done, "" if hashing else step.file)
                    total, step = step.total, next(steps, None)
    answer.fields |= {"path": str(target), "size": total, "notes": notes}
    say(f"wrote {target}: {bytes_text(total)}")
