"""Samplers that step to a lower level than asked and add fresh noise up to it.

DDPM, DDIM with eta = 1 and Euler ancestral are one formula on different grids: in our
convention the posterior of a level given the one above and the clean image has the standard
deviation ``to * sqrt(1 - to**2 / sigma**2)``.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.runge_kutta import toward
from darkroom.diffusion.samplers.step import Denoise, Step, sampler


@sampler
def ddpm(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    variance: Literal["small", "large"] = "small",
    limit: Limit | None = None,
) -> Iterator[Step]:
    """Ancestral sampling, Ho et al., arXiv:2006.11239, algorithm 2.

    Args:
        variance: the posterior's (``small``), or that of the forward step (``large``):
            section 3.2, the two extremes.
    """
    continuous = levels.schedule is not None and levels.schedule.continuous
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit)
        # q(x_to | x, denoised), equations 6 and 7
        x = toward(x, denoised, sigma, to**2 / sigma)
        if levels.timesteps[i] > 0 or (to > 0 and continuous):
            up = to**2 if variance == "small" else (1 + to**2) * sigma**2 / (1 + sigma**2)
            up = (up * (1 - to**2 / sigma**2)) ** 0.5
            x = x + up * noise.fresh() if up > 0 else x
        yield Step(i, levels.sigmas[i + 1], x, denoised)


@sampler
def ddim(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    eta: float = 0.0,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """Song et al., arXiv:2010.02502, equations 12 and 16.

    Args:
        eta: 0 is deterministic, 1 is DDPM.
    """
    for i, (sigma, to) in enumerate(levels.pairs):
        raw = denoise(x, sigma)
        denoised = limited(raw, limit)
        up = eta * deviation(sigma, to)
        down = (to**2 - up**2) ** 0.5
        # the direction back to x is the network's own, the destination is limited
        x = toward(x, raw, sigma, down) + (denoised - raw if limit else 0)
        x = x + up * noise.fresh() if up > 0 else x
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


@sampler
def euler_ancestral(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, *, eta: float = 1.0
) -> Iterator[Step]:
    """Euler to a lower level than asked, then fresh noise up to it (k-diffusion's "Euler a").

    Args:
        eta: how much of the noise; 0 is Euler.
    """
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        down, up = split(sigma, to, eta)
        x = toward(x, denoised, sigma, down)
        x = x + up * noise.fresh() if up > 0 else x
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


@sampler
def dpm2_ancestral(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM2 to a lower level than asked, then fresh noise up to it (k-diffusion's "DPM2 a").

    Two calls per level and one at the last, as in :func:`dpm2`.

    Args:
        eta: how much of the noise; 0 is :func:`dpm2`.
    """
    last = len(levels.timesteps) - 1
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        if i == last:
            yield Step(2 * i, levels.sigmas[i + 1], toward(x, denoised, sigma, to), denoised)
            return
        down, up = split(sigma, to, eta)
        middle = (sigma * down) ** 0.5
        ahead = toward(x, denoised, sigma, middle)
        yield Step(2 * i, middle, ahead, denoised)
        denoised = denoise(ahead, middle)
        x = x + (ahead - denoised) * ((down - sigma) / middle)
        x = x + up * noise.fresh() if up > 0 else x
        yield Step(2 * i + 1, levels.sigmas[i + 1], x, denoised)


@sampler
def dpmpp_2s(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++(2S), Lu et al., arXiv:2211.01095, algorithm 1, to a lower level than asked.

    k-diffusion's "DPM++ 2S a": the estimate halfway in log sigma leads from the level itself.
    Two calls per level and one at the last.

    Args:
        eta: how much of the noise; 0 is the paper's algorithm with r = 1/2.
    """
    last = len(levels.timesteps) - 1
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        if i == last:
            yield Step(2 * i, levels.sigmas[i + 1], toward(x, denoised, sigma, to), denoised)
            return
        down, up = split(sigma, to, eta)
        middle = (sigma * down) ** 0.5
        ahead = toward(x, denoised, sigma, middle)
        yield Step(2 * i, middle, ahead, denoised)
        denoised = denoise(ahead, middle)
        x = toward(x, denoised, sigma, down)
        x = x + up * noise.fresh() if up > 0 else x
        yield Step(2 * i + 1, levels.sigmas[i + 1], x, denoised)


@sampler
def dpmpp_sde(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, *, eta: float = 1.0
) -> Iterator[Step]:
    """DPM-Solver++ for the SDE, with an estimate halfway in log sigma (k-diffusion's "DPM++ SDE").

    The noise of the half step and that of the whole step are increments of one Brownian path in
    sigma: the whole one is the half one and what comes after it. Two calls per level and one at
    the last.

    Args:
        eta: how much of the noise.
    """
    last = len(levels.timesteps) - 1
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        if i == last:
            yield Step(2 * i, levels.sigmas[i + 1], toward(x, denoised, sigma, to), denoised)
            return
        middle = (sigma * to) ** 0.5
        down, up = split(sigma, middle, eta)
        half = noise.fresh() if eta > 0 else torch.zeros_like(x)
        ahead = toward(x, denoised, sigma, down) + up * half
        yield Step(2 * i, middle, ahead, denoised)
        denoised = denoise(ahead, middle)
        down, up = split(sigma, to, eta)
        x = toward(x, denoised, sigma, down)
        if eta > 0:
            share = (sigma - middle) / (sigma - to)
            x = x + up * (share**0.5 * half + (1 - share) ** 0.5 * noise.fresh())
        yield Step(2 * i + 1, levels.sigmas[i + 1], x, denoised)


def split(sigma: float, to: float, eta: float) -> tuple[float, float]:
    """Where an ancestral step goes without noise, and the deviation of the noise that it adds."""
    up = min(to, eta * deviation(sigma, to))
    return (to**2 - up**2) ** 0.5, up


def deviation(sigma: float, to: float) -> float:
    """Of the noise that a fully random step from ``sigma`` to ``to`` adds."""
    return to * max(1 - to**2 / sigma**2, 0.0) ** 0.5
