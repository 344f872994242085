"""Train a segmentation U-Net on CamVid's street scenes, and measure it on scenes it has not seen.

Ronneberger et al., arXiv:1505.04597; classes weighted as by Eigen and Fergus, arXiv:1411.4734.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.errors import LayoutError
from darkroom.images import grid
from darkroom.masks import Mask, overlay
from darkroom.models.segmentation.unet import SegmentationUNet, SegmentationUNetConfig
from darkroom.models.segmentation.unet_resnet import (
    SegmentationUNetResNet,
    SegmentationUNetResNetConfig,
)
from darkroom.recipes.runs import Run
from darkroom.training import distributed
from darkroom.training.data.camvid import CLASSES, COLOURS, VOID, Scenes, camvid
from darkroom.training.fit import Draw, FitOptions, FitStep, Group, Training
from darkroom.training.segmentation import (
    Scores,
    confusion,
    median_frequency_weights,
    segmentation_loss,
)
from darkroom.weights.files import read_tensors
from darkroom.weights.layouts.resnet import TORCHVISION
from darkroom.weights.save import save

# of ImageNet, per colour: what pretrained encoders were trained with
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Network = SegmentationUNet | SegmentationUNetResNet


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "segmentation"``; exactly one of ``unet`` and ``resnet`` is given."""

    data: Path  # CamVid's six folders
    out: Path  # the run; ``darkroom.load`` opens ``out/model``
    unet: SegmentationUNetConfig | None = None
    resnet: SegmentationUNetResNetConfig | None = None
    backbone_weights: Path | None = None  # of a ResNet, in torchvision's or timm's names
    backbone_lr: float = 0.1  # of the encoder, as a fraction of the decoder's
    freeze_backbone: bool = False
    freeze_bn: bool = False
    crop: tuple[int, int] = (180, 240)  # height and width of what is trained on
    scale: tuple[float, float] = (0.75, 1.5)  # of a picture before the crop, drawn in between
    flip: bool = True  # half of the crops are mirrored
    balance: float = 1.0  # exponent of the classes' weights: 0 = all alike, 1 = by frequency
    dice: float = 0.0  # share of the Dice loss
    evaluate_every: Count = 500  # steps; on the validation scenes
    save_every: Size = 500  # steps
    fit: FitOptions = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        if (self.unet is None) == (self.resnet is None):
            raise ValueError("give either a table [unet] or a table [resnet]")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must rise from above 0")


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write the network, scores and pictures."""
    torch.manual_seed(config.fit.seed)
    model = network(config)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    scenes = {split: camvid(config.data, split) for split in ("train", "val", "test")}
    learnt = scenes["train"]
    training = Training(model, config.fit, groups(model, config))
    weights = median_frequency_weights(learnt.labels, len(CLASSES), VOID) ** config.balance
    weights = weights.to(config.fit.place)
    run = Run(config.out, "segmentation", config, training, config.save_every)
    run.held = sum(part.pixels.nbytes + part.labels.nbytes for part in scenes.values())
    run.remark(*(remark for part in scenes.values() for remark in part.remarks))

    def loss(draw: Draw) -> Tensor:
        pixels, labels = batch(learnt, config, draw)
        return segmentation_loss(model(normalized(pixels)), labels, VOID, weights, config.dice)

    model.train()
    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            scores = Scores.of(evaluate(model, scenes["val"]))
            run.note(validation_iou=scores.mean_iou, validation_accuracy=scores.pixel_accuracy)
        yield step

    model.load_state_dict(training.averaged())
    show(run, model, scenes)
    run.finish(network=model)
    if distributed.first():
        save(model, config.out / "model")


def network(config: Config) -> Network:
    """The network to train, with a pretrained encoder and frozen parts where they are wanted."""
    if config.unet is not None:
        model: Network = SegmentationUNet(replace(config.unet, classes=len(CLASSES)))
    else:
        assert config.resnet is not None
        model = SegmentationUNetResNet(replace(config.resnet, classes=len(CLASSES)))
        if config.backbone_weights:
            load_backbone(model, config.backbone_weights)
        if config.freeze_backbone:
            model.freeze_backbone()
    if config.freeze_bn:
        model.freeze_bn()
    return model


def load_backbone(model: SegmentationUNetResNet, path: Path) -> None:
    """Put the weights of a ResNet into the encoder; its classifier is left aside.

    Raises:
        LayoutError: the file holds another network.
    """
    state, config = read_tensors(path), model.config.encoder
    classes = len(state["fc.weight"]) if "fc.weight" in state else 0
    try:
        read = TORCHVISION.convert(state, replace(config, classes=classes))
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    kept = {name: read[name] for name in model.encoder.state_dict()}
    model.encoder.load_state_dict(kept)


def groups(model: Network, config: Config) -> list[Group]:
    """Encoder and decoder with rates of their own; none for a network without an encoder."""
    if isinstance(model, SegmentationUNet):
        return []
    decay, lr = config.fit.decay, config.fit.lr
    decoder = Group(model.decoder_parts(), lr, decay)
    if config.freeze_backbone:
        return [decoder]
    return [Group([model.encoder], lr * config.backbone_lr, decay), decoder]


def batch(scenes: Scenes, config: Config, draw: Draw) -> tuple[Tensor, Tensor]:
    """This draw's share of random scenes, scaled, cut and mirrored: (B, 3, H, W), (B, H, W)."""
    g, size = draw.generator, config.fit.batch
    index = torch.randint(len(scenes), (size,), generator=g)
    low, high = config.scale
    scale = low * (high / low) ** torch.rand(size, generator=g)  # as often halved as doubled
    place = torch.rand(size, 2, generator=g)
    mirrored = (torch.rand(size, generator=g) < 0.5) & config.flip
    cut = [
        crop(scenes.pixels[i], scenes.labels[i], config.crop, float(s), p, bool(m))
        for i, s, p, m in zip(
            *(part[draw.part :: draw.parts] for part in (index, scale, place, mirrored)),
            strict=True,
        )
    ]
    pixels = torch.stack([image for image, _ in cut]).to(draw.device)
    labels = torch.stack([label for _, label in cut]).to(draw.device)
    return pixels.contiguous(memory_format=torch.channels_last), labels


