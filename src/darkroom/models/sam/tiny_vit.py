"""MobileSAM's image encoder (Zhang et al., arXiv:2306.14289).

It is TinyViT (Wu et al., arXiv:2207.10666), whose last stride is 1 here, without the classifier.

Shapes: B batch, C channels, h w height and width of a stage, N places of a window.
"""

import torch
from torch import Tensor, nn

from darkroom.models.sam.config import SamConfig, TinyVitConfig
from darkroom.models.sam.layers import Neck, joined, windows
from darkroom.ops.activation import gelu
from darkroom.ops.relative_attention import attend_biased


class TinyVit(nn.Module):
    """Pictures to features."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        tiny = config.encoder
        assert isinstance(tiny, TinyVitConfig)
        first = tiny.channels[0]
        self.stem1 = NormedConv(3, first // 2, 3, stride=2)
        self.stem2 = NormedConv(first // 2, first, 3, stride=2)
        self.stages = nn.ModuleList()
        self.between = nn.ModuleList()
        for stage, (channels, count) in enumerate(zip(tiny.channels, tiny.blocks, strict=True)):
            blocks = nn.Sequential()
            for _ in range(count):
                if not stage:
                    blocks.append(InvertedBottleneck(channels, tiny.expansion))
                    continue
                heads, window = tiny.heads[stage - 1], tiny.windows[stage - 1]
                blocks.append(Block(channels, heads, window, tiny.expansion))
            self.stages.append(blocks)
            if stage < len(tiny.strides):
                following = tiny.channels[stage + 1]
                self.between.append(Merging(channels, following, tiny.strides[stage]))
        self.neck = Neck(tiny.channels[-1], config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) to (B, channels, h, w)."""
        x = self.stem2(gelu(self.stem1(x)))
        x = self.stages[0](x)
        for merging, stage in zip(self.between, self.stages[1:], strict=True):
            x = stage(merging(x))
        return self.neck(x)


class NormedConv(nn.Module):
    """A convolution without a bias, padded to keep the size, and batch normalisation."""

    def __init__(
        self, in_channels: int, out_channels: int, side: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            side,
            stride=stride,
            padding=side // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h / stride, w / stride), rounded up."""
        return self.norm(self.conv(x))


class InvertedBottleneck(nn.Module):
    """Wider, a 3x3 convolution of each channel alone, and back, around a skip."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.conv1 = NormedConv(channels, hidden, 1)
        self.conv2 = NormedConv(hidden, hidden, 3, groups=hidden)
        self.conv3 = NormedConv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        h = gelu(self.conv1(x))
        h = gelu(self.conv2(h))
        return gelu(self.conv3(h) + x)


class Merging(nn.Module):
    """What stands between two stages: other channels, and fewer places."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(in_channels, channels, 1)
        self.conv2 = NormedConv(channels, channels, 3, stride, groups=channels)
        self.conv3 = NormedConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, C, h / stride, w / stride), rounded up."""
        return self.conv3(gelu(self.conv2(gelu(self.conv1(x)))))


class Block(nn.Module):
    """Attention within windows, a 3x3 convolution of each channel alone, and a feed-forward."""

    def __init__(self, channels: int, heads: int, window: int, expansion: int) -> None:
        super().__init__()
        self.window = window
        self.attention = WindowAttention(channels, heads, window)
        self.local = NormedConv(channels, channels, 3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, channels * expansion)
        self.down = nn.Linear(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        height, width = x.shape[2:]
        squares = windows(x.permute(0, 2, 3, 1), self.window)
        h = joined(self.attention(squares), height, width)
        x = self.local(x + h.permute(0, 3, 1, 2))
        h = self.down(gelu(self.up(self.norm(x.permute(0, 2, 3, 1)))))
        return x + h.permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Self-attention over a window; a bias of each head depends on how far apart two places are."""

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, channels * 3)  # q, k and v of a head lie together
        self.out = nn.Linear(channels, channels)
        self.biases = nn.Parameter(torch.zeros(heads, side**2))  # rows * side + columns apart

    def forward(self, x: Tensor) -> Tensor:
        """(B, side, side, C) to the same shape."""
        parts = self.qkv(self.norm(x)).flatten(1, 2).unflatten(-1, (self.heads, 3, -1))
        q, k, v = parts.permute(3, 0, 2, 1, 4)  # each (B, heads, N, D)
        attended = attend_biased(q, k, v, self.biases[:, self._apart()])
        return self.out(attended.transpose(1, 2).flatten(2).unflatten(1, (self.side, self.side)))

    def _apart(self) -> Tensor:
        """(N, N): which bias is for which two places."""
        places = torch.arange(self.side, device=self.biases.device)
        apart = (places[:, None] - places).abs()  # of rows, or of columns
        both = apart[:, None, :, None] * self.side + apart[None, :, None, :]
        return both.flatten(2).flatten(0, 1)
