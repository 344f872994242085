"""SAM's image encoder: a plain vision transformer (Li et al., arXiv:2203.16527).

Shapes: B batch, C channels, h w patches of the picture, D channels of a head.
"""

import torch
from torch import Tensor, nn

from darkroom.models.sam.config import SamConfig, VitConfig
from darkroom.models.sam.layers import Neck, joined, windows
from darkroom.ops.activation import gelu
from darkroom.ops.relative_attention import AttendRelative, attend_relative_torch


class ImageEncoder(nn.Module):
    """Pictures to features."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        vit = config.encoder
        assert isinstance(vit, VitConfig)
        self.patches = nn.Conv2d(3, vit.channels, vit.patch, stride=vit.patch)
        self.position = nn.Parameter(torch.zeros(1, config.grid, config.grid, vit.channels))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList(
            Block(vit, 0 if layer in vit.global_layers else vit.window, config.grid)
            for layer in range(vit.layers)
        )
        self.neck = Neck(vit.channels, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) to (B, channels, h, w)."""
        x = self.patches(x).permute(0, 2, 3, 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class Block(nn.Module):
    """Self-attention and a feed-forward, each normalised before.

    Args:
        window: patches of a side that see each other; 0 = all of the picture's do.
        grid: patches of a side of the picture.
    """

    def __init__(self, config: VitConfig, window: int, grid: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.channels, eps=config.eps)
        self.attention = RelativeAttention(config.channels, config.heads, window, grid)
        self.norm2 = nn.LayerNorm(config.channels, eps=config.eps)
        self.up = nn.Linear(config.channels, config.hidden)
        self.down = nn.Linear(config.hidden, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(gelu(self.up(self.norm2(x))))


class RelativeAttention(nn.Module):
    """Self-attention over a picture, with decomposed relative positions.

    Args:
        window: patches of a side that see each other; 0 = all of the picture's do.
        grid: patches of a side of the picture.
    """

    def __init__(self, channels: int, heads: int, window: int, grid: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.attend: AttendRelative = attend_relative_torch  # swapped per instance
        self.qkv = nn.Linear(channels, channels * 3)
        self.out = nn.Linear(channels, channels)
        side = window or grid
        # row i is for a key side - 1 - i patches below (right of) the query
        self.rows = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))
        self.columns = nn.Parameter(torch.zeros(2 * side - 1, channels // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to the same shape."""
        height, width = x.shape[1:3]
        parts = self.qkv(x)
        if self.window:  # what fills windows at the edge is attended to, as in the paper's code:
            parts = windows(parts, self.window, self.qkv.bias)  # zeros, which the layer makes this
        rows, columns = parts.shape[1:3]
        parts = parts.flatten(1, 2).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, rows * columns, D)
        grid = q.unflatten(2, (rows, columns))
        down = torch.einsum("bhrcd,rkd->bhrck", grid, between(self.rows)).flatten(2, 3)
        across = torch.einsum("bhrcd,ckd->bhrck", grid, between(self.columns)).flatten(2, 3)
        attended = self.attend(q, k, v, down, across)  # (B, heads, rows * columns, D)
        attended = attended.transpose(1, 2).flatten(2).unflatten(1, (rows, columns))
        return self.out(joined(attended, height, width) if self.window else attended)


def between(table: Tensor) -> Tensor:
    """(2 n - 1, D) by distance -> (n, n, D) by place of the query and of the key."""
    places = torch.arange((len(table) + 1) // 2, device=table.device)
    return table[places[:, None] - places + places[-1]]
