"""DEIS, Zhang & Chen, arXiv:2204.13902: multistep with the polynomial in log sigma."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.dpm_solver import order_of_step
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.step import Denoise, Step, sampler


@sampler
def deis(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    order: int = 2,
    lower_order_final: bool = True,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """DEIS with the paper's log-rho polynomials, section 3. One call a step.

    Args:
        order: 1 (DDIM), 2 or 3.
        lower_order_final: with fewer than 15 steps the last two are of first and second order.
    """
    if order > 3:
        raise ValueError(f"DEIS has orders 1, 2 and 3, got {order}")
    return _deis(denoise, x, levels, order, lower_order_final, limit)


def _deis(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    order: int,
    lower_order_final: bool,
    limit: Limit | None,
) -> Iterator[Step]:
    history: list[tuple[Tensor, float]] = []  # (slope dx/dsigma, sigma), newest first
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit)
        history = [((x - denoised) / sigma, sigma), *history[: order - 1]]
        now = history[: order_of_step(levels, i, order, to, lower_order_final, False)]
        if to == 0:
            x = denoised
        else:
            weights = log_lagrange_integrals([level for _, level in now], to)
            for (slope, _), weight in zip(now, weights, strict=True):
                x = x + weight * slope
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def log_lagrange_integrals(nodes: Sequence[float], to: float) -> list[float]:
    """The integrals over sigma from ``nodes[0]`` to ``to`` of the Lagrange basis in log sigma.

    With u = log(sigma / nodes[0]) each basis polynomial is one in u, and d sigma is
    nodes[0] e^u du.
    """
    end = math.log(to / nodes[0])
    moments = [math.expm1(end)]  # of u^n e^u from 0 to ``end``, by parts
    for n in range(1, len(nodes)):
        moments.append(end**n * math.exp(end) - n * moments[-1])
    places = [math.log(node / nodes[0]) for node in nodes]
    integrals = []
    for j, place in enumerate(places):
        others = [other for k, other in enumerate(places) if k != j]
        basis = np.polynomial.polynomial.polyfromroots(others) if others else np.ones(1)
        basis = basis / math.prod(place - other for other in others)
        integrals.append(float(nodes[0] * np.dot(basis, moments)))
    return integrals
