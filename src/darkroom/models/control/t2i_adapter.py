"""T2I-Adapter (Mou et al., arXiv:2302.08453): a hint to features for a U-Net's way down.

It runs once for a picture: its features do not depend on the timestep.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size


@dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig:
    in_channels: Size = 3  # of the hint; 1 for sketches and edges
    channels: tuple[Size, ...] = (320, 640, 1280, 1280)  # of each feature
    blocks: Count = 2  # residual blocks for each
    factor: Size = 8  # pixels of the hint that one cell of the first feature stands for
    halved: tuple[Count, ...] = (1, 2, 3)  # the features that are half the size of the one before
    narrow: bool = False  # a quarter of the channels inside a block: the "light" adapter of colours


FULL = T2IAdapterConfig()
FULL_XL = T2IAdapterConfig(factor=16, halved=(2,))
LIGHT = T2IAdapterConfig(channels=(320, 640, 1280, 1280), blocks=4, narrow=True)


class T2IAdapter(nn.Module):
    """Features for each level of a U-Net: what ``UNet.forward`` adds as ``features``."""

    def __init__(self, config: T2IAdapterConfig) -> None:
        super().__init__()
        self.config = config
        c, unshuffled = config.channels, config.in_channels * config.factor**2
        first = unshuffled if config.narrow else c[0]
        self.input = None if config.narrow else nn.Conv2d(unshuffled, c[0], 3, padding=1)
        self.body = nn.ModuleList(
            Level(before, width, config.blocks, i in config.halved, config.narrow)
            for i, (before, width) in enumerate(zip((first, *c), c, strict=False))
        )

    def forward(self, hint: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) in [0, 1], multiples of ``factor`` -> one feature per level."""
        x = F.pixel_unshuffle(hint, self.config.factor)
        if self.input is not None:
            x = self.input(x)
        features = []
        for level in self.body:
            x = level(x)
            features.append(x)
        return features


class Level(nn.Module):
    """Half the size where asked for, then residual blocks of one width."""

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, half: bool, narrow: bool
    ) -> None:
        super().__init__()
        self.halves = half
        width = out_channels // 4 if narrow else out_channels
        change = narrow or in_channels != out_channels
        self.input = nn.Conv2d(in_channels, width, 1) if change else None
        self.blocks = nn.ModuleList(Block(width, 3 if narrow else 1) for _ in range(blocks))
        self.output = nn.Conv2d(width, out_channels, 1) if narrow else None

    def forward(self, x: Tensor) -> Tensor:
        if self.halves:
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        if self.input is not None:
            x = self.input(x)
        for block in self.blocks:
            x = block(x)
        return x if self.output is None else self.output(x)


class Block(nn.Module):
    """Convolution, ReLU, convolution, around a skip."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))
