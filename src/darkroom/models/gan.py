"""A generative adversarial network for small images, in the manner of DCGAN.

Goodfellow et al., arXiv:1406.2661; Radford et al., arXiv:1511.06434. GroupNorm stands in for batch
normalisation (an image then depends on its own latent alone), and spectral normalisation steadies
the discriminator (Miyato et al., arXiv:1802.05957).

Shapes: images (B, C, S, S) in [-1, 1]; latents (B, L), unit normal.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from darkroom.config import Size


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    image_channels: Size = 1
    size: Size = 28  # pixels; a multiple of 2^levels
    latent: Size = 64
    channels: tuple[Size, ...] = (80, 160)  # per halving of the size, finest first; multiples of 8

    def __post_init__(self) -> None:
        if self.size % 2 ** len(self.channels):
            raise ValueError(f"size {self.size} cannot be halved {len(self.channels)} times")
        if any(c % 8 for c in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of 8")


class GAN(nn.Module):
    """A generator and a discriminator, trained by one optimizer on ``losses``."""

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def forward(self, z: Tensor) -> Tensor:
        """Latents to images."""
        return self.generator(z)

    def losses(self, real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of the discriminator and of the generator, as ``hinge_losses``."""
        return hinge_losses(self.discriminator, real, self.generator(z))

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` images; the latents are drawn on the CPU."""
        z = torch.randn(count, self.config.latent, generator=generator)
        return self(z.to(next(self.parameters()).device))


def hinge_losses(discriminator: nn.Module, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Of the discriminator and of whatever made ``made``; neither has a gradient in the other.

    The hinge form (Lim & Ye, arXiv:1705.02894): the discriminator wants real images above 1 and
    made ones below -1, the maker wants its own as high as they get.
    """
    of_real, of_made = discriminator(torch.cat((real, made.detach()))).split(len(real))
    of_discriminator = F.relu(1 - of_real).mean() + F.relu(1 + of_made).mean()
    fixed = {name: p.detach() for name, p in discriminator.named_parameters()}
    of_maker = -functional_call(discriminator, fixed, (made,)).mean()
    return of_discriminator, of_maker


class Generator(nn.Module):
    """A linear map to the coarsest feature map, then one transposed convolution per doubling."""

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.coarse = config.size // 2 ** len(config.channels)
        widths = (config.image_channels, *config.channels)
        self.input = nn.Linear(config.latent, widths[-1] * self.coarse**2)
        self.norms = nn.ModuleList(nn.GroupNorm(8, c) for c in reversed(config.channels))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i], widths[i - 1], 4, stride=2, padding=1)
            for i in range(len(config.channels), 0, -1)
        )
        draw_weights(self)

    def forward(self, z: Tensor) -> Tensor:
        x = self.input(z).unflatten(1, (-1, self.coarse, self.coarse))
        for norm, up in zip(self.norms, self.up, strict=True):
            x = up(F.relu(norm(x)))
        return x.tanh()


class Discriminator(nn.Module):
    """One convolution of stride 2 per halving, and a score for each image: (B,)."""

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        widths = (config.image_channels, *config.channels)
        self.down = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 4, stride=2, padding=1)
            for i in range(len(config.channels))
        )
        self.output = nn.Linear(widths[-1] * (config.size // 2 ** len(config.channels)) ** 2, 1)
        draw_weights(self)
        for layer in (*self.down, self.output):
            spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.down:
            x = F.leaky_relu(layer(x), 0.2)
        return self.output(x.flatten(1)).squeeze(1)


def draw_weights(module: nn.Module) -> None:
    """Normal with deviation 0.02 (arXiv:1511.06434, section 4)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
