"""Tells made images from real ones, patch by patch (Isola et al., arXiv:1611.07004, section 3.2).

Shapes: images (B, C, H, W) in [-1, 1]; one score for each overlapping patch, (B, 1, h, w).
"""

import itertools
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Size


@dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig:
    in_channels: Size = 3
    channels: tuple[Size, ...] = (64, 128, 256)  # each halves the resolution
    groups: Size = 8  # of every GroupNorm: no image's score depends on the others of its batch


class PatchDiscriminator(nn.Module):
    """High for real patches, low for made ones; without bounds."""

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.input = nn.Conv2d(config.in_channels, c[0], 4, stride=2, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in itertools.pairwise(c)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(config.groups, b) for b in c[1:])
        self.output = nn.Conv2d(c[-1], 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        h = F.leaky_relu(self.input(image), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h)), 0.2)
        return self.output(h)
