"""The convolutional stem of DPT-hybrid: three stages of a BiT ResNet-50 (arXiv:1912.11370).

Shapes: B batch, C channels, H W height and width of the image. Weights are standardised (Qiao et
al., arXiv:1903.10520), norms are over groups, and sides are padded as TensorFlow's "SAME" does.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size

EPS = 1e-8  # of the standardisation
EXPANSION = 4  # a block puts out so many times the channels of its 3x3 convolution


@dataclass(frozen=True, kw_only=True)
class StemConfig:
    channels: Size = 64  # of the first convolution
    widths: tuple[Size, ...] = (256, 512, 1024)  # what each stage puts out
    blocks: tuple[Count, ...] = (3, 4, 9)  # per stage
    groups: Size = 32  # of every norm


class Stem(nn.Module):
    """Images to the features of every stage."""

    def __init__(self, config: StemConfig) -> None:
        super().__init__()
        self.config = config
        self.input = StandardConv(3, config.channels, 7, stride=2)
        self.norm = nn.GroupNorm(config.groups, config.channels)
        self.stage = nn.ModuleList()
        width = config.channels
        for stage, (channels, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            layers = nn.Sequential()
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(Bottleneck(width, channels, config.groups, stride, first=not block))
                width = channels
            self.stage.append(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to (B, C, H / 4, W / 4), then half of that with each stage, rounded up."""
        x = F.relu(self.norm(self.input(x)))
        x = F.max_pool2d(same(x, 3, 2), 3, stride=2)  # zeros are neutral: x is not negative
        features: list[Tensor] = []
        for stage in self.stage:
            x = stage(x)
            features.append(x)
        return features


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each with its norm, around a skip.

    Args:
        first: of its stage; the skip is a convolution then.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, stride: int, first: bool
    ) -> None:
        super().__init__()
        middle = out_channels // EXPANSION
        self.conv1 = StandardConv(in_channels, middle, 1)
        self.norm1 = nn.GroupNorm(groups, middle)
        self.conv2 = StandardConv(middle, middle, 3, stride)
        self.norm2 = nn.GroupNorm(groups, middle)
        self.conv3 = StandardConv(middle, out_channels, 1)
        self.norm3 = nn.GroupNorm(groups, out_channels)
        self.skip = nn.Sequential()
        if first:
            self.skip.append(StandardConv(in_channels, out_channels, 1, stride))
            self.skip.append(nn.GroupNorm(groups, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride), rounded up."""
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        return F.relu(self.norm3(self.conv3(h)) + self.skip(x))


class StandardConv(nn.Conv2d):
    """A convolution whose kernels have mean 0 and deviation 1 whenever they are used."""

    def __init__(self, in_channels: int, out_channels: int, side: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, side, stride=stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride), rounded up."""
        kernels = self.weight.float().flatten(1)  # EPS is nothing in float16
        kernels = F.layer_norm(kernels, kernels.shape[1:], eps=EPS)
        weight = kernels.view_as(self.weight).to(self.weight)
        return F.conv2d(same(input, weight.shape[-1], self.stride[0]), weight, stride=self.stride)


def same(x: Tensor, side: int, stride: int) -> Tensor:
    """Zeros around (B, C, H, W), one more below and right if odd: sides become H / stride."""
    pads = [max((-(-length // stride) - 1) * stride + side - length, 0) for length in x.shape[2:]]
    return F.pad(x, [part for pad in reversed(pads) for part in (pad // 2, pad - pad // 2)])
