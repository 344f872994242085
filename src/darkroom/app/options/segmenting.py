"""Arguments and options of ``darkroom segment``. No torch."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.names import EXPORT_NAMES, did_you_mean

WHAT = "What to cut out"
SAM = "With --everything or --text, of SAM"
FAST = "Of FastSAM"
FILES = "What is written"

PointPrompt = tuple[float, float, bool]
BoxPrompt = tuple[float, float, float, float]


def point(text: str) -> PointPrompt:
    """'500,375' or '500,375,0': x, y and whether it lies inside of the object."""
    numbers = _numbers(text)
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] not in (0, 1)):
        raise typer.BadParameter(
            f"{text!r}: expected X,Y in pixels, or X,Y,0 for the background, such as 500,375"
        )
    return numbers[0], numbers[1], numbers[2:] != [0]


def box(text: str) -> BoxPrompt:
    """'425,600,700,875': left, top, right and bottom."""
    numbers = _numbers(text)
    if len(numbers) != 4:
        raise typer.BadParameter(
            f"{text!r}: expected X1,Y1,X2,Y2 in pixels, such as 425,600,700,875"
        )
    left, top, right, bottom = numbers
    if left >= right or top >= bottom:
        raise typer.BadParameter(
            f"{text!r}: nothing lies in it; X1 must be below X2, and Y1 below Y2"
        )
    return left, top, right, bottom


def export(text: str) -> str:
    """One of EXPORT_NAMES."""
    if text not in EXPORT_NAMES:
        raise typer.BadParameter(
            f"no format {text!r}{did_you_mean(text, EXPORT_NAMES)}; known: {' '.join(EXPORT_NAMES)}"
        )
    return text


def complete_export(incomplete: str) -> list[str]:
    """Shell completion of --to."""
    return [name for name in EXPORT_NAMES if name.startswith(incomplete)]


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...",
        show_default=False,
        help="Pictures; of a folder all PNG, JPEG and WebP in it, at any depth.",
    ),
]
Points = Annotated[
    list[Any] | None,
    typer.Option(
        "--point",
        metavar="X,Y[,0|1]",
        parser=point,
        help="A point in the object, in pixels from the top left; with ,0 one in the background. "
        "May be repeated: all are of one object.",
        rich_help_panel=WHAT,
    ),
]
Boxes = Annotated[
    list[Any] | None,
    typer.Option(
        "--box",
        metavar="X1,Y1,X2,Y2",
        parser=box,
        help="A box around the object; may be repeated: one object each.",
        rich_help_panel=WHAT,
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help='The object in words: "the dog". Where nothing fits them, nothing is cut out.',
        rich_help_panel=WHAT,
    ),
]
Everything = Annotated[
    bool,
    typer.Option(
        "--everything",
        help="All there is in the picture; the default where nothing else is asked for.",
        rich_help_panel=WHAT,
    ),
]
Candidates = Annotated[
    bool,
    typer.Option(
        "--candidates",
        help="All three answers to a --point or --box, not the best alone; drawn with scores.",
        rich_help_panel=WHAT,
    ),
]
Label = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The class of the masks in the files. Default: --text, else 'object'.",
        rich_help_panel=FILES,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|PATH",
        help="SAM, MobileSAM or FastSAM: a name, a folder or a file.",
        autocompletion=values.complete_model,
    ),
]
To = Annotated[
    list[Any] | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        parser=export,
        autocompletion=complete_export,
        help=f"One of {', '.join(EXPORT_NAMES)}; may be repeated. Default: png.",
        rich_help_panel=FILES,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="DIR|FILE",
        help="Files of the same names are replaced, and a picture's masks of an earlier run "
        "removed. A FILE is written alone, without a picture of the masks.",
        rich_help_panel=FILES,
    ),
]
Outline = Annotated[
    bool,
    typer.Option(
        "--outline", help="In pictures of all masks, draw their edges.", rich_help_panel=FILES
    ),
]

PointsPerSide = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Of the grid of points. Default: 32; emoji-sam 16.", rich_help_panel=SAM
    ),
]
PredIou = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="The least IoU that it expects. Default: 0.88; emoji-sam 0.4.",
        rich_help_panel=SAM,
    ),
]
Stability = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="The least share that a stricter cut leaves. Default: 0.95; emoji-sam 0.6.",
        rich_help_panel=SAM,
    ),
]
Nms = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Boxes that overlap by more are of one object. Default: 0.7.",
        rich_help_panel=SAM,
    ),
]
CropLayers = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Look at crops too: 4, then 16 of them. Default: 0.", rich_help_panel=SAM
    ),
]
CropDownscale = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="By how much each layer has fewer points a side. Default: 1.",
        rich_help_panel=SAM,
    ),
]
MinArea = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Fill holes and drop islands below so many pixels. Default: 0.",
        rich_help_panel=SAM,
    ),
]
Conf = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="X",
        help="The least confidence. Default: 0.4; emoji-fastsam 0.2.",
        rich_help_panel=FAST,
    ),
]
Iou = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="X",
        help="Boxes that overlap by more are of one object. Default: 0.9.",
        rich_help_panel=FAST,
    ),
]
Imgsz = Annotated[
    int | None,
    typer.Option(metavar="N", help="Pixels of the longer side that it sees.", rich_help_panel=FAST),
]
Retina = Annotated[
    bool | None,
    typer.Option(
        "--retina/--no-retina",
        help="Masks drawn in the picture's size, or enlarged to it. Default: --retina.",
        show_default=False,
        rich_help_panel=FAST,
    ),
]
