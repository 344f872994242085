"""DPM-Solver and DPM-Solver++, singlestep: Lu et al., arXiv:2206.00927 and 2211.01095.

A step of order n takes n levels: it starts afresh at the first of them, and looks at the estimates
of the n levels on its way. The notation is that of ``dpm_solver``.
"""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.dpm_solver import Solver
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.step import Denoise, Step, sampler


@sampler
def dpm_singlestep(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    order: int = 2,
    solver: Solver = "midpoint",
    lower_order_final: bool = True,
    plus: bool = True,
    eta: float = 0.0,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2S) and (3S) on the levels given. One call a level.

    Args:
        order: 1 (DDIM), 2 or 3.
        solver: how order 2 weighs its difference (both are of second order); of order 3 ``heun``
            alone is of third order on any levels.
        lower_order_final: end with lower orders, so that any number of levels can be had, and the
            last one before 0. It is taken for True where it must be.
        plus: False extrapolates the noise instead of the clean image: DPM-Solver.
        eta: how much of the SDE's noise. Above 0 needs ``plus``.
    """
    if order > 3:
        raise ValueError(f"DPM-Solver has orders 1, 2 and 3, got {order}")
    if eta > 0 and not plus:
        raise ValueError(f"singlestep DPM-Solver with plus=False needs eta 0, got {eta}")
    return _singlestep(
        denoise, x, levels, noise, order, solver, lower_order_final, plus, eta, limit
    )


def _singlestep(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    order: int,
    solver: Solver,
    lower_order_final: bool,
    plus: bool,
    eta: float,
    limit: Limit | None,
) -> Iterator[Step]:
    done = len(levels.skipped)
    total = done + len(levels.timesteps)
    orders = _orders(total, order, lower_order_final, levels.pairs[-1][1] == 0)
    history: list[tuple[Tensor, float]] = []  # (prediction, sigma), newest first
    start = x
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit)
        history = [(denoised if plus else (x - denoised) / sigma, sigma), *history[: order - 1]]
        now = history[: orders[done + i]]
        if len(now) == 1:
            start = x
        h = math.log(now[-1][1] / to) if to > 0 else math.inf
        if to == 0:
            x = denoised
        elif plus:
            k = h * (1 + eta)
            x = math.exp(-k) * start + _integral(now, h, k, solver)
        else:
            x = start + to * _integral(now, h, -h, solver)
        if eta > 0 and to > 0:
            x = x + to * (-math.expm1(-2 * eta * h)) ** 0.5 * noise.fresh()
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def _orders(total: int, order: int, lower_order_final: bool, to_zero: bool) -> list[int]:
    """The order of the step that ends each level: 1, 2, 1, 2, ... for order 2."""
    cycle = list(range(1, order + 1))
    cycles, rest = divmod(total, order)
    if rest:
        orders = cycle * cycles + cycle[:rest]
    elif lower_order_final or to_zero:
        orders = cycle * (cycles - 1) + [*cycle[:-1], 1]
    else:
        orders = cycle * cycles
    return [*orders[:-1], 1] if to_zero else orders


def _integral(
    history: Sequence[tuple[Tensor, float]], h: float, k: float, solver: Solver
) -> Tensor:
    """The integral of the interpolated prediction over a step of length ``k``.

    Args:
        history: of the levels of this step, newest first.
        h: the step in log sigma; a difference of predictions is measured in it.
        k: ``h``, that times ``1 + eta``, or ``-h`` for the noise prediction.
    """
    *later, (m0, first) = history
    phi1 = -math.expm1(-k)
    if not later:
        return phi1 * m0
    phi2 = 1 - phi1 / k
    places = [math.log(first / level) / h for _, level in later]
    slopes = [(m - m0) * (1 / place) for (m, _), place in zip(later, places, strict=True)]
    newest, r = slopes[0], places[0]
    if len(slopes) == 1:
        return phi1 * m0 + (phi1 / 2 if solver == "midpoint" else phi2) * newest
    if solver == "midpoint":
        return phi1 * m0 + phi2 * newest
    older, s = slopes[1], places[1]
    slope = (r * older - s * newest) * (1 / (r - s))
    curve = (newest - older) * (2 / (r - s))
    return phi1 * m0 + phi2 * slope - (phi2 / k - 0.5) * curve
