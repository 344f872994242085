"""Linear multistep methods: the slopes of the last four calls, weighed."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from darkroom.diffusion.levels import RUNGE_KUTTA, Levels, renamed
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.prediction import Noise, Prediction
from darkroom.diffusion.samplers.runge_kutta import toward
from darkroom.diffusion.samplers.step import Denoise, Step, sampler

# Adams-Bashforth for equal steps, newest first; Liu et al., arXiv:2202.09778, equation 9
PLMS = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12)}
PLMS[4] = (55 / 24, -59 / 24, 37 / 24, -9 / 24)


@sampler
def lms(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, *, order: int = 4
) -> Iterator[Step]:
    """Linear multistep in sigma: the slope is integrated as a polynomial through the last ones.

    The method of k-diffusion's ``sample_lms`` (Katherine Crowson). After ``Levels.skip`` the
    first steps weigh their slopes as if those of the skipped levels were there, as diffusers'
    scheduler does; ``Levels.fresh`` starts at first order instead.
    """
    slopes: list[Tensor] = []  # newest first
    passed = levels.skipped[::-1]  # nearest first
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        passed = (sigma, *passed[: order - 1])
        for slope, weight in zip(slopes, lagrange_integrals(passed, to), strict=False):
            x = x + weight * slope
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def lagrange_integrals(nodes: Sequence[float], to: float) -> list[float]:
    """The integrals from ``nodes[0]`` to ``to`` of the Lagrange basis polynomials on ``nodes``.

    Exact: Gauss-Legendre quadrature with enough points for their degree.
    """
    points, weights = np.polynomial.legendre.leggauss((len(nodes) + 1) // 2)
    half = (to - nodes[0]) / 2
    points = nodes[0] + half * (points + 1)
    integrals = []
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        basis = np.prod([(points - other) / (node - other) for other in others], axis=0)
        integrals.append(float(half * np.sum(weights * basis)))
    return integrals


@sampler
def pndm(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    prediction: Prediction | None = None,
) -> Iterator[Step]:
    """Pseudo linear multistep, Liu et al., arXiv:2202.09778: Stable Diffusion's default (PLMS).

    The first step takes two calls (Heun's method), so there is one more call than steps; levels
    from ``SamplingConfig`` name the second level twice, others are made to. With levels made for
    the paper's own warm-up (``skip_prk_steps`` false) the first three steps take four calls each
    (Runge-Kutta, algorithm 2). What is weighed is the network's raw output, recovered from the
    estimate; None weighs noise.

    After ``Levels.skip`` the first calls take the levels for what diffusers' scheduler takes
    them, which is one level off; ``Levels.fresh`` starts as from pure noise.
    """
    prediction = prediction or Noise()
    if not levels.skipped:
        levels = levels.warmed_up()
    start, outputs, slopes = x, [], []  # outputs: newest first
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        output = prediction.target(denoised, (x - denoised) / sigma, sigma)
        if i < levels.warm_up == RUNGE_KUTTA:
            stage = i % 4
            if stage == 0:
                start, slopes, outputs = x, [], [output, *outputs]
            slopes.append(output)
            x, sigma, to = start, levels.sigmas[i - stage], _runge_kutta_landing(levels, i)
            if stage == 3:
                output = (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3]) / 6
        elif i == 1:  # the first step again, with the mean of the slopes at both ends
            above = levels.above(1)
            x = renamed(start, levels.sigmas[0], above)
            sigma, to = above, sigma
            output = (output + outputs[0]) / 2
        else:
            outputs = [output, *outputs[:3]]
            weights = PLMS[len(outputs)]
            output = torch.stack([w * o for w, o in zip(weights, outputs, strict=True)]).sum(0)
        x = toward(x, prediction.denoised(x, output, sigma), sigma, to)
        x = renamed(x, to, levels.sigmas[i + 1])
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def _runge_kutta_landing(levels: Levels, i: int) -> float:
    """Stages 1 and 3 step half a stride below their level, stages 2 and 4 to their own."""
    if i % 2 or levels.schedule is None or levels.stride is None:
        return levels.sigmas[i]
    return levels.schedule.sigmas[int(levels.timesteps[i]) - levels.stride // 2]
