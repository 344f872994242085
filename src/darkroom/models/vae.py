"""The variational autoencoder (Kingma & Welling, arXiv:1312.6114) for small 8-bit images.

The decoder gives each of the 256 values of a pixel its probability (a discretised logistic,
Salimans et al., arXiv:1701.05517, section 2.1), so the bound is one on bits.

Shapes: images (B, C, S, S) in [-1, 1], multiples of 2 / 255; latents (B, L), unit normal.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Size


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    image_channels: Size = 1
    size: Size = 28  # pixels; a multiple of 2^levels
    latent: Size = 32
    channels: tuple[Size, ...] = (48, 96)  # per halving of the size, finest first
    hidden: Size = 128  # width between the coarsest feature map and the latent

    def __post_init__(self) -> None:
        if self.size % 2 ** len(self.channels):
            raise ValueError(f"size {self.size} cannot be halved {len(self.channels)} times")


class VAE(nn.Module):
    """p(x | z) and q(z | x), both convolutional."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        c, coarse = config.channels, config.size // 2 ** len(config.channels)
        features, widths = c[-1] * coarse**2, (config.image_channels, *c)
        down: list[nn.Module] = []
        for i in range(len(c)):
            down += [nn.Conv2d(widths[i], widths[i + 1], 4, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(
            *down, nn.Flatten(), nn.Linear(features, config.hidden), nn.SiLU(),
            nn.Linear(config.hidden, 2 * config.latent),
        )  # fmt: skip
        up: list[nn.Module] = []
        for i in range(len(c), 1, -1):
            up += [nn.ConvTranspose2d(widths[i], widths[i - 1], 4, stride=2, padding=1), nn.SiLU()]
        up.append(nn.ConvTranspose2d(c[0], 2 * config.image_channels, 4, stride=2, padding=1))
        self.decoder = nn.Sequential(
            nn.Linear(config.latent, config.hidden), nn.SiLU(),
            nn.Linear(config.hidden, features), nn.SiLU(),
            nn.Unflatten(1, (c[-1], coarse, coarse)), *up,
        )  # fmt: skip

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (B, L)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of the logistic distribution of each pixel value."""
        mean, log_scale = self.decoder(z).chunk(2, dim=1)
        return mean, log_scale.clamp(min=-7.0)  # a ninth of the distance of two values

    def bound(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood of ``x`` given one draw of z, and the divergence: nats, (B,) each.

        Their difference is an unbiased estimate of the evidence lower bound (equation 10).

        Args:
            noise: (B, L) unit normal.
        """
        mean, log_variance = self.encode(x)
        z = mean + (log_variance / 2).exp() * noise
        return self.log_likelihood(x, z), kl_divergence(mean, log_variance)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """The log-probability of ``x`` given z, in nats: (B,)."""
        return discretised_logistic(x, *self.decode(z)).flatten(1).sum(1)

    def importance_weighted(self, x: Tensor, noise: Tensor) -> Tensor:
        """A tighter bound on log p(x), in nats: (B,) (Burda et al., arXiv:1509.00519, equation 8).

        Args:
            noise: (K, B, L) unit normal; K = 1 gives an estimate of the evidence lower bound.
        """
        mean, log_variance = self.encode(x)
        weights = []
        for draw in noise:
            z = mean + (log_variance / 2).exp() * draw
            # log p(z) - log q(z | x); the constants of the two normal densities cancel
            prior = 0.5 * (draw.square() + log_variance - z.square()).sum(1)
            weights.append(self.log_likelihood(x, z) + prior)
        return torch.logsumexp(torch.stack(weights), 0) - math.log(len(noise))

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` images: the decoder's mean, without the noise of single pixels."""
        z = torch.randn(count, self.config.latent, generator=generator)
        return self.decode(z.to(next(self.parameters()).device))[0].clamp(-1, 1)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, variance) from N(0, 1), in nats: (B, L) -> (B,) (appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability of each pixel value: the logistic's mass between its neighbours' midpoints.

    The outermost values take all that lies beyond them.

    Args:
        x: multiples of 2 / 255 in [-1, 1].
    """
    sharpness = (-log_scale).exp()
    above = (x - mean + 1 / 255) * sharpness
    below = (x - mean - 1 / 255) * sharpness
    first, last = x < -0.999, x > 0.999
    # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), without cancellation
    width = torch.log(-torch.expm1(-2 / 255 * sharpness))
    return (
        F.logsigmoid(above).masked_fill(last, 0)
        + F.logsigmoid(-below).masked_fill(first, 0)
        + width.masked_fill(first | last, 0)
    )
