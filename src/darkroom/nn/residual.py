"""The residual block of the U-Nets and the autoencoder, and their resizing layers."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.nn.normalization import NormSilu


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, around a skip; the timestep is added in between.

    Args:
        embed_channels: width of the timestep embedding; None = a block without one.
        groups: of the two GroupNorms; must divide both channel counts.
        eps: of the two GroupNorms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embed_channels: int | None = None,
        groups: int = 32,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = NormSilu(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = None if embed_channels is None else nn.Linear(embed_channels, out_channels)
        self.norm2 = NormSilu(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embed: Tensor | None = None) -> Tensor:
        """(B, in, H, W) and an embedding (B, E) -> (B, out, H, W)."""
        h = self.conv1(self.norm1(x))
        if self.embed is not None and embed is not None:
            h += self.embed(F.silu(embed))[:, :, None, None]
        h = self.conv2(self.norm2(h))
        h += self.skip(x)  # in place: no gradient needs what a convolution put out
        return h


class Upsample(nn.Module):
    """Twice as high and wide: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """``size`` (height, width), when it is not just twice that of ``x``."""
        if size is None:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.interpolate(x, size=tuple(size), mode="nearest"))
