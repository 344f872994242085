"""FastSAM: every object of a picture by one convolutional network (Zhao et al., arXiv:2306.12156).

The network has YOLOv8's shape: a CSP backbone (arXiv:1911.11929), a pyramid that goes up and down
again (PANet, arXiv:1803.01534), a head without anchors whose branches for boxes and classes are
apart (arXiv:2107.08430), boxes as distributions over distances (Generalized Focal Loss,
arXiv:2006.04388), and masks as sums of prototypes (YOLACT, arXiv:1904.02689).

Shapes: B batch, H W height and width in pixels (multiples of 32), N the cells of all three levels,
H/8 W/8 + H/16 W/16 + H/32 W/32, finest level first, each row by row.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.models.fastsam.blocks import ConvNorm, CrossStage, PyramidPooling

STRIDES = (8, 16, 32)  # pixels per cell of each level
COARSEST = STRIDES[-1]
PROTOTYPE_STRIDE = 4
SHORT = 1.0  # of the boxes' logits, to begin training with


@dataclass(frozen=True, kw_only=True)
class FastSAMConfig:
    channels: tuple[Size, Size, Size, Size, Size] = (32, 64, 128, 256, 512)  # at 1/2 to 1/32
    pairs: tuple[Count, Count, Count, Count] = (1, 2, 2, 1)  # per cross-stage block, 1/4 to 1/32
    neck_pairs: Count = 1
    bins: Size = 16  # of each distance: 0 to bins - 1 cells
    classes: Count = 1
    coefficients: Size = 32  # one for each prototype
    size: Size = 1024  # pixels of the longer side of a picture, as it was trained
    box_channels: Size = 64  # inside the head's branches
    class_channels: Size = 128
    coefficient_channels: Size = 32
    prototype_channels: Size = 128


def scaled(
    depth: float, width: float, max_channels: int, classes: int = 1, coefficients: int = 32
) -> FastSAMConfig:
    """The sizes of YOLOv8's family by its three multiples: s is (0.33, 0.5, 1024)."""

    def wide(channels: int) -> int:
        return math.ceil(min(channels, max_channels) * width / 8) * 8

    stem, a, b, c, d = (wide(channels) for channels in (64, 128, 256, 512, 1024))
    few, many = (max(round(count * depth), 1) for count in (3, 6))
    bins = 16
    return FastSAMConfig(
        channels=(stem, a, b, c, d),
        pairs=(few, many, many, few),
        neck_pairs=few,
        bins=bins,
        classes=classes,
        coefficients=coefficients,
        box_channels=max(16, b // 4, 4 * bins),
        class_channels=max(b, min(classes, 100)),
        coefficient_channels=max(b // 4, coefficients),
        prototype_channels=wide(256),
    )


FASTSAM_S = scaled(0.33, 0.5, 1024)
FASTSAM_X = scaled(1.0, 1.25, 512)


class Dense(NamedTuple):
    """What the network says of every cell; the three lists have one tensor per level."""

    boxes: list[Tensor]  # (B, 4 * bins, h, w): logits of the distances to left, top, right, bottom
    classes: list[Tensor]  # (B, classes, h, w): logits
    coefficients: list[Tensor]  # (B, coefficients, h, w)
    prototypes: Tensor  # (B, coefficients, H / 4, W / 4)


class Decoded(NamedTuple):
    """The same, cell after cell."""

    boxes: Tensor  # (B, N, 4): left, top, right, bottom in pixels of the network's input
    scores: Tensor  # (B, N, classes): 0 to 1
    coefficients: Tensor  # (B, N, coefficients)
    prototypes: Tensor  # (B, coefficients, H / 4, W / 4)


class FastSAM(nn.Module):
    """Pictures to a box, a score per class and a mask for each cell of three grids."""

    def __init__(self, config: FastSAMConfig) -> None:
        super().__init__()
        check(config)
        self.config = config
        stem, fourth, eighth, sixteenth, deepest = config.channels
        widths = (fourth, eighth, sixteenth, deepest)
        self.stem = ConvNorm(3, stem, 3, 2)
        self.down, self.stage = nn.ModuleList(), nn.ModuleList()
        for before, width, pairs in zip(config.channels, widths, config.pairs, strict=False):
            self.down.append(ConvNorm(before, width, 3, 2))
            self.stage.append(CrossStage(width, width, pairs, skip=True))
        self.pool = PyramidPooling(deepest)
        n = config.neck_pairs
        self.rise = nn.ModuleList(
            (
                CrossStage(deepest + sixteenth, sixteenth, n, skip=False),
                CrossStage(sixteenth + eighth, eighth, n, skip=False),
            )
        )
        self.shrink = nn.ModuleList(
            (ConvNorm(eighth, eighth, 3, 2), ConvNorm(sixteenth, sixteenth, 3, 2))
        )
        self.fall = nn.ModuleList(
            (
                CrossStage(eighth + sixteenth, sixteenth, n, skip=False),
                CrossStage(sixteenth + deepest, deepest, n, skip=False),
            )
        )
        self.head = Head(config)

    def forward(self, x: Tensor) -> Dense:
        """(B, 3, H, W) in [0, 1]."""
        return self.head(self.pyramid(x))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Features at 1/8, 1/16 and 1/32 of (B, 3, H, W)."""
        h = self.stem(x)
        scales = []
        for down, stage in zip(self.down, self.stage, strict=True):
            h = stage(down(h))
            scales.append(h)
        _, eighth, sixteenth, deepest = scales
        deepest = self.pool(deepest)
        sixteenth = self.rise[0](torch.cat((doubled(deepest), sixteenth), dim=1))
        eighth = self.rise[1](torch.cat((doubled(sixteenth), eighth), dim=1))
        sixteenth = self.fall[0](torch.cat((self.shrink[0](eighth), sixteenth), dim=1))
        deepest = self.fall[1](torch.cat((self.shrink[1](sixteenth), deepest), dim=1))
        return [eighth, sixteenth, deepest]

    def decode(self, dense: Dense) -> Decoded:
        """Boxes in pixels, scores and coefficients of all cells. ``forward``'s output as it is."""
        boxes = [
            distances_to_boxes(self.head.distances(logits), stride)
            for logits, stride in zip(dense.boxes, STRIDES, strict=True)
        ]
        return Decoded(
            torch.cat(boxes, dim=1),
            torch.cat([cells(level) for level in dense.classes], dim=1).sigmoid(),
            torch.cat([cells(level) for level in dense.coefficients], dim=1),
            dense.prototypes,
        )


class Head(nn.Module):
    """Three branches on each level, and prototypes on the finest."""

    bins: Tensor

    def __init__(self, config: FastSAMConfig) -> None:
        super().__init__()
        levels = config.channels[2:]
        self.box = nn.ModuleList(
            branch(width, config.box_channels, 4 * config.bins, SHORT) for width in levels
        )
        self.classify = nn.ModuleList(
            branch(width, config.class_channels, config.classes, prior(stride, config.classes))
            for width, stride in zip(levels, STRIDES, strict=True)
        )
        self.coefficient = nn.ModuleList(
            branch(width, config.coefficient_channels, config.coefficients) for width in levels
        )
        self.prototype = Prototypes(levels[0], config.prototype_channels, config.coefficients)
        # what each bin stands for, in cells; checkpoints keep it as a 1x1 convolution's kernel
        self.register_buffer("bins", torch.arange(config.bins).float().view(1, -1, 1, 1))

    def forward(self, levels: list[Tensor]) -> Dense:
        return Dense(
            [branch(level) for branch, level in zip(self.box, levels, strict=True)],
            [branch(level) for branch, level in zip(self.classify, levels, strict=True)],
            [branch(level) for branch, level in zip(self.coefficient, levels, strict=True)],
            self.prototype(levels[0]),
        )

    def distances(self, logits: Tensor) -> Tensor:
        """The mean of each distribution: (B, 4 * bins, h, w) to (B, 4, h, w), in cells."""
        b, _, h, w = logits.shape
        share = logits.view(b, 4, self.bins.shape[1], h, w).softmax(dim=2)
        return (share * self.bins.view(1, 1, -1, 1, 1)).sum(dim=2)


class Prototypes(nn.Module):
    """(B, C, h, w) to (B, prototypes, 2h, 2w)."""

    def __init__(self, in_channels: int, channels: int, prototypes: int) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, channels, 3)
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.second = ConvNorm(channels, channels, 3)
        self.last = ConvNorm(channels, prototypes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.enlarge(self.first(x))))


