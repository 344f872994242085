"""Arguments and options of ``darkroom edit``."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.app.options.drawing import PICTURE
from darkroom.names import EDIT_MODEL, SEGMENT_MODEL

PART = "Which part, and how"
MOST = 4096  # pixels


def sides(text: str) -> tuple[int, int, int, int]:
    """'64,0,64,0' -> pixels on the left, top, right and bottom."""
    parts = text.replace(" ", "").split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\d{1,4}", part) for part in parts):
        raise typer.BadParameter(
            f"{text!r}: expected LEFT,TOP,RIGHT,BOTTOM in pixels, such as 64,0,64,0"
        )
    left, top, right, bottom = map(int, parts)
    if not 0 < left + top + right + bottom <= MOST:
        raise typer.BadParameter(f"{text!r}: expected 1 to {MOST} pixels in all")
    return left, top, right, bottom


Edited = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGE",
        show_default=False,
        help="The picture to change. Without --mask, what is transparent in it is painted.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help=f"A name (`darkroom models list`), file or folder. Default: {EDIT_MODEL}.",
        autocompletion=values.complete_model,
        rich_help_panel=PICTURE,
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="White is painted anew, black stays. Of a mask with transparency: the opaque part.",
        rich_help_panel=PART,
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help='What to paint anew, in words: "the dog"; with --only-masked. Where nothing fits '
        "them, nothing is drawn.",
        rich_help_panel=PART,
    ),
]
Grow = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        metavar="N",
        help="Pixels to add around what --select found. Default: 4.",
        rich_help_panel=PART,
    ),
]
Segmenter = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help=f"What finds masks for --select: SAM, MobileSAM, FastSAM. Default: {SEGMENT_MODEL}.",
        rich_help_panel=PART,
    ),
]
Strength = Annotated[
    Any,
    typer.Option(
        metavar="X",
        parser=values.strength,
        help="How far to leave what is under the mask: above 0, at most 1. Default: 1.",
        rich_help_panel=PART,
    ),
]
Extend = Annotated[
    Any,
    typer.Option(
        metavar="L,T,R,B",
        parser=sides,
        help="Add pixels on the left, top, right, bottom, and paint them too.",
        rich_help_panel=PART,
    ),
]
OnlyMasked = Annotated[
    bool,
    typer.Option(
        "--only-masked",
        help="Draw the surroundings of the mask alone, at the model's full size.",
        rich_help_panel=PART,
    ),
]
Padding = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MOST,
        metavar="N",
        help="Pixels around the mask that --only-masked shows. Default: 32; with --select an "
        "eighth of the mask's longer side.",
        rich_help_panel=PART,
    ),
]
Harmonise = Annotated[
    bool,
    typer.Option(
        "--harmonise",
        help="Let the change reach over the mask's edge, where else no pixel changes.",
        rich_help_panel=PART,
    ),
]
Feather = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        metavar="N",
        help="Fade over N pixels at the mask's edge: inside of it, with --harmonise outside. "
        "Default: 0, or 16; 0 with --harmonise keeps all that the model drew.",
        rich_help_panel=PART,
    ),
]
