"""A U-Net that goes down through a residual network and up through few channels.

Shapes: B batch, C channels, H W height and width. Only networks of bottleneck blocks have the
stages' widths that the decoder was made for: ResNet-50, -101 and -152.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from darkroom.config import Count, Size
from darkroom.models.resnet import RESNET50, ResNet, ResNetConfig
from darkroom.models.segmentation.unet import evaluate_norms, initialize, matched


@dataclass(frozen=True, kw_only=True)
class SegmentationUNetResNetConfig:
    classes: Count = 21
    encoder: ResNetConfig = RESNET50
    channels: tuple[Size, ...] = (192, 128, 96, 64, 48, 32)  # of the decoder, coarsest first
    relu: bool = False  # between the decoder's convolutions; the post has none there


class SegmentationUNetResNet(nn.Module):
    """Images to the logits of each pixel's class."""

    def __init__(self, config: SegmentationUNetResNetConfig) -> None:
        super().__init__()
        check(config)
        self.config, self.norms_frozen, self.backbone_frozen = config, False, False
        self.encoder = ResNet(config.encoder)
        _, *skips, deepest = config.encoder.widths  # the stem's features are not used
        c = config.channels
        beside = [0, *reversed(skips), 0]  # channels of the skip that each step sees
        self.up = nn.ModuleList()
        for i, (wide, narrow) in enumerate(pairwise(c)):
            into = deepest if i == 0 else wide + beside[i]
            self.up.append(Up(into, wide, narrow, config.relu))
        self.last = nn.Conv2d(c[-1], c[-1], 3, padding=1)
        self.output = nn.Conv2d(c[-1], config.classes, 1, bias=False)
        for part in self.decoder_parts():
            initialize(part)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, classes, H, W)."""
        _, *skips, h = self.encoder.stages(x)
        for layer in self.up:
            h = layer(h)
            if skips:
                skip = skips.pop()
                h = torch.cat((matched(h, skip), skip), dim=1)
        h = self.last(matched(h, x))
        return self.output(F.relu(h) if self.config.relu else h)

    def decoder_parts(self) -> list[nn.Module]:
        """Everything but the encoder."""
        return [self.up, self.last, self.output]

    def backbone_parameters(self) -> Iterator[Parameter]:
        """Of the encoder."""
        return self.encoder.parameters()

    def decoder_parameters(self) -> Iterator[Parameter]:
        """Of all the rest: what is trained at the full rate."""
        return (p for part in self.decoder_parts() for p in part.parameters())

    def freeze_bn(self) -> None:
        """From now on batch normalisation keeps its statistics, in training mode, too."""
        self.norms_frozen = True
        evaluate_norms(self)

    def freeze_backbone(self) -> None:
        """From now on the encoder stays as it is, its statistics included."""
        self.backbone_frozen = True
        self.encoder.requires_grad_(False)
        evaluate_norms(self.encoder)

    def train(self, mode: bool = True) -> "SegmentationUNetResNet":
        """Training mode, or evaluation mode."""
        super().train(mode)
        if self.norms_frozen or self.backbone_frozen:
            evaluate_norms(self if self.norms_frozen else self.encoder)
        return self


class Up(nn.Module):
    """A convolution, then a transposed one: (B, in, H, W) to (B, out, 2H, 2W)."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.resize = nn.ConvTranspose2d(channels, out_channels, 4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.relu:
            return F.relu(self.resize(F.relu(self.conv(x))))
        return self.resize(self.conv(x))


def check(config: SegmentationUNetResNetConfig) -> None:
    """Raise ValueError unless the decoder has a width for each of the encoder's halvings."""
    halvings = len(config.encoder.blocks) + 1
    if len(config.channels) != halvings + 1:
        raise ValueError(
            f"channels has {len(config.channels)} widths; the encoder halves {halvings} times, "
            f"so {halvings + 1} are expected"
        )
    if config.encoder.classes:
        raise ValueError("the encoder must have no classifier: encoder.classes = 0")
