"""Train a segmenter that is told by clicks and boxes what is meant (SAM, arXiv:2304.02643).

On composed scenes, whose masks are known exactly: each picture is encoded once, some of its objects
are pointed at or boxed, and a user is simulated who clicks again where the answer is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom.config import Count, Size
from darkroom.errors import CheckpointError
from darkroom.images import grid
from darkroom.masks import Mask, overlay
from darkroom.models.sam.config import SamConfig
from darkroom.models.sam.network import Sam
from darkroom.recipes.runs import Run
from darkroom.training import distributed
from darkroom.training.data.scenes import (
    Composer,
    Scene,
    SceneOptions,
    boxes_of,
    open_cutouts,
    open_grounds,
)
from darkroom.training.fit import Draw, FitOptions, FitStep, Training
from darkroom.training.saving import read_state
from darkroom.training.segmenting.prompted import (
    Kind,
    Targets,
    align,
    answers,
    interactive_loss,
    soft_iou,
)
from darkroom.weights.save import save

KEPT = 1.25  # photographs are held so much larger than a scene


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "segment-anything"``."""

    data: Path  # cut-outs: pictures with transparency
    out: Path  # the run; ``darkroom.open_segmenter`` opens ``out/model``
    begin: Path | None = None  # a finished run's ``network.safetensors``, of any size
    loss: Kind = "focal"  # SAM's own; "balanced" = to begin with
    grounds: tuple[Path, ...] = ()  # photographs to compose upon
    photographs: int = 2000  # of them, held in memory
    objects: int = 4  # of each scene, that are asked for in a step
    clicks: Count = 2  # corrections after the first prompt
    boxed: float = 0.5  # share of objects whose first prompt is a box
    grouped: float = 0.1  # share of objects meant together with what they touch
    half: bool = True  # ``out/model`` is written in float16
    scenes: SceneOptions = field(default_factory=SceneOptions)
    model: SamConfig = field(default_factory=SamConfig)
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
        if self.objects < 1 or self.clicks < 0:
            raise ValueError("objects must be at least 1, clicks at least 0")


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model``."""
    torch.manual_seed(config.fit.seed)
    composer, aside = composers(config.data, config.grounds, config.photographs, config.scenes)
    model = network(config).train()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    training = Training(model, config.fit)
    run = Run(config.out, "segment-anything", config, training, config.save_every)
    run.held = composer.held
    run.remark(*composer.cutouts.remarks)
    seen = [aside.scene(i) for i in range(config.evaluated)]

    def loss(draw: Draw) -> Tensor:
        scenes = composed(composer, draw, config.fit.batch)
        features = model.encode(seen_by(model, scenes, draw.device))
        return interactive_loss(
            model, features, targets(scenes, config, draw), config.clicks, config.loss
        )

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(**evaluate(model, seen, config.fit.place))
        yield step

    model.load_state_dict(training.averaged())
    model.eval()
    run.note(**{f"final_{name}": v for name, v in evaluate(model, seen, config.fit.place).items()})
    run.picture("samples", sheet(model, seen[:16], config.fit.place), "scene | truth | one click")
    run.finish(network=model)
    if distributed.first():
        save(model.half() if config.half else model, config.out / "model")


def network(config: Config) -> Sam:
    """A new one, or that of an earlier run.

    Raises:
        CheckpointError: ``begin`` is no such network.
    """
    model = Sam(config.model)
    if config.begin is None:
        align(model)
        return model
    tensors, _ = read_state(config.begin)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != own:
        raise CheckpointError(
            f"{config.begin}: another network than [model]; only model.size may differ"
        )
    model.load_state_dict(tensors)
    return model


def composers(
    data: Path, grounds: Sequence[Path], photographs: int, options: SceneOptions
) -> tuple[Composer, Composer]:
    """Of scenes to learn from, and of those that are kept aside: other things, other grounds."""
    size = round(options.size * KEPT)
    made = []
    for aside in (False, True):
        cutouts = open_cutouts(data, aside=aside)
        photos = open_grounds(grounds, size, photographs // 10 if aside else photographs, aside)
        plain = replace(options, shapes=0.0) if aside else options
        made.append(Composer(cutouts, photos, plain, seed=int(aside)))
    return made[0], made[1]


def composed(composer: Composer, draw: Draw, batch: int) -> list[Scene]:
    """This draw's share of the step's scenes: no scene comes twice in a run."""
    first = draw.step * batch
    return [composer.scene(first + i) for i in range(draw.part, batch, draw.parts)]


def targets(scenes: Sequence[Scene], config: Config, draw: Draw) -> Targets:
    """Objects of each scene, drawn at random; of a scene with too few, some come again."""
    g, batch, count = draw.generator, config.fit.batch, config.objects
    order = torch.rand(batch, 256, generator=g)[draw.part :: draw.parts]
    chance = torch.rand(batch, count, config.clicks + 1, generator=g)[draw.part :: draw.parts]
    noise = torch.randn(batch, count, 4, generator=g)[draw.part :: draw.parts]
    kind = torch.rand(batch, count, 2, generator=g)[draw.part :: draw.parts]
    truth = []
    for row, scene in enumerate(scenes):
        chosen = order[row, : len(scene)].argsort().repeat(count)[:count].tolist()
        for k, i in enumerate(chosen):
            grouped = float(kind[row, k, 1]) < config.grouped
            truth.append(filled(scene.group(i) if grouped else scene.masks[i], config.scenes.size))
    masks = torch.stack(truth)
    return Targets(
        torch.arange(len(scenes)).repeat_interleave(count), masks, boxes_of(masks),
        chance.flatten(0, 1), noise.flatten(0, 1), kind[..., 0].flatten() < config.boxed,
    ).to(draw.device)  # fmt: skip


def seen_by(model: Sam, scenes: Sequence[Scene], place: torch.device) -> Tensor:
    """(B, 3, S, S) as ``model.encode`` takes them: shorter sides are filled with zeros."""
    return torch.cat([model.normalised(scene.pixels[None].to(place)) for scene in scenes])


def filled(masks: Tensor, size: int) -> Tensor:
    """(..., H, W) bool -> (..., size, size), with nothing below and on the right."""
    return F.pad(masks, (0, size - masks.shape[-1], 0, size - masks.shape[-2]))


@torch.no_grad()
def evaluate(model: Sam, scenes: Sequence[Scene], place: torch.device) -> dict[str, float]:
    """Mean IoU over all objects, at the logits' size: of one click, of three, of the box.

    Of one click, the mask that the network rates best. Boxes are exact, clicks anywhere in the
    object, corrections anywhere in what is wrong.
    """
    was = model.training
    model.eval()
    found: dict[str, list[Tensor]] = {"one_click": [], "three_clicks": [], "box": []}
    g, size = torch.Generator().manual_seed(0), model.config.size
    for scene in scenes:
        n = len(scene)
        features = model.encode(seen_by(model, [scene], place))
        for boxed in (False, True):
            asked = Targets(
                torch.zeros(n, dtype=torch.long), filled(scene.masks, size), scene.boxes,
                torch.rand(n, 3, generator=g), torch.zeros(n, 4), torch.full((n,), boxed),
            )  # fmt: skip
            last = list(answers(model, features, asked.to(place), 0 if boxed else 2))
            for (logits, rating, truth, first), name in zip(
                last, ("box",) if boxed else ("one_click", "", "three_clicks"), strict=True
            ):
                if name:
                    best = rating[:, 1:].argmax(1) + 1 if first and not boxed else 0
                    chosen = logits[torch.arange(n), best]
                    found[name].append(soft_iou(chosen, truth).cpu())
    model.train(was)
    return {f"iou_{name}": torch.cat(values).mean().item() for name, values in found.items()}


@torch.no_grad()
def sheet(model: Sam, scenes: Sequence[Scene], place: torch.device) -> Image.Image:
    """Rows of scene, true masks, and the masks of a click into the middle of each object."""
    cells = []
    size = model.config.size
    for scene in scenes:
        picture = Image.fromarray(scene.pixels.permute(1, 2, 0).numpy())
        asked = Targets(
            torch.zeros(len(scene), dtype=torch.long), filled(scene.masks, size), scene.boxes,
            torch.full((len(scene), 1), 0.5), torch.zeros(len(scene), 4),
            torch.zeros(len(scene), dtype=torch.bool),
        )  # fmt: skip
        features = model.encode(seen_by(model, [scene], place))
        ((logits, rating, _, _),) = answers(model, features, asked.to(place), 0)
        best = logits[torch.arange(len(scene)), rating[:, 1:].argmax(1) + 1]
        shape = picture.height, picture.width
        large = model.enlarged(best[:, None], shape, shape)[:, 0].cpu() > 0
        truth = [Mask(mask.numpy()) for mask in scene.masks]
        found = [Mask(mask.numpy()) for mask in large]
        paper = Image.new("RGB", (size, size), "white")
        for shown in (picture, *(overlay(picture, masks, alpha=0.6) for masks in (truth, found))):
            cells.append(paper.copy())
            cells[-1].paste(shown)
    return grid(cells, 12)
