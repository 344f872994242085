"""``darkroom bench``: how long each part of a generation takes on this machine."""

from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.outcome import EXIT_CODES, Answer
from darkroom.app.terminal import bytes_text, say, table
from darkroom.names import DEFAULT_MODEL

EXAMPLES = """Examples:

darkroom bench

darkroom bench --model sd15 --size 512x512 --repeat 3 --json
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("bench", epilog=EXAMPLES + "\n" + EXIT_CODES)(bench)


def bench(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH", autocompletion=values.complete_model, help="What to measure."
        ),
    ] = DEFAULT_MODEL,
    size: Annotated[
        Any,
        typer.Option(
            metavar="WxH", parser=values.size, help="Width and height. Default: the model's."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Steps of the whole picture.")
    ] = 4,
    repeat: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Times each part is measured.")
    ] = 3,
    dtype: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            parser=values.dtype,
            autocompletion=values.complete_dtype,
            help="float32, float16 or bfloat16.",
        ),
    ] = None,
    device: values.Device = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Time loading, text encoding, one U-Net call, decoding and a whole picture.

    Each is done once to warm up, then --repeat times; the median counts.
    """
    from darkroom.app.session import check_model_name

    check_model_name(model)
    from darkroom.app.timing import measure

    answer: Answer = ctx.obj
    answer.fields |= measure(model, size, steps, repeat, dtype, device, say)
    if json:
        return
    fields = answer.fields
    table(
        ("PART", "MEDIAN", "LEAST", "MOST"),
        [
            (name, *(f"{1000 * part[key]:,.1f} ms" for key in ("median", "least", "most")))
            for name, part in fields["parts"].items()
        ],
    )
    say(
        f"{fields['model']} at {fields['size']}, {fields['dtype']} on {fields['device']}, "
        f"{fields['threads']} threads, at most {bytes_text(fields['peak_memory'])} of memory"
    )
