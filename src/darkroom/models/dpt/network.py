"""DPT, a vision transformer that tells depth (Ranftl et al., arXiv:2103.13413).

Shapes: B batch, C channels, H W height and width of the image, N patches of 16x16 pixels.
DPT-large looks at the patches themselves, DPT-hybrid at what a convolutional stem makes of them.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.models.dpt.stem import Stem, StemConfig
from darkroom.models.dpt.view import View
from darkroom.nn.attention import Attention
from darkroom.ops.activation import gelu

PATCH = 16  # pixels of a side
COARSEST = 32  # pixels of a side of the coarsest features
HEAD = 32  # channels of the head's last layer but one


@dataclass(frozen=True, kw_only=True)
class DPTConfig:
    stem: StemConfig | None = None  # None = patches of the image
    grid: Size = 24  # patches of a side that it has positions for; others are interpolated
    channels: Size = 1024
    layers: Count = 24
    heads: Size = 16
    hidden: Size = 4096  # width of the feed-forward
    eps: float = 1e-12  # of every LayerNorm
    taps: tuple[Count, ...] = (5, 11, 17, 23)  # layers whose output is reassembled, from 0
    scales: tuple[float, ...] = (4, 2, 1, 0.5)  # of each of them: resolution over the patches'
    widths: tuple[Size, ...] = (256, 512, 1024, 1024)  # channels of the four scales, finest first
    features: Size = 256  # channels where the scales are fused
    view: View = field(default_factory=View)


DPT_LARGE = DPTConfig()
DPT_HYBRID = DPTConfig(
    stem=StemConfig(),
    channels=768,
    layers=12,
    heads=12,
    hidden=3072,
    taps=(8, 11),
    scales=(1, 0.5),
    widths=(256, 512, 768, 768),
)


class DPT(nn.Module):
    """Images to relative inverse depth."""

    def __init__(self, config: DPTConfig) -> None:
        super().__init__()
        self.config = config
        channels, features = config.channels, config.features
        self.token = nn.Parameter(torch.zeros(1, 1, channels))  # reads out the whole image
        self.position = nn.Parameter(torch.zeros(1, config.grid**2 + 1, channels))
        if config.stem is None:
            self.stem = None
            self.patches = nn.Conv2d(3, channels, PATCH, stride=PATCH)
        else:
            self.stem = Stem(config.stem)
            self.patches = nn.Conv2d(config.stem.widths[-1], channels, 1)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        widths = config.widths[-len(config.taps) :]
        self.reassemble = nn.ModuleList(
            Reassemble(channels, width, scale)
            for width, scale in zip(widths, config.scales, strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(width, features, 3, padding=1, bias=False) for width in config.widths
        )
        coarsest = len(config.widths) - 1
        self.fusion = nn.ModuleList(
            Fusion(features, skips=scale < coarsest) for scale in range(coarsest + 1)
        )
        self.head = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.Conv2d(features // 2, HEAD, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HEAD, 1, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), as ``config.view`` makes it, to (B, H, W): 0 far away, larger is nearer.

        Raises:
            ValueError: sides that are no multiples of 32.
        """
        height, width = x.shape[2:]
        if height % COARSEST or width % COARSEST:
            raise ValueError(f"{width}x{height} pixels; this network takes multiples of {COARSEST}")
        stages: list[Tensor] = []
        if self.stem is not None:
            stages = self.stem(x)
            x = stages.pop()
        x = self.patches(x)
        rows, columns = x.shape[2:]
        x = torch.cat((self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)), dim=1)
        x = x + self._positions(rows, columns)
        tapped: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            x = block(x)
            if layer in self.config.taps:
                tapped.append(x)
        for reassemble, tokens in zip(self.reassemble, tapped, strict=True):
            stages.append(reassemble(tokens, rows, columns))
        fused = None
        for scale in reversed(range(len(stages))):
            fused = self.fusion[scale](self.narrow[scale](stages[scale]), fused)
        return self.head(fused)[:, 0]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows * columns, C)."""
        grid = self.config.grid
        if (rows, columns) == (grid, grid):
            return self.position
        places = self.position[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        places = F.interpolate(places, size=(rows, columns), mode="bilinear")
        return torch.cat((self.position[:, :1], places.flatten(2).transpose(1, 2)), dim=1)


class Block(nn.Module):
    """Self-attention and a feed-forward, each normalised before."""

    def __init__(self, config: DPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.channels, eps=config.eps)
        self.attention = Attention(config.channels, config.heads, bias=True)
        self.norm2 = nn.LayerNorm(config.channels, eps=config.eps)
        self.up = nn.Linear(config.channels, config.hidden)
        self.down = nn.Linear(config.hidden, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + N, C) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(gelu(self.up(self.norm2(x))))


class Reassemble(nn.Module):
    """Tokens to a feature map: the first one joins each of the others ("project")."""

    def __init__(self, channels: int, width: int, scale: float) -> None:
        super().__init__()
        self.readout = nn.Linear(2 * channels, channels)
        self.project = nn.Conv2d(channels, width, 1)
        if scale > 1:
            side = int(scale)
            self.resize = nn.ConvTranspose2d(width, width, side, stride=side)
        elif scale < 1:
            self.resize = nn.Conv2d(width, width, 3, stride=round(1 / scale), padding=1)
        else:
            self.resize = nn.Identity()

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """(B, 1 + N, C) to (B, width, rows * scale, columns * scale)."""
        patches = x[:, 1:]
        x = torch.cat((patches, x[:, :1].expand_as(patches)), dim=-1)
        x = gelu(self.readout(x)).transpose(1, 2).unflatten(2, (rows, columns))
        return self.resize(self.project(x))


class Fusion(nn.Module):
    """Adds one scale to what the coarser ones made, and doubles the resolution (RefineNet).

    Args:
        skips: whether there is something coarser.
    """

    def __init__(self, features: int, skips: bool) -> None:
        super().__init__()
        self.skip = Refine(features) if skips else None
        self.refine = Refine(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, coarser: Tensor | None = None) -> Tensor:
        """(B, F, h, w), both, to (B, F, 2h, 2w)."""
        if self.skip is not None:
            assert coarser is not None
            x = coarser + self.skip(x)
        x = self.out(self.refine(x))  # of each pixel alone: the same after, with four times as many
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class Refine(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, around a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W) to the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))
