"""Residual networks of bottleneck blocks (He et al., arXiv:1512.03385).

Shapes: B batch, C channels, H W height and width of the image. This is "v1.5", as torchvision and
timm train it: a block that halves the resolution does so in its 3x3 convolution, not in the
first 1x1 one.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size

EXPANSION = 4  # a block puts out so many times the channels of its 3x3 convolution


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    in_channels: Size = 3
    channels: Size = 64  # of the stem, and of the first stage's 3x3 convolutions; doubles per stage
    blocks: tuple[Count, ...] = (3, 4, 6, 3)  # per stage
    classes: Count = 0  # 0 = no classifier: the network puts out its pooled features

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each tensor that ``stages`` returns."""
        stages = (self.channels * EXPANSION * 2**stage for stage in range(len(self.blocks)))
        return self.channels, *stages


RESNET50 = ResNetConfig()
RESNET101 = ResNetConfig(blocks=(3, 4, 23, 3))
RESNET152 = ResNetConfig(blocks=(3, 8, 36, 3))


class ResNet(nn.Module):
    """Images to pooled features, to logits, or to the features of every stage."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.input = nn.Conv2d(config.in_channels, width, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stage = nn.ModuleList()
        for stage, count in enumerate(config.blocks):
            channels, stride = config.channels * 2**stage, 1 if stage == 0 else 2
            layers = nn.Sequential()
            for block in range(count):
                layers.append(Bottleneck(width, channels, 1 if block else stride))
                width = channels * EXPANSION
            self.stage.append(layers)
        self.classifier = nn.Linear(width, config.classes) if config.classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al., arXiv:1502.01852
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: Tensor) -> list[Tensor]:
        """The features of every scale, finest first, of (B, in, H, W).

        The stem's come before its max-pool, at half of H and W; then each stage's, at a 4th, 8th,
        16th and 32nd, rounded up. Their channels are ``config.widths``.
        """
        x = F.relu(self.norm(self.input(x)))
        features = [x]
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in self.stage:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to the last stage's mean over pixels (B, C), or to logits (B, classes)."""
        pooled = self.stages(x)[-1].mean(dim=(2, 3))
        return pooled if self.classifier is None else self.classifier(pooled)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each with batch normalisation, around a skip."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.skip = nn.Sequential()
        if stride > 1 or in_channels != out:
            self.skip.append(nn.Conv2d(in_channels, out, 1, stride=stride, bias=False))
            self.skip.append(nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, 4 channels, H / stride, W / stride), rounded up."""
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        return F.relu(self.norm3(self.conv3(h)) + self.skip(x))
