"""A normalising flow for small images: Glow (Kingma & Dhariwal, arXiv:1807.03039).

Steps of ActNorm, an invertible 1x1 convolution and an affine coupling, at several scales (squeeze,
and splitting off half of the channels, Dinh et al., arXiv:1605.08803, section 3.6). Every map has
an inverse and a log-determinant in closed form, so the likelihood is exact.

Shapes: images (B, C, S, S) in [0, 1]; latents (B, C S^2), unit normal.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    image_channels: Size = 1
    size: Size = 28  # pixels; a multiple of 2^levels
    steps: tuple[Count, ...] = (6, 10)  # per level, finest first
    hidden: tuple[Size, ...] = (64, 160)  # width of the coupling networks, per level
    dense: tuple[bool, ...] = (
        False,
        True,
    )  # per level: fully connected networks (NICE)
    alpha: float = 1e-6  # keeps the logit finite: it sees alpha + (1 - 2 alpha) x

    def __post_init__(self) -> None:
        levels = len(self.steps), len(self.hidden), len(self.dense)
        if len(set(levels)) > 1:
            raise ValueError(
                "steps, hidden and dense have {}, {} and {} levels; "
                "expected one value per level in each".format(*levels)
            )
        if self.size % 2 ** len(self.steps):
            raise ValueError(f"size {self.size} cannot be halved {len(self.steps)} times")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be between 0 and 0.5, got {self.alpha}")


class Flow(nn.Module):
    """Images to unit normal latents and back.

    With a small alpha the logit spreads black and white, which are narrow spikes among 8-bit
    values, over several units (Papamakarios et al., arXiv:1705.07057, appendix E.2).

    Call ``initialise`` once, on a batch, before training.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []  # of what each level hands out, (C, H, W)
        channels, side = config.image_channels, config.size
        for level, steps in enumerate(config.steps):
            last, side = level == len(config.steps) - 1, side // 2
            sizes = (4 * channels, config.hidden[level], side if config.dense[level] else None)
            self.levels.append(Level([Step(*sizes) for _ in range(steps)], 4 * channels, last))
            channels *= 4 if last else 2
            self.shapes.append((channels, side, side))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, D) and the log-determinant of the Jacobian (B,)."""
        x, log_det = logit(x, self.config.alpha)
        parts = []
        for level in self.levels:
            x, part, change = level(x)
            parts.append(part.flatten(1))
            log_det = log_det + change
        return torch.cat(parts, 1), log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Latents to images; far-out latents leave [0, 1] by at most alpha / (1 - 2 alpha)."""
        x, parts = z[:, :0], z.split([math.prod(shape) for shape in self.shapes], 1)
        for level, part, shape in reversed(list(zip(self.levels, parts, self.shapes, strict=True))):
            x = level.inverse(x, part.unflatten(1, shape))  # pyright: ignore[reportCallIssue]
        return (x.sigmoid() - self.config.alpha) / (1 - 2 * self.config.alpha)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density of images in [0, 1], in nats: (B,)."""
        z, log_det = self(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Let every ActNorm give this batch zero mean and unit variance (section 3.1)."""
        x, _ = logit(x, self.config.alpha)
        for level in self.levels:
            x = level.initialise(x)  # pyright: ignore[reportCallIssue]

    @torch.no_grad()
    def sample(
        self, count: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """``count`` images, clipped to [0, 1]; latents have the deviation ``temperature``."""
        z = temperature * torch.randn(
            count, sum(math.prod(s) for s in self.shapes), generator=generator
        )
        return self.inverse(z.to(next(self.parameters()).device)).clamp(0, 1)


class Level(nn.Module):
    """Squeeze, steps of flow, and a split: the last level hands out everything."""

    def __init__(self, steps: list["Step"], channels: int, last: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.split = None if last else Split(channels // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C / 4, 2 h, 2 w) to what goes on, what is handed out, the log-determinant (B,)."""
        x = F.pixel_unshuffle(x, 2)
        log_det = x.new_zeros(len(x))
        for step in self.steps:
            x, change = step(x)
            log_det = log_det + change
        if self.split is None:
            return x[:, :0], x, log_det
        x, out, change = self.split(x)
        return x, out, log_det + change

    def inverse(self, x: Tensor, out: Tensor) -> Tensor:
        x = out if self.split is None else self.split.inverse(x, out)
        for step in reversed(list(self.steps)):
            x = step.inverse(x)  # pyright: ignore[reportCallIssue]
        return F.pixel_shuffle(x, 2)

    def initialise(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, 2)
        for step in self.steps:
            step.norm.initialise(x)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            x, _ = step(x)
        return x if self.split is None else self.split(x)[0]


class Step(nn.Module):
    """One step of flow (figure 2a)."""

    def __init__(self, channels: int, hidden: int, side: int | None = None) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.mix = Mix(channels)
        self.couple = Coupling(channels, hidden, side)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, of_norm = self.norm(x)
        x, of_mix = self.mix(x)
        x, of_coupling = self.couple(x)
        return x, of_norm + of_mix + of_coupling

    def inverse(self, x: Tensor) -> Tensor:
        return self.norm.inverse(self.mix.inverse(self.couple.inverse(x)))


class ActNorm(nn.Module):
    """A scale and a shift for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = self.log_scale.sum() * x[0, 0].numel()
        return (x + self.shift) * self.log_scale.exp(), log_det

    def inverse(self, x: Tensor) -> Tensor:
        return x * (-self.log_scale).exp() - self.shift

    def initialise(self, x: Tensor) -> None:
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3))
        self.shift.copy_(-mean[:, None, None])
        self.log_scale.copy_(-(deviation + 1e-6).log()[:, None, None])


class Mix(nn.Module):
    """An invertible 1x1 convolution that begins as a random rotation (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = torch.linalg.slogdet(self.weight)[1] * x[0, 0].numel()
        return F.conv2d(x, self.weight[:, :, None, None]), log_det

    def inverse(self, x: Tensor) -> Tensor:
        return F.conv2d(x, torch.linalg.inv(self.weight)[:, :, None, None])


class Coupling(nn.Module):
    """Scales and shifts one half of the channels by what the other half says (section 3.3).

    Args:
        hidden: channels of its network between three convolutions.
        side: height and width for a fully connected network instead, which sees all at once
            (Dinh et al., arXiv:1410.8516): at 7x7 a hundredth of the work of convolutions.
    """

    def __init__(self, channels: int, hidden: int, side: int | None = None) -> None:
        super().__init__()
        half = channels // 2
        if side is None:
            last = nn.Conv2d(hidden, channels, 3, padding=1)
            first, middle = nn.Conv2d(half, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 1)
            self.network = nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)
        else:
            last = nn.Linear(hidden, channels * side**2)
            first, middle = nn.Linear(half * side**2, hidden), nn.Linear(hidden, hidden)
            shape = nn.Unflatten(1, (channels, side, side))
            self.network = nn.Sequential(
                nn.Flatten(), first, nn.ReLU(), middle, nn.ReLU(), last, shape
            )
        nn.init.zeros_(last.weight)  # begins as the identity
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = x.chunk(2, 1)
        log_scale, shift = self._affine(kept)
        changed = (changed + shift) * log_scale.exp()
        return torch.cat((kept, changed), 1), log_scale.flatten(1).sum(1)

    def inverse(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        log_scale, shift = self._affine(kept)
        return torch.cat((kept, changed * (-log_scale).exp() - shift), 1)

    def _affine(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(kept).chunk(2, 1)
        return 2 * torch.tanh(raw / 2), shift  # a step scales by e^2 at most


class Split(nn.Module):
    """Hands out half of the channels, normalised by what the other half says of them.

    Args:
        channels: of each half.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prior = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on, what is handed out, and the log-determinant."""
        kept, out = x.chunk(2, 1)
        mean, log_scale = self._moments(kept)
        return kept, (out - mean) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)

    def inverse(self, kept: Tensor, out: Tensor) -> Tensor:
        mean, log_scale = self._moments(kept)
        return torch.cat((kept, out * log_scale.exp() + mean), 1)

    def _moments(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.prior(kept).chunk(2, 1)
        return mean, 3 * torch.tanh(raw / 3)


def logit(x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Of alpha + (1 - 2 alpha) x, and its log-determinant (arXiv:1605.08803, section 4.1)."""
    y = torch.logit(alpha + (1 - 2 * alpha) * x)
    change = F.softplus(y) + F.softplus(-y) + math.log(1 - 2 * alpha)
    return y, change.flatten(1).sum(1)


def dequantise(pixels: Tensor, noise: Tensor) -> Tensor:
    """8-bit values to [0, 1): a cell of width 1 / 256 for each (Theis et al., arXiv:1511.01844).

    Args:
        noise: uniform in [0, 1), shaped like ``pixels``.
    """
    return (pixels.to(noise) + noise) / 256


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """Of 8-bit values, from the log-density (nats) of their dequantised form.

    The mean over dequantisation noise is an upper bound on the bits of the values themselves.
    """
    return 8 - log_prob / (dimensions * math.log(2))
