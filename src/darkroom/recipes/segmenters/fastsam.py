"""Train a small FastSAM (Zhao et al., arXiv:2306.12156): all things of a picture in one go.

On composed scenes, whose masks are known exactly; things have no classes. What each cell answers
for is decided anew in every step, by how well it does already (``training.segmenting.instances``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.images import grid
from darkroom.masks import Mask, overlay
from darkroom.models.fastsam.network import FastSAM, FastSAMConfig, mask_logits
from darkroom.recipes.runs import Run
from darkroom.recipes.segmenters.segment_anything import composed, composers, filled
from darkroom.training import distributed
from darkroom.training.data.scenes import Scene, SceneOptions
from darkroom.training.fit import Draw, FitOptions, FitStep, Training
from darkroom.training.metrics.masks import (
    average_precision,
    average_recall,
    pairwise_iou,
    recall,
)
from darkroom.training.segmenting.instances import box_iou, instance_loss, objects_of
from darkroom.weights.save import save

GREY = 114 / 255  # of what fills shorter sides, as in the published network's letterbox
SURE, OVERLAP, MOST = 0.05, 0.7, 100  # of instances that are measured: score, box IoU, number


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "fastsam"``."""

    data: Path  # cut-outs: pictures with transparency
    out: Path  # the run; ``darkroom.open_segmenter`` opens ``out/model``
    grounds: tuple[Path, ...] = ()  # photographs to compose upon
    photographs: int = 2000  # of them, held in memory
    half: bool = True  # ``out/model`` is written in float16
    scenes: SceneOptions = field(default_factory=SceneOptions)
    model: FastSAMConfig = field(default_factory=FastSAMConfig)
    evaluate_every: Count = 500  # steps; on scenes of what is kept aside
    evaluated: Count = 64  # of these scenes
    save_every: Size = 500  # steps
    fit: FitOptions = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        if self.scenes.size != self.model.size:
            raise ValueError(
                f"scenes of {self.scenes.size} pixels for a network of {self.model.size}: "
                "give scenes.size and model.size alike"
            )
        if self.model.classes != 1:
            raise ValueError(f"model.classes {self.model.classes}: things have no classes, give 1")


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model``."""
    torch.manual_seed(config.fit.seed)
    composer, aside = composers(config.data, config.grounds, config.photographs, config.scenes)
    model = FastSAM(config.model).train()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    training = Training(model, config.fit)
    run = Run(config.out, "fastsam", config, training, config.save_every)
    run.held = composer.held
    run.remark(*composer.cutouts.remarks)
    seen = [aside.scene(i) for i in range(config.evaluated)]
    size = config.scenes.size

    def loss(draw: Draw) -> Tensor:
        scenes = composed(composer, draw, config.fit.batch)
        shown = [filled(scene.shown, size) for scene in scenes]
        objects = objects_of([scene.boxes for scene in scenes], shown, draw.device)
        return instance_loss(model, model(seen_by(scenes, size, draw.device)), objects)

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(**evaluate(model, seen, size))
        yield step

    model.load_state_dict(training.averaged())
    model.eval()
    run.note(**{f"final_{name}": value for name, value in evaluate(model, seen, size).items()})
    run.picture("samples", sheet(model, seen[:16], size), "scene | truth | found")
    run.finish(network=model)
    if distributed.first():
        save(model.half() if config.half else model, config.out / "model")


def seen_by(scenes: Sequence[Scene], size: int, place: torch.device) -> Tensor:
    """(B, 3, S, S) in [0, 1]: shorter sides are filled with grey."""
    pixels = [
        F.pad(
            scene.pixels.to(place) / 255,
            (0, size - scene.pixels.shape[2], 0, size - scene.pixels.shape[1]),
            value=GREY,
        )
        for scene in scenes
    ]
    return torch.stack(pixels).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def instances(model: FastSAM, scene: Scene, size: int) -> tuple[Tensor, Tensor]:
    """What the network finds: masks (N, H, W) bool and scores (N,), best first, on the CPU."""
    place = next(model.parameters()).device
    decoded = model.decode(model(seen_by([scene], size, place)))
    scores, order = decoded.scores[0, :, 0].sort(descending=True)
    order = order[: 10 * MOST][scores[: 10 * MOST] > SURE]
    boxes = decoded.boxes[0, order]
    kept: list[int] = []
    free = torch.ones(len(order), dtype=torch.bool, device=place)
    for i in range(len(order)):
        if free[i] and len(kept) < MOST:
            kept.append(i)
            free &= box_iou(boxes[i], boxes) <= OVERLAP
    chosen, boxes = order[kept], boxes[kept]
    height, width = scene.pixels.shape[1:]
    if not kept:
        return torch.zeros(0, height, width, dtype=torch.bool), torch.zeros(0)
    logits = mask_logits(decoded.coefficients[0, chosen], decoded.prototypes[0])
    large = F.interpolate(logits[None], (size, size), mode="bilinear")[0, :, :height, :width]
    x = torch.arange(width, device=place)[None, None] + 0.5
    y = torch.arange(height, device=place)[None, :, None] + 0.5
    left, top, right, bottom = (side[:, None, None] for side in boxes.unbind(1))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    return ((large > 0) & inside).cpu(), scores[kept].cpu()


def evaluate(model: nn.Module, scenes: Sequence[Scene], size: int) -> dict[str, float]:
    """AP and AR of masks as COCO has them, at IoU 0.5 and 0.75 and the mean over ten."""
    was = model.training
    model.eval()
    assert isinstance(model, FastSAM)
    found = [instances(model, scene, size) for scene in scenes]
    model.train(was)
    ious = [
        pairwise_iou(masks, scene.masks) for (masks, _), scene in zip(found, scenes, strict=True)
    ]
    scores = [score for _, score in found]
    return {
        "ap50": average_precision(ious, scores, 0.5),
        "ap75": average_precision(ious, scores, 0.75),
        "recall75": recall(ious, 0.75),
        "ar": average_recall(ious),
    }


def sheet(model: FastSAM, scenes: Sequence[Scene], size: int) -> Image.Image:
    """Rows of scene, true masks, and those found with a score above a half."""
    cells = []
    paper = Image.new("RGB", (size, size), "white")
    for scene in scenes:
        picture = Image.fromarray(scene.pixels.permute(1, 2, 0).numpy())
        masks, scores = instances(model, scene, size)
        for chosen in (None, scene.masks, masks[scores > 0.5]):
            cells.append(paper.copy())
            some = [] if chosen is None else [Mask(mask.numpy()) for mask in chosen]
            cells[-1].paste(overlay(picture, some, alpha=0.6))
    return grid(cells, 12)
