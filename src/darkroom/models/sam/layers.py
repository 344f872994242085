"""Layers that several parts of segment-anything use."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6  # of every norm over the channels of a picture


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Neck(nn.Module):
    """The last convolutions of an image encoder."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, channels, h, w)."""
        return self.norm2(self.conv2(self.norm1(self.conv1(x))))


class Perceptron(nn.Module):
    """Linear layers with a ReLU between each two."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, layers: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden] * (layers - 1), out_channels]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def windows(x: Tensor, side: int, fill: Tensor | None = None) -> Tensor:
    """(B, h, w, C) cut into squares: (B * n, side, side, C).

    Args:
        fill: (C,), what is put below and on the right of the last; None = zeros.
    """
    height, width = x.shape[1:3]
    below, right = -height % side, -width % side
    if below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
        if fill is not None:
            x[:, height:] = fill
            x[:, :height, width:] = fill
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, rows, side, columns, side, C)
    return x.transpose(2, 3).flatten(0, 2)


def joined(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``windows``, for a picture of that size."""
    side = x.shape[1]
    rows, columns = -(-height // side), -(-width // side)
    x = x.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # (B, rows, side, columns, side, C)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]
