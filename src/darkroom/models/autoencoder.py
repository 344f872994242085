"""The KL-regularised autoencoder between pictures and latents (Rombach et al., arXiv:2112.10752).

Shapes: images (B, 3, H, W) in [-1, 1]; latents (B, C, H / factor, W / factor).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.nn.attention import PixelAttention
from darkroom.nn.normalization import NormSilu
from darkroom.nn.residual import ResidualBlock, Upsample


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    in_channels: Size = 3
    latent_channels: Size = 4
    channels: tuple[Size, ...] = (128, 256, 512, 512)  # per level, finest first
    blocks: Count = 2  # residual blocks per level going down; one more going up
    groups: Size = 32  # of every GroupNorm
    scale: float = 0.18215  # latents are multiplied by this: unit variance for the U-Net
    shift: float = 0.0  # subtracted before the scale
    mean: tuple[float, ...] = ()  # of each channel, subtracted likewise; none = 0
    deviation: tuple[float, ...] = ()  # of each channel, latents are divided by it; none = 1
    quantize: bool = True  # 1x1 convolutions on both sides of the latent
    middle_attention: bool = True
    patch: Size = 1  # pixels per side folded into channels before the first convolution

    def __post_init__(self) -> None:
        for name in ("mean", "deviation"):
            if len(getattr(self, name)) not in (0, self.latent_channels):
                raise ValueError(f"{name} {getattr(self, name)}: expected {self.latent_channels}")
        if not all(value > 0 for value in self.deviation):
            raise ValueError(f"deviation {self.deviation}: expected numbers above 0")


SD_AUTOENCODER = AutoencoderConfig()
SDXL_AUTOENCODER = AutoencoderConfig(scale=0.13025)


class Autoencoder(nn.Module):
    """Encodes images to scaled latents and back."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = nn.Conv2d(2 * latent, 2 * latent, 1) if config.quantize else None
        self.unquantize = nn.Conv2d(latent, latent, 1) if config.quantize else None

    @property
    def factor(self) -> int:
        """Pixels per latent, along each side."""
        return self.config.patch * 2 ** (len(self.config.channels) - 1)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.config.latent_channels

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (clamped to [-30, 20]) of the unscaled latent distribution."""
        h = self.encoder(image)
        if self.quantize is not None:
            h = self.quantize(h)
        mean, log_variance = h.chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents: the mean, or with ``noise`` (unit normal, latent shape) a sample."""
        mean, log_variance = self.moments(image)
        if noise is not None:
            mean = mean + (log_variance / 2).exp() * noise
        shift, deviation = self._normal(mean)
        return (mean - shift) * self.config.scale / deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to an image; values may exceed [-1, 1] a little."""
        shift, deviation = self._normal(latents)
        z = latents * deviation / self.config.scale + shift
        if self.unquantize is not None:
            z = self.unquantize(z)
        return self.decoder(z)

    def _normal(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """What is subtracted from a latent, and what it is divided by: numbers, or (C, 1, 1)."""
        config = self.config
        mean = like.new_tensor(config.mean)[:, None, None] if config.mean else 0.0
        deviation = like.new_tensor(config.deviation)[:, None, None] if config.deviation else 1.0
        return mean + config.shift, deviation


class Encoder(nn.Module):
    """Image to the moments of its latent, stacked: (B, 2 C, h, w)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c = config.channels
        self.fold = nn.PixelUnshuffle(config.patch) if config.patch > 1 else nn.Identity()
        self.input = nn.Conv2d(config.in_channels * config.patch**2, c[0], 3, padding=1)
        self.down, width = nn.ModuleList(), c[0]
        for level, out in enumerate(c):
            for _ in range(config.blocks):
                self.down.append(residual(config, width, out))
                width = out
            if level < len(c) - 1:
                self.down.append(Downsample(width))
        self.middle = middle(config)
        self.norm = NormSilu(config.groups, width, eps=1e-6)
        self.output = nn.Conv2d(width, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(self.fold(x))
        for layer in self.down:
            x = layer(x)
        return self.output(self.norm(self.middle(x)))


class Decoder(nn.Module):
    """Latent to image."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c = config.channels
        width = c[-1]
        self.input = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.middle = middle(config)
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(c))):
            for _ in range(config.blocks + 1):
                self.up.append(residual(config, width, out))
                width = out
            if level > 0:
                self.up.append(Upsample(width))
        self.norm = NormSilu(config.groups, width, eps=1e-6)
        self.output = nn.Conv2d(width, config.in_channels * config.patch**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(config.patch) if config.patch > 1 else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        x = self.middle(self.input(z))
        for layer in self.up:
            x = layer(x)
        return self.unfold(self.output(self.norm(x)))


class Downsample(nn.Module):
    """Half as high and wide; the padding is on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


def residual(config: AutoencoderConfig, in_channels: int, out_channels: int) -> ResidualBlock:
    """A residual block without a timestep."""
    return ResidualBlock(in_channels, out_channels, None, config.groups, eps=1e-6)


def middle(config: AutoencoderConfig) -> nn.Sequential:
    """Residual block, attention, residual block at the coarsest level."""
    width = config.channels[-1]
    attention: nn.Module = nn.Identity()
    if config.middle_attention:
        attention = PixelAttention(width, config.groups)
    return nn.Sequential(residual(config, width, width), attention, residual(config, width, width))


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, variance) from N(0, 1), in nats: (B,) (Kingma & Welling, appendix B)."""
    per_value = mean.square() + log_variance.exp() - 1.0 - log_variance
    return 0.5 * torch.sum(per_value, dim=(1, 2, 3))