def crop(
    pixels: Tensor, labels: Tensor, size: tuple[int, int], scale: float, place: Tensor, mirror: bool
) -> tuple[Tensor, Tensor]:
    """A window of a scaled scene; what lies outside of the scene is black and void.

    Args:
        place: (2,) in [0, 1): where between the farthest windows, down and across.
    """
    shape = [max(1, round(length * scale)) for length in labels.shape]
    image = F.interpolate(
        pixels[None].float(), shape, mode="bilinear", align_corners=False, antialias=True
    )[0]
    label = F.interpolate(labels[None, None], shape, mode="nearest-exact")[0, 0]
    top, left = (
        int(p * (max(0, have - want) + 1)) for p, have, want in zip(place, shape, size, strict=True)
    )
    image = image[:, top : top + size[0], left : left + size[1]]
    label = label[top : top + size[0], left : left + size[1]]
    lacking = (0, size[1] - label.shape[1], 0, size[0] - label.shape[0])
    image, label = F.pad(image, lacking), F.pad(label, lacking, value=VOID)
    return (image.flip(-1), label.flip(-1)) if mirror else (image, label)


def normalized(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in 0 to 255, to mean 0 and deviation 1 over ImageNet."""
    mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    return (pixels / 255 - mean) / deviation


@torch.no_grad()
def predict(model: nn.Module, pixels: Tensor, size: int = 8) -> Tensor:
    """(N, 3, H, W) uint8 to (N, H, W) uint8 class numbers, on the CPU; whole pictures."""
    place = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = [
        model(normalized(part.to(place).float())).argmax(dim=1).byte().cpu()
        for part in pixels.split(size)
    ]
    model.train(was_training)
    return torch.cat(parts)


def evaluate(model: nn.Module, scenes: Scenes) -> Tensor:
    """The confusion matrix (K, K) over all scenes."""
    return confusion(predict(model, scenes.pixels), scenes.labels, len(CLASSES), VOID)


def show(run: Run, model: Network, scenes: dict[str, Scenes]) -> None:
    """Tables of scores beside those of two guesses that look at no picture, and pictures."""
    learnt, columns, found = scenes["train"], ["class"], []
    for split in ("val", "test"):
        part = scenes[split]
        for name, guess in zip(("one class", "per pixel"), guesses(learnt), strict=True):
            counts = confusion(guess.expand_as(part.labels), part.labels, len(CLASSES), VOID)
            found.append(Scores.of(counts))
            columns.append(f"{split}, {name}")
        found.append(Scores.of(evaluate(model, part)))
        columns.append(f"{split}, network")
    rows = [[name, *(s.iou[i] for s in found)] for i, name in enumerate(CLASSES)]
    rows.append(["mean IoU", *(s.mean_iou for s in found)])
    rows.append(["pixel accuracy", *(s.pixel_accuracy for s in found)])
    run.table("Intersection over union", columns, rows)
    run.text(
        "'One class' says the most frequent class of the training scenes everywhere; 'per pixel' "
        "the most frequent one at that place. Void pixels are not counted."
    )
    val, test = found[2::3]
    run.note(
        final_validation_iou=val.mean_iou, final_test_iou=test.mean_iou,
        final_test_accuracy=test.pixel_accuracy,
    )  # fmt: skip
    run.picture("val", sheet(model, scenes["val"]), "photograph | truth | prediction (validation)")
    run.picture("test", sheet(model, scenes["test"]), "photograph | truth | prediction (test)")


def guesses(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The most frequent class of all scenes (1, 1), and that of each pixel (H, W)."""
    counts = torch.stack([(scenes.labels == i).sum(0) for i in range(len(CLASSES))])  # (K, H, W)
    return counts.sum((1, 2)).argmax()[None, None], counts.argmax(0)


def sheet(model: nn.Module, scenes: Scenes, count: int = 4) -> Image.Image:
    """Rows of photograph, truth and prediction, of scenes evenly apart."""
    chosen = torch.linspace(0, len(scenes) - 1, min(count, len(scenes))).long()
    cells = []
    for i, labels in zip(chosen, predict(model, scenes.pixels[chosen]), strict=True):
        photo = Image.fromarray(scenes.pixels[i].permute(1, 2, 0).numpy())
        cells += [photo, painted(photo, scenes.labels[i]), painted(photo, labels)]
    return grid(cells, 3)


def painted(photo: Image.Image, labels: Tensor) -> Image.Image:
    """The photograph under the colours of its classes (H, W); void stays bare."""
    masks = [Mask.from_classes(labels, i) for i in range(len(CLASSES))]
    return overlay(photo, masks, COLOURS, alpha=0.7)
