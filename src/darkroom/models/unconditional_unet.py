"""The U-Net of unconditional and class-conditional diffusion (Ho et al., arXiv:2006.11239).

Shapes: B batch, C channels, H W height and width of pixels or latents.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.nn.attention import PixelAttention
from darkroom.nn.embedding import Embedder, sinusoid
from darkroom.nn.normalization import NormSilu
from darkroom.nn.residual import ResidualBlock, Upsample


@dataclass(frozen=True, kw_only=True)
class UnconditionalUNetConfig:
    in_channels: Size = 3
    out_channels: Size = 3
    channels: tuple[Size, ...] = (224, 448, 672, 896)  # per level, finest first
    attention: tuple[bool, ...] = (False, True, True, True)  # per level
    middle_attention: bool = True
    blocks: Count = 2  # residual blocks per level going down; one more going up
    head_channels: Size | None = 8  # width of an attention head; None = one head
    groups: Size = 32  # of every GroupNorm
    eps: float = 1e-5  # of every GroupNorm
    classes: Count = 0  # 0 = unconditional
    downsample_padding: Count = 1  # 0 = a row and a column of zeros on the right and below only
    frequency_shift: Count = 0  # in the timestep's sinusoids; 1 in the networks of the paper
    sines_first: bool = False  # in the timestep's sinusoids


DDPM_256 = UnconditionalUNetConfig(  # google/ddpm-cat-256 and its siblings
    channels=(128, 128, 256, 256, 512, 512),
    attention=(False, False, False, False, True, False),
    head_channels=None,
    eps=1e-6,
    downsample_padding=0,
    frequency_shift=1,
    sines_first=True,
)
MNIST = UnconditionalUNetConfig(  # of "Modern Computer Vision with PyTorch", chapter 16
    in_channels=1, out_channels=1, channels=(32, 64, 128, 256), blocks=1
)
MNIST_CONDITIONAL = UnconditionalUNetConfig(  # 32 channels say which digit to draw
    in_channels=33, out_channels=1, channels=(32, 64, 128, 256), blocks=1
)


class UnconditionalUNet(nn.Module):
    """Predicts noise (or the clean image) from a noisy image and a timestep.

    Raises:
        ValueError: when levels and attention do not match, or a head does not divide its level.
    """

    def __init__(self, config: UnconditionalUNetConfig) -> None:
        super().__init__()
        check(config)
        self.config = config
        c, embed = config.channels, config.channels[0] * 4
        self.time = Embedder(c[0], embed)
        self.label = nn.Embedding(config.classes, embed) if config.classes else None

        def stage(in_channels: int, level: int, resize: nn.Module | None = None) -> Stage:
            return Stage(config, in_channels, c[level], config.attention[level], resize)

        self.input = nn.Conv2d(config.in_channels, c[0], 3, padding=1)
        self.down, widths = nn.ModuleList(), [c[0]]  # widths[i]: channels of skip i
        for level, width in enumerate(c):
            for _ in range(config.blocks):
                self.down.append(stage(widths[-1], level))
                widths.append(width)
            if level < len(c) - 1:
                self.down.append(Downsample(width, config.downsample_padding))
                widths.append(width)

        self.middle = Stage(config, c[-1], c[-1], config.middle_attention)
        self.middle_out = Stage(config, c[-1], c[-1], False)

        self.up, current = nn.ModuleList(), c[-1]
        for level, width in reversed(list(enumerate(c))):
            for block in range(config.blocks + 1):
                last = level > 0 and block == config.blocks
                resize = Upsample(width) if last else None
                self.up.append(stage(current + widths.pop(), level, resize))
                current = width
        self.norm = NormSilu(config.groups, c[0], eps=config.eps)
        self.output = nn.Conv2d(c[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """One prediction, shaped like ``x`` with ``out_channels`` channels.

        Args:
            x: (B, C, H, W); H and W multiples of 2^(levels - 1).
            t: (B,) timesteps, may be fractional.
            label: (B,) class numbers, for a network with classes.

        Raises:
            ValueError: when a label is missing or not wanted.
        """
        if (label is None) != (self.label is None):
            wanted = f"one of {self.config.classes} classes" if self.label else "no label"
            raise ValueError(f"this network takes {wanted}; got label={label}")
        config = self.config
        features = sinusoid(
            t, config.channels[0], shift=config.frequency_shift, sines_first=config.sines_first
        )
        embed = self.time(features.to(x.dtype))
        if self.label is not None:
            embed = embed + self.label(label)

        x = self.input(x)
        skips = [x]
        for layer in self.down:
            x = layer(x, embed)
            skips.append(x)
        x = self.middle_out(self.middle(x, embed), embed)
        for layer in self.up:
            x = layer(torch.cat((x, skips.pop()), dim=1), embed)
        return self.output(self.norm(x))


class Stage(nn.Module):
    """A residual block, then optionally attention, then optionally a resize."""

    def __init__(
        self,
        config: UnconditionalUNetConfig,
        in_channels: int,
        out_channels: int,
        attention: bool,
        resize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(
            in_channels, out_channels, config.channels[0] * 4, config.groups, config.eps
        )
        self.attention = None
        if attention:
            heads = out_channels // (config.head_channels or out_channels)
            self.attention = PixelAttention(out_channels, config.groups, heads, config.eps)
        self.resize = resize

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        x = self.residual(x, embed)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.resize is None else self.resize(x)


class Downsample(nn.Module):
    """Half as high and wide, by a convolution of stride 2."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        return self.conv(x if self.conv.padding[0] else F.pad(x, (0, 1, 0, 1)))


def check(config: UnconditionalUNetConfig) -> None:
    """Raise ValueError where the sizes contradict each other."""
    if len(config.attention) != len(config.channels):
        raise ValueError(
            f"attention has {len(config.attention)} levels, channels {len(config.channels)}; "
            "expected one value per level in each"
        )
    attended = {c for c, attend in zip(config.channels, config.attention, strict=True) if attend}
    if config.middle_attention:
        attended.add(config.channels[-1])
    for channels in attended:
        if config.head_channels and channels % config.head_channels:
            raise ValueError(
                f"head_channels {config.head_channels} does not divide a level of {channels}"
            )
