"""``darkroom segment``: cut things out of pictures, by points, boxes, words, or all of them."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom.app import values
from darkroom.app.options import choosing
from darkroom.app.options import segmenting as options
from darkroom.app.outcome import EXIT_CODES
from darkroom.app.seeing.segmenting import Asked, run
from darkroom.names import SEGMENT_MODEL

EXAMPLES = """Examples:

darkroom segment truck.jpg --point 500,375

darkroom segment truck.jpg --point 500,375 --candidates --model sam_vit_b_01ec64.pth

darkroom segment truck.jpg --box 425,600,700,875 --point 575,750,0 --out wheel.png

darkroom segment photos --text "the dog" --to coco-polygons --to yolo --out dogs

darkroom segment photos --everything --model FastSAM-s.pt --to labelstudio
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("segment", epilog=EXAMPLES + "\n" + EXIT_CODES)(segment)


def segment(
    ctx: typer.Context,
    images: options.Images,
    point: options.Points = None,
    box: options.Boxes = None,
    text: options.Text = None,
    everything: options.Everything = False,
    candidates: options.Candidates = False,
    model: options.Model = SEGMENT_MODEL,
    to: options.To = None,
    out: options.Out = Path("masks"),
    label: options.Label = "",
    outline: options.Outline = False,
    every: choosing.Every = False,
    against: choosing.Against = None,
    threshold: choosing.Threshold = None,
    encoder: choosing.Encoder = None,
    points_per_side: options.PointsPerSide = None,
    pred_iou: options.PredIou = None,
    stability: options.Stability = None,
    nms: options.Nms = None,
    crop_layers: options.CropLayers = None,
    crop_downscale: options.CropDownscale = None,
    min_area: options.MinArea = None,
    conf: options.Conf = None,
    iou: options.Iou = None,
    imgsz: options.Imgsz = None,
    retina: options.Retina = None,
    device: values.Device = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Cut things out of pictures: masks, and a picture that shows them.

    Several --point are of one object, with one --box too. Coordinates are of the upright picture.
    Pictures that cannot be used are named and left out.
    """
    said = Asked(
        points=tuple(point or ()),
        boxes=tuple(box or ()),
        text=text,
        everything=everything,
        candidates=candidates,
        label=label,
        outline=outline,
        words={
            "every": every or None,
            "against": tuple(against or ()) or None,
            "threshold": threshold,
            "encoder": encoder,
        },
        sam={
            "points_per_side": points_per_side,
            "pred_iou": pred_iou,
            "stability": stability,
            "nms": nms,
            "crop_layers": crop_layers,
            "crop_downscale": crop_downscale,
            "min_area": min_area,
        },
        fast={"conf": conf, "iou": iou, "imgsz": imgsz, "retina": retina},
    )
    run(ctx.obj, said, images, model, device, tuple(to or ("png",)), out, quiet=json)
