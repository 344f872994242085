"""Arguments and options of ``darkroom control``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.options.drawing import PICTURE
from darkroom.names import ANNOTATOR_NAMES

HINT = "The hint, and how it acts"

Photo = Annotated[
    str | None,
    typer.Argument(
        metavar="PHOTO", show_default=False, help="What --kind is drawn from; none with --hint."
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"One of {' '.join(ANNOTATOR_NAMES)}. Default: canny.",
        rich_help_panel=HINT,
    ),
]
Hints = Annotated[
    list[Path] | None,
    typer.Option(
        "--hint",
        metavar="FILE",
        help="A picture that is a hint already; may be repeated, for the nets in order.",
        rich_help_panel=HINT,
    ),
]
Nets = Annotated[
    list[str] | None,
    typer.Option(
        "--net",
        metavar="NAME|PATH",
        autocompletion=values.complete_model,
        help="A control network; may be repeated. Default: emoji-edges, of the built-in model.",
        rich_help_panel=HINT,
    ),
]
Weights = Annotated[
    list[float] | None,
    typer.Option(
        "--weight",
        metavar="X",
        help="How strongly a net acts; may be repeated, in order. Default: 1.",
        rich_help_panel=HINT,
    ),
]
Starts = Annotated[
    list[float] | None,
    typer.Option(
        "--start",
        metavar="X",
        min=0,
        max=1,
        help="Where in the run a net begins to act; may be repeated. Default: 0.",
        rich_help_panel=HINT,
    ),
]
Ends = Annotated[
    list[float] | None,
    typer.Option(
        "--end",
        metavar="X",
        min=0,
        max=1,
        help="Where it stops; may be repeated. Default: 1.",
        rich_help_panel=HINT,
    ),
]
Strength = Annotated[
    Any,
    typer.Option(
        metavar="X",
        parser=values.strength,
        help="How far to leave --image, or with a depth checkpoint PHOTO: above 0, at most 1. "
        "Default: 0.6, or 0.7.",
        rich_help_panel=PICTURE,
    ),
]
Guess = Annotated[
    bool,
    typer.Option(
        "--guess", help="Let the hint tell what the prompt leaves out.", rich_help_panel=HINT
    ),
]
Fit = Annotated[
    bool,
    typer.Option(
        "--fit", help="Crop a hint of another aspect than the picture's.", rich_help_panel=HINT
    ),
]
Low = Annotated[
    float | None,
    typer.Option(metavar="N", help="Of canny: continue edges above it.", rich_help_panel=HINT),
]
High = Annotated[
    float | None,
    typer.Option(metavar="N", help="Of canny: start edges above it.", rich_help_panel=HINT),
]
Annotator = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="The network that draws the hint, of kinds that have one.",
        rich_help_panel=HINT,
    ),
]
SaveHint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the hint there too.", rich_help_panel=HINT),
]