def branch(
    in_channels: int, channels: int, out_channels: int, bias: float | None = None
) -> nn.Sequential:
    """(B, in, h, w) to (B, out, h, w); ``bias`` is what the last one starts with."""
    last = nn.Conv2d(channels, out_channels, 1)
    if bias is not None and last.bias is not None:
        nn.init.constant_(last.bias, bias)
    return nn.Sequential(ConvNorm(in_channels, channels, 3), ConvNorm(channels, channels, 3), last)


def prior(stride: int, classes: int) -> float:
    """The logit of a rare class (arXiv:1708.02002): some five objects in 640 x 640 pixels."""
    return math.log(5 / classes * (stride / 640) ** 2)


def mask_logits(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """(M, coefficients) of M objects, and one picture's prototypes (coefficients, h, w).

    Gives (M, h, w), of which the sigmoid is each pixel's share (YOLACT, equation 1).
    """
    return (coefficients @ prototypes.flatten(1)).view(-1, *prototypes.shape[1:])


def doubled(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W): each pixel four times."""
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def cells(level: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h w, C)."""
    return level.flatten(2).transpose(1, 2)


def centres(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """(height width, 2): x and y of each cell's centre, in pixels of the network's input."""
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * stride
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * stride
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1)


def distances_to_boxes(distances: Tensor, stride: int) -> Tensor:
    """(B, 4, h, w) in cells to (B, h w, 4): left, top, right, bottom in pixels."""
    height, width = distances.shape[2:]
    middle = centres(height, width, stride, distances)
    before, after = (cells(distances) * stride).chunk(2, dim=2)
    return torch.cat((middle - before, middle + after), dim=2)


def check(config: FastSAMConfig) -> None:
    """Raise ValueError unless the widths can be halved and every count is at least 1."""
    for name in ("channels", "pairs"):
        expected = 5 if name == "channels" else 4
        if len(getattr(config, name)) != expected:
            raise ValueError(f"{name} has {len(getattr(config, name))} values; expected {expected}")
    odd = [width for width in config.channels[1:] if width % 2 or width < 2]
    if odd:
        raise ValueError(f"channels: {odd[0]} cannot be halved; use even widths")
    if config.size < COARSEST or config.size % COARSEST:
        raise ValueError(f"size = {config.size}; expected a multiple of {COARSEST}")
    for name in ("bins", "classes", "coefficients", "neck_pairs"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} = {getattr(config, name)}; expected at least 1")
