"""Samplers of distilled networks, which jump along the whole trajectory in one call."""

import math
from collections.abc import Iterator

from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.runge_kutta import toward
from darkroom.diffusion.samplers.step import Denoise, Step, sampler


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


@sampler
def tcd(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, *, eta: float = 0.3
) -> Iterator[Step]:
    """Trajectory consistency sampling, Zheng et al., arXiv:2402.19159, algorithm 4.

    Each call jumps to a timestep below the next one; noise leads back up to it.

    Args:
        eta: from 0 (no noise) to 1 (down to timestep 0 in each call); the paper's gamma.
    """
    if eta > 1:
        raise ValueError(f"option eta of sampler tcd must be a number from 0 to 1, got {eta}")
    return _tcd(denoise, x, levels, noise, eta)


def _tcd(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, eta: float
) -> Iterator[Step]:
    last = len(levels.timesteps) - 1
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        down = to
        if i < last and eta > 0 and levels.schedule is not None:
            aim = (1 - eta) * levels.timesteps[i + 1]
            # a network that knows whole timesteps was distilled between them
            whole = levels.timesteps[i + 1].is_integer()
            down = min(levels.schedule.sigma(math.floor(aim) if whole else aim), to)
        x = toward(x, denoised, sigma, down)
        x = x + (to**2 - down**2) ** 0.5 * noise.fresh() if down < to else x
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)
