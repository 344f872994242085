"""The U-Net of segmentation (Ronneberger et al., arXiv:1505.04597), with batch normalisation.

Shapes: B batch, C channels, H W height and width. Convolutions are padded, so that the logits are
of the input's size, whatever that is.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size

Match = Literal["interpolate", "pad"]


@dataclass(frozen=True, kw_only=True)
class SegmentationUNetConfig:
    in_channels: Size = 3
    classes: Count = 21
    channels: tuple[Size, ...] = (64, 128, 256, 512, 1024)  # per level, finest first
    narrowing: Size = 2  # inside a pair of convolutions: channels / narrowing; 1 in the paper
    match: Match = "interpolate"  # how what comes up gets the size of its skip


class SegmentationUNet(nn.Module):
    """Images to the logits of each pixel's class."""

    def __init__(self, config: SegmentationUNetConfig) -> None:
        super().__init__()
        check(config)
        self.config, self.norms_frozen = config, False
        c = config.channels
        self.input = pair(config.in_channels, c[0], config.narrowing)
        self.down = nn.ModuleList(
            pair(fine, coarse, config.narrowing) for fine, coarse in pairwise(c)
        )
        self.middle = pair(c[-1], c[-1], config.narrowing)
        self.up = nn.ModuleList(
            Up(coarse, fine, config) for fine, coarse in reversed(list(pairwise(c)))
        )
        self.output = nn.Conv2d(c[0], config.classes, 1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, classes, H, W)."""
        x = self.input(x)
        skips = []
        for layer in self.down:
            skips.append(x)
            x = F.max_pool2d(layer(x), 2, ceil_mode=True)  # no row or column is lost
        x = self.middle(x)
        for layer in self.up:
            x = layer(x, skips.pop())
        return self.output(x)

    def freeze_bn(self) -> None:
        """From now on batch normalisation keeps its statistics, in training mode, too."""
        self.norms_frozen = True
        evaluate_norms(self)

    def train(self, mode: bool = True) -> "SegmentationUNet":
        """Training mode, or evaluation mode."""
        super().train(mode)
        if self.norms_frozen:
            evaluate_norms(self)
        return self


class Up(nn.Module):
    """Twice as high and wide, half the channels; then a pair that sees the skip as well."""

    def __init__(self, channels: int, out_channels: int, config: SegmentationUNetConfig) -> None:
        super().__init__()
        self.match: Match = config.match
        self.resize = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.pair = pair(channels // 2 + out_channels, out_channels, config.narrowing)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, h, w) and (B, out, H, W) to (B, out, H, W)."""
        return self.pair(torch.cat((skip, matched(self.resize(x), skip, self.match)), dim=1))


def pair(in_channels: int, channels: int, narrowing: int) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU, twice."""
    inner = channels // narrowing
    return nn.Sequential(
        nn.Conv2d(in_channels, inner, 3, padding=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def matched(x: Tensor, like: Tensor, match: Match = "interpolate") -> Tensor:
    """``x`` in the height and width of ``like``.

    Interpolation is bilinear with aligned corners. Padding is with zeros, the odd row or column
    at the end; where ``x`` is larger it is cut, the odd one at the start.
    """
    if x.shape[-2:] == like.shape[-2:]:
        return x
    if match == "interpolate":
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
    down, across = (like.shape[d] - x.shape[d] for d in (-2, -1))
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))


def evaluate_norms(network: nn.Module) -> None:
    """Put every batch normalisation into evaluation mode; its scale and shift still learn."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def initialize(network: nn.Module) -> None:
    """Normal weights for layers before a ReLU (He et al., arXiv:1502.01852), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check(config: SegmentationUNetConfig) -> None:
    """Raise ValueError where a width cannot be divided as it must."""
    for level, width in enumerate(config.channels):
        if width < 1 or config.narrowing < 1 or width % config.narrowing or (level and width % 2):
            raise ValueError(
                f"channels {width} of level {level} must be a multiple of narrowing "
                f"{config.narrowing} and, below the first level, of 2"
            )
