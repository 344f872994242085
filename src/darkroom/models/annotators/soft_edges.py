"""Soft edges: holistically-nested edge detection (Xie and Tu, arXiv:1504.06375).

Shapes: B batch, H W height and width of the image. The network is VGG's convolutions with an edge
map from every scale, in the form that ControlNet's hints are made with: RGB, a learnt mean.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size


@dataclass(frozen=True, kw_only=True)
class SoftEdgesConfig:
    channels: tuple[Size, ...] = (64, 128, 256, 512, 512)  # per scale
    layers: tuple[Count, ...] = (2, 2, 3, 3, 3)  # convolutions per scale


class SoftEdges(nn.Module):
    """Images to logits of edges at every scale."""

    def __init__(self, config: SoftEdgesConfig) -> None:
        super().__init__()
        self.config = config
        self.mean = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.scale = nn.ModuleList()
        width = 3
        for channels, layers in zip(config.channels, config.layers, strict=True):
            self.scale.append(Scale(width, channels, layers))
            width = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), RGB in 0 to 255, to (B, 1, H / 2^n, W / 2^n) for n = 0, 1, ..."""
        h = x - self.mean
        maps: list[Tensor] = []
        for index, scale in enumerate(self.scale):
            h, edges = scale(F.max_pool2d(h, 2) if index else h)
            maps.append(edges)
        return maps


class Scale(nn.Module):
    """3x3 convolutions, and a 1x1 one that reads edges from their features."""

    def __init__(self, in_channels: int, channels: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if index else in_channels, channels, 3, padding=1)
            for index in range(layers)
        )
        self.edges = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, H, W) to features (B, C, H, W) and edges (B, 1, H, W)."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return x, self.edges(x)
