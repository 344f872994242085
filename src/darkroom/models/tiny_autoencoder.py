"""TAESD: a tiny autoencoder for Stable Diffusion's latents, for previews (github madebyollin).

Shapes: images (B, 3, H, W) in [-1, 1]; scaled latents (B, C, H / 8, W / 8), as the U-Net has them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size


@dataclass(frozen=True, kw_only=True)
class TinyAutoencoderConfig:
    in_channels: Size = 3
    latent_channels: Size = 4
    channels: Size = 64  # at every level
    encoder_blocks: tuple[Count, ...] = (1, 3, 3, 3)  # per level, finest first
    decoder_blocks: tuple[Count, ...] = (3, 3, 3, 1)  # per level, coarsest first


TAESD = TinyAutoencoderConfig()  # for SD 1.x and 2.x; TAESDXL has the same sizes
TAESD3 = TinyAutoencoderConfig(latent_channels=16)  # for SD 3 and FLUX.1


class TinyAutoencoder(nn.Module):
    """Scaled latents to an image and back, hundreds of times faster than the real autoencoder."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder(config)
        self.decoder = decoder(config)

    @property
    def factor(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.config.decoder_blocks) - 1)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.config.latent_channels

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents. There is no spread to sample from: ``noise`` changes nothing."""
        return self.encoder((image + 1) / 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to an image; values may exceed [-1, 1] a little."""
        return self.decoder(torch.tanh(latents / 3) * 3) * 2 - 1


class TinyBlock(nn.Module):
    """Three convolutions around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))) + x)


def encoder(config: TinyAutoencoderConfig) -> nn.Sequential:
    """Image in [0, 1] to scaled latents."""
    width = config.channels
    layers: list[nn.Module] = []
    for level, blocks in enumerate(config.encoder_blocks):
        if level == 0:
            layers.append(nn.Conv2d(config.in_channels, width, 3, padding=1))
        else:
            layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
        layers.extend(TinyBlock(width) for _ in range(blocks))
    layers.append(nn.Conv2d(width, config.latent_channels, 3, padding=1))
    return nn.Sequential(*layers)


def decoder(config: TinyAutoencoderConfig) -> nn.Sequential:
    """Latents in (-3, 3) to an image in [0, 1]."""
    width = config.channels
    layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, width, 3, padding=1), nn.ReLU()]
    for level, blocks in enumerate(config.decoder_blocks):
        layers.extend(TinyBlock(width) for _ in range(blocks))
        if level < len(config.decoder_blocks) - 1:
            layers.append(nn.Upsample(scale_factor=2))
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
    layers.append(nn.Conv2d(width, config.in_channels, 3, padding=1))
    return nn.Sequential(*layers)
