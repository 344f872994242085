"""Samplers that step to a lower level than asked and add fresh noise up to it.

DDPM, DDIM with eta = 1 and Euler ancestral are one formula on different grids: in our
convention the posterior of a level given the one above and the clean image has the standard
deviation ``to * sqrt(1 - to**2 / sigma**2)``.
"""

from collections.abc import Iterator
from typing import Literal

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
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit)
        # q(x_to | x, denoised), equations 6 and 7
        x = toward(x, denoised, sigma, to**2 / sigma)
        if levels.timesteps[i] > 0:
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
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource
) -> Iterator[Step]:
    """Euler to a lower level than asked, then fresh noise up to it (k-diffusion's "Euler a")."""
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        up = deviation(sigma, to)
        x = toward(x, denoised, sigma, (to**2 - up**2) ** 0.5)
        x = x + up * noise.fresh() if up > 0 else x
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


@sampler
def lcm(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    scaling: float = 10.0,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """Latent consistency sampling, Luo et al., arXiv:2310.04378, algorithm 2.

    Each call jumps to a clean image, which is noised again to the next level.

    Args:
        scaling: of the timestep in the boundary condition, ``timestep_scaling``.
    """
    data = 0.5  # the paper's sigma_data
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit)
        t = scaling * levels.timesteps[i]
        # boundary condition of a consistency model (Song et al., arXiv:2303.01469, equation 5)
        skip, out = data**2 / (t**2 + data**2), t / (t**2 + data**2) ** 0.5
        denoised = out * denoised + (skip / (1 + sigma**2) ** 0.5) * x
        x = denoised + to * noise.fresh() if to > 0 else denoised
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def deviation(sigma: float, to: float) -> float:
    """Of the noise that a fully random step from ``sigma`` to ``to`` adds."""
    return to * max(1 - to**2 / sigma**2, 0.0) ** 0.5
