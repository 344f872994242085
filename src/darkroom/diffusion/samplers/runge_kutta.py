"""Euler's, Heun's and the midpoint method on the probability-flow ODE.

dx/dsigma = (x - denoised) / sigma.
"""

from collections.abc import Iterator

from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.step import Denoise, Step, sampler


@sampler
def euler(denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource) -> Iterator[Step]:
    """Euler's method, Karras et al., arXiv:2206.00364, algorithm 2. Equal to DDIM with eta = 0."""
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        x = toward(x, denoised, sigma, to)
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


@sampler
def heun(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """Heun's method, Karras et al., arXiv:2206.00364, algorithm 1. Second order.

    Two calls per level and one at the last: the first Step of a level is where Euler's method
    would land, the second is corrected by the slope there.
    """
    index = 0
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit)
        slope = (x - denoised) / sigma
        ahead = levels.renamed(i, toward(x, denoised, sigma, to))
        yield Step(index, levels.sigmas[i + 1], ahead, denoised)
        index += 1
        if i == len(levels.timesteps) - 1:
            return
        denoised = limited(denoise(ahead, to), limit)
        slope = (slope + (ahead - denoised) / to) / 2
        x = x + slope * (to - sigma)
        yield Step(index, levels.sigmas[i + 1], x, denoised)
        index += 1


@sampler
def dpm2(denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource) -> Iterator[Step]:
    """The midpoint method in log sigma: DPM-Solver-2 (Lu et al., arXiv:2206.00927), in k-diffusion.

    Two calls per level and one at the last: the first Step of a level is where Euler's method is
    halfway, the second goes from the level itself by the slope there. Second order.
    """
    last = len(levels.timesteps) - 1
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        if i == last:
            yield Step(2 * i, levels.sigmas[i + 1], toward(x, denoised, sigma, to), denoised)
            return
        middle = (sigma * to) ** 0.5
        ahead = toward(x, denoised, sigma, middle)
        yield Step(2 * i, middle, ahead, denoised)
        denoised = denoise(ahead, middle)
        x = x + (ahead - denoised) * ((to - sigma) / middle)
        yield Step(2 * i + 1, levels.sigmas[i + 1], x, denoised)


def toward(x: Tensor, denoised: Tensor, sigma: float, to: float) -> Tensor:
    """Euler's step: along the line from ``x`` to ``denoised``.

    Written without ``x - denoised``, which loses digits where sigma is in the thousands.
    """
    return x * (to / sigma) + denoised * (1 - to / sigma)
