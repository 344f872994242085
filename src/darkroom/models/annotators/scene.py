"""What every pixel shows: UperNet (arXiv:1807.10221) on UniFormer (arXiv:2201.09450).

Shapes: B batch, C channels, H W height and width of the image, multiples of 32. The first two
scales mix neighbours with convolutions, the last two all places with attention.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.ops.activation import gelu

POOLED = (1, 2, 3, 6)  # places along each side to which the coarsest features are averaged
HEAD = 64  # channels of an attention head
CONVOLUTIONAL = 2  # scales


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    channels: tuple[Size, ...] = (64, 128, 320, 512)  # per scale; the last two multiples of 64
    blocks: tuple[Count, ...] = (3, 4, 8, 3)  # per scale
    decoder: Size = 512  # channels of the decoder
    classes: Count = 150


class Scene(nn.Module):
    """Images to logits of classes, at a quarter of their size."""

    def __init__(self, config: SceneConfig) -> None:
        super().__init__()
        self.config = config
        self.scale, width = nn.ModuleList(), 3
        for index, (channels, blocks) in enumerate(
            zip(config.channels, config.blocks, strict=True)
        ):
            block = Local if index < CONVOLUTIONAL else Global
            self.scale.append(Scale(width, channels, 2 if index else 4, block, blocks))
            width = channels
        c = config.decoder
        self.pooled = nn.ModuleList(Normed(width, c, 1) for _ in POOLED)
        self.coarsest = Normed(width + len(POOLED) * c, c, 3)
        self.lateral = nn.ModuleList(Normed(channels, c, 1) for channels in config.channels[:-1])
        self.smooth = nn.ModuleList(Normed(c, c, 3) for _ in config.channels[:-1])
        self.fuse = Normed(len(config.channels) * c, c, 3)
        self.output = nn.Conv2d(c, config.classes, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised as ImageNet's, to (B, C, H / 4, W / 4), ... / 8, 16, 32."""
        found: list[Tensor] = []
        for scale in self.scale:
            x, normed = scale(x)
            found.append(normed)
        return found

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features, finest first, to logits (B, classes, H / 4, W / 4)."""
        last = features[-1]
        pooled = [
            _resized(conv(F.adaptive_avg_pool2d(last, size)), last)
            for conv, size in zip(self.pooled, POOLED, strict=True)
        ]
        x = self.coarsest(torch.cat((last, *pooled), dim=1))
        out = [x]
        for index in reversed(range(len(self.lateral))):
            x = self.lateral[index](features[index])
            x = x + _resized(out[0], x)
            out.insert(0, x)
        smooth = [conv(x) for conv, x in zip(self.smooth, out, strict=False)]
        maps = (_resized(x, out[0]) for x in (*smooth, out[-1]))
        return self.output(self.fuse(torch.cat(tuple(maps), dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        """As ``features``, to logits (B, classes, H / 4, W / 4)."""
        return self.decode(self.features(x))


class Normed(nn.Module):
    """Convolution, batch normalisation and ReLU."""

    def __init__(self, in_channels: int, channels: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, size, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, C, H, W)."""
        return F.relu(self.norm(self.conv(x)))


class Scale(nn.Module):
    """Patches to features, through blocks."""

    def __init__(
        self, in_channels: int, channels: int, patch: int, block: type[nn.Module], blocks: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, channels, patch, stride=patch)
        self.patch_norm = nn.LayerNorm(channels)
        self.block = nn.ModuleList(block(channels) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, H, W) to (B, C, H / patch, W / patch), as the next scale and as others use it."""
        x = _channels_last(self.patch_norm, self.patches(x))
        for block in self.block:
            x = block(x)
        return x, _channels_last(self.norm, x)


class Local(nn.Module):
    """A 5x5 filter of each channel, between mixes of channels, and an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.before = nn.Conv2d(channels, channels, 1)
        self.filter = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.after = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp1 = nn.Conv2d(channels, 4 * channels, 1)
        self.mlp2 = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        x = x + self.position(x)
        x = x + self.after(self.filter(self.before(self.norm1(x))))
        return x + self.mlp2(gelu(self.mlp1(self.norm2(x))))


class Global(nn.Module):
    """Attention between all places, and an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp1 = nn.Linear(channels, 4 * channels)
        self.mlp2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        x = x + self.position(x)
        h = x.flatten(2).transpose(1, 2)  # (B, H W, C)
        q, k, v = (
            part.unflatten(2, (-1, HEAD)).transpose(1, 2)
            for part in self.qkv(self.norm1(h)).chunk(3, dim=2)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + self.out(seen)
        h = h + self.mlp2(gelu(self.mlp1(self.norm2(h))))
        return h.transpose(1, 2).unflatten(2, x.shape[2:])


def _channels_last(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
