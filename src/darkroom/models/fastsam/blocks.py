"""Blocks of a one-stage detector: a normed convolution, a cross-stage block, pooling at one scale.

Shapes: B batch, C channels, H W height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON, MOMENTUM = 1e-3, 0.03  # of the batch normalisation, as the published weights had them


class ConvNorm(nn.Module):
    """Convolution without a bias, batch normalisation, SiLU: (B, in, H, W) to (B, out, H/s, W/s).

    ``norm`` is an identity once ``fuse`` has folded it into the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)), inplace=not torch.is_grad_enabled())


class Pair(nn.Module):
    """Two 3x3 convolutions, with a skip around them where ``skip``."""

    def __init__(self, channels: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x))
        return x + h if self.skip else h


class CrossStage(nn.Module):
    """Half of the channels pass by, half go through a chain of pairs; all that came up is kept.

    Wang et al., CSPNet (arXiv:1911.11929); with every pair's output in the concatenation it is
    what YOLOv8 calls C2f.
    """

    def __init__(self, in_channels: int, out_channels: int, pairs: int, skip: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.enter = ConvNorm(in_channels, 2 * half)
        self.pair = nn.ModuleList(Pair(half, skip) for _ in range(pairs))
        self.leave = ConvNorm((2 + pairs) * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        kept = list(self.enter(x).chunk(2, dim=1))
        for pair in self.pair:
            kept.append(pair(kept[-1]))
        return self.leave(torch.cat(kept, dim=1))


class PyramidPooling(nn.Module):
    """Maxima over windows of 5, 9 and 13 pixels beside the features themselves.

    He et al. (arXiv:1406.4729), at one resolution; three windows of 5 after one another reach as
    far as one of 5, of 9 and of 13.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvNorm(channels, channels // 2)
        self.leave = ConvNorm(channels // 2 * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.enter(x)]
        for _ in range(3):
            kept.append(F.max_pool2d(kept[-1], 5, stride=1, padding=2))
        return self.leave(torch.cat(kept, dim=1))
