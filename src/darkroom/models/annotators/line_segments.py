"""Straight lines: M-LSD (Gu et al., arXiv:2106.00186), on MobileNetV2 (arXiv:1801.04381).

The large one joins four scales and ends at half of the picture's size; the tiny one leaves out the
coarsest and the finest stage, and its maps are enlarged.

Shapes: B batch, H W height and width of the image, both multiples of 16. A line is a point, its
middle, with the displacements of its two ends.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Size

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
# of the backbone: how many times wider inside, channels, blocks, stride
SKIPPED = 7  # first output channels: of a training objective, not of lines


@dataclass(frozen=True, kw_only=True)
class LineSegmentsConfig:
    stem: Size = 32  # channels after the first convolution
    channels: Size = 64  # of the decoder
    joins: tuple[Size, ...] = (64, 64, 64, 64)  # channels that each join takes from either side
    stages: Size = 5  # of the backbone, at most all of them

    def __post_init__(self) -> None:
        if not 2 <= self.stages <= len(STAGES) or self.stages - len(self.joins) not in (1, 2):
            raise ValueError(f"{self.stages} stages and {len(self.joins)} joins fit no M-LSD")


LARGE = LineSegmentsConfig()
TINY = LineSegmentsConfig(joins=(64, 32), stages=4)


class LineSegments(nn.Module):
    """Images to maps of line middles and their ends."""

    def __init__(self, config: LineSegmentsConfig) -> None:
        super().__init__()
        self.config = config
        width, scales = config.stem, []
        self.input = Normed(4, width, 3, stride=2, most=6)
        self.stage = nn.ModuleList()
        for wider, channels, count, stride in STAGES[: config.stages]:
            blocks = nn.Sequential()
            for block in range(count):
                blocks.append(Inverted(width, channels, wider, 1 if block else stride))
                width = channels
            self.stage.append(blocks)
            scales.append(width)
        c = config.channels
        self.joins = nn.ModuleList()
        for fine, inside in zip(reversed(scales[:-1]), config.joins, strict=False):
            self.joins.append(Join(fine, width, inside, c))
            width = c
        self.middle = Normed(c, c, 3, dilation=5, bias=True)
        self.last = Normed(c, c, 3, bias=True)
        self.output = nn.Conv2d(c, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """To (B, 9, H / 2, W / 2): a middle's logit, then x, y of its start and end from there.

        Args:
            x: (B, 4, H, W), RGB in [-1, 1] and a fourth channel that says which pixels are there.
        """
        x = self.input(x)
        features: list[Tensor] = []
        for stage in self.stage:
            x = stage(x)
            features.append(x)
        for index, join in enumerate(self.joins):
            x = join(features[-2 - index], x)
        maps = self.output(self.last(self.middle(x)))[:, SKIPPED:]
        if len(features) - len(self.joins) == 1:
            return maps  # at half of the image's size
        return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=True)


class Normed(nn.Module):
    """Convolution, batch normalisation and ReLU, clipped at ``most`` or not.

    With stride 2 the image is padded at the right and bottom only, as TensorFlow does.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
        most: float = float("inf"),
    ) -> None:
        super().__init__()
        self.most = most
        self.uneven = stride == 2
        padding = 0 if self.uneven else dilation * (size // 2)
        self.conv = nn.Conv2d(
            in_channels, channels, size, stride, padding, dilation, groups, bias=bias
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, C, H / stride, W / stride)."""
        if self.uneven:
            x = F.pad(x, (0, 1, 0, 1))
        return self.norm(self.conv(x)).clamp(0, self.most)


class Inverted(nn.Module):
    """MobileNetV2's block: widen, filter each channel alone, narrow; around a skip if it fits."""

    def __init__(self, in_channels: int, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        inside = in_channels * wider
        self.widen = Normed(in_channels, inside, 1, most=6) if wider > 1 else None
        self.filter = Normed(inside, inside, 3, stride=stride, groups=inside, most=6)
        self.narrow = nn.Conv2d(inside, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.skips = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, C, H / stride, W / stride)."""
        h = x if self.widen is None else self.widen(x)
        h = self.norm(self.narrow(self.filter(h)))
        return x + h if self.skips else h


class Join(nn.Module):
    """Features of one scale with those of the next coarser, or equal, one."""

    def __init__(self, fine: int, coarse: int, inside: int, channels: int) -> None:
        super().__init__()
        self.fine = Normed(fine, inside, 1, bias=True)
        self.coarse = Normed(coarse, inside, 1, bias=True)
        self.residual = Normed(2 * inside, 2 * inside, 3, bias=True)
        self.last = Normed(2 * inside, channels, 3, bias=True)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, fine, H, W) and (B, coarse, H / 2 or H, ...) to (B, C, H, W)."""
        below = self.coarse(coarse)
        if below.shape[2:] != fine.shape[2:]:
            below = F.interpolate(below, scale_factor=2.0, mode="bilinear", align_corners=True)
        x = torch.cat((self.fine(fine), below), dim=1)
        return self.last(x + self.residual(x))
