"""CLIP's image tower as a ResNet (Radford et al., arXiv:2103.00020, section 2.4).

Against He et al. it has a stem of three convolutions, average pools in place of strides
(anti-aliasing, Zhang, arXiv:1904.11486), and attention in place of the last mean.
Shapes: B batch, C channels, P projection.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.ops.attention import attend_torch

EXPANSION = 4  # a block puts out so many times the channels of its 3x3 convolution
STRIDE = 32  # of all stages together


@dataclass(frozen=True, kw_only=True)
class AttentionResNetConfig:
    size: Size = 224  # pixels, height and width; a multiple of 32
    channels: Size = 64  # of the stem, and of the first stage's 3x3 convolutions; doubles per stage
    blocks: tuple[Count, ...] = (3, 4, 6, 3)  # per stage
    heads: Size = 32  # of the attention at the end
    projection: Count = 1024  # P, the width of the space that pictures and texts share

    @property
    def features(self) -> int:
        """Channels after the last stage."""
        return self.channels * EXPANSION * 2 ** (len(self.blocks) - 1)


class AttentionResNet(nn.Module):
    """Pixels to one feature."""

    def __init__(self, config: AttentionResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        stem: list[nn.Module] = []
        for before, after, stride in ((3, width // 2, 2), (width // 2, width // 2, 1)):
            stem += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)]
            stem.append(nn.ReLU(inplace=True))
        stem += [nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        self.stem = nn.Sequential(*stem, nn.ReLU(inplace=True), nn.AvgPool2d(2))
        self.stage = nn.ModuleList()
        for stage, count in enumerate(config.blocks):
            layers = nn.Sequential()
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(Bottleneck(width, config.channels * 2**stage, stride))
                width = config.channels * 2**stage * EXPANSION
            self.stage.append(layers)
        self.pool = AttentionPool(
            config.size // STRIDE, config.features, config.heads, config.projection
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size), normalised, to (B, P)."""
        x = self.stem(pixels)
        for stage in self.stage:
            x = stage(x)
        return self.pool(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a skip; a stride is an average pool, before the last."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out = channels * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.stride = stride
        self.skip = nn.Sequential()
        if stride > 1 or in_channels != out:
            self.skip.append(nn.Conv2d(in_channels, out, 1, bias=False))
            self.skip.append(nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, 4 channels, H / stride, W / stride)."""
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        h = F.relu(self.norm2(self.conv2(h)), inplace=True)
        if self.stride > 1:
            h, x = F.avg_pool2d(h, self.stride), F.avg_pool2d(x, self.stride)
        return F.relu(self.norm3(self.conv3(h)) + self.skip(x), inplace=True)


class AttentionPool(nn.Module):
    """(B, C, side, side) to (B, out): what the mean of all places sees when it looks at them."""

    def __init__(self, side: int, channels: int, heads: int, out_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(channels**-0.5 * torch.randn(side**2 + 1, channels))
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, side, side) to (B, out)."""
        places = x.flatten(2).transpose(1, 2)  # (B, L, C)
        places = torch.cat((places.mean(dim=1, keepdim=True), places), dim=1) + self.position
        q, k, v = (
            project(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, C / H)
            for project, y in ((self.q, places[:, :1]), (self.k, places), (self.v, places))
        )
        return self.out(attend_torch(q, k, v).transpose(1, 2).flatten(1))
