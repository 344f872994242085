"""DPM-Solver++, Lu et al., arXiv:2211.01095: multistep, orders 1 to 3, with and without noise.

In our convention the half log signal-to-noise ratio is ``-log(sigma)``; a step advances it by
``h = log(sigma / to)``. The linear part of the equation is solved exactly, the estimate of the
clean image is extrapolated through the last ones.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.step import Denoise, Step, sampler

Solver = Literal["midpoint", "heun"]


@sampler
def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    order: int = 2,
    solver: Solver = "midpoint",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
    plus: bool = True,
    exact: bool = False,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M), algorithm 2. One call a step.

    Args:
        order: 1 (DDIM), 2 or 3.
        solver: how the second order weighs its difference; both are of second order.
        lower_order_final: with fewer than 15 steps the last two are of first and second order.
        euler_at_final: the last step is of first order (as it always is when it ends at 0).
        plus: False extrapolates the noise instead of the clean image: DPM-Solver, Lu et al.,
            arXiv:2206.00927.
        exact: weigh the second difference of order 3 as the expansion has it, twice what every
            published implementation does; only so does order 3 converge at third order.
    """
    ending = lower_order_final, euler_at_final
    method = _Method(0.0, order, solver, ending, plus, exact, limit)
    return _multistep(denoise, x, levels, noise, method)


@sampler
def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    order: int = 2,
    solver: Solver = "midpoint",
    lower_order_final: bool = True,
    euler_at_final: bool = False,
    plus: bool = True,
    exact: bool = False,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M), section 5.2: the diffusion SDE instead of its flow.

    Args:
        eta: how much of the noise; 0 is :func:`dpmpp_2m`. Between 0 and 1 needs ``plus``.
    """
    ending = lower_order_final, euler_at_final
    method = _Method(eta, order, solver, ending, plus, exact, limit)
    return _multistep(denoise, x, levels, noise, method)


@sampler
def dpmpp_3m_sde(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    eta: float = 1.0,
    order: int = 3,
    solver: Solver = "heun",
    lower_order_final: bool = False,
    euler_at_final: bool = False,
    exact: bool = False,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(3M), as published in k-diffusion.

    diffusers 0.42 has the sign of the last term's constant wrong (-1/2 for +1/2), so that its
    third order converges at first order; this one does not follow it there.
    """
    ending = lower_order_final, euler_at_final
    method = _Method(eta, order, solver, ending, True, exact, limit)
    return _multistep(denoise, x, levels, noise, method)


@dataclass(frozen=True)
class _Method:
    """One member of the family; the fields are told above."""

    eta: float
    order: int
    solver: Solver
    ending: tuple[bool, bool]  # lower_order_final, euler_at_final
    plus: bool
    exact: bool
    limit: Limit | None

    def __post_init__(self) -> None:
        if self.order > 3:
            raise ValueError(f"DPM-Solver has orders 1, 2 and 3, got {self.order}")
        if not self.plus and self.eta not in (0, 1):
            raise ValueError(f"DPM-Solver with plus=False needs eta 0 or 1, got {self.eta}")


def _multistep(
    denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, method: _Method
) -> Iterator[Step]:
    eta = method.eta
    history: list[tuple[Tensor, float]] = []  # (prediction, the h that led from it), newest first
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), method.limit)
        h = math.log(sigma / to) if to > 0 else math.inf
        prediction = denoised if method.plus else (x - denoised) / sigma
        history = [(prediction, h), *history[: method.order - 1]]
        now = history[: order_of_step(levels, i, method.order, to, *method.ending)]
        if to == 0:
            x = denoised
        elif h == 0:  # levels that end on their own last
            pass
        elif method.plus:
            k = h * (1 + eta)
            x = math.exp(-k) * x + _integral(now, k, method)
        else:
            x = x + to * (1 + eta) * _integral(now, -h, method)
        if eta > 0 and to > 0:
            up = -math.expm1(-2 * eta * h) if method.plus else math.expm1(2 * h)
            x = x + to * up**0.5 * noise.fresh()
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def _integral(history: Sequence[tuple[Tensor, float]], k: float, method: _Method) -> Tensor:
    """The integral of the extrapolated prediction over a step of length ``k``.

    Appendix B: ``phi1`` to ``phi3`` weigh its value, first and second difference. A negative
    ``k`` gives the same for the noise prediction.
    """
    (m0, h), *past = history
    phi1 = -math.expm1(-k)
    if not past:
        return phi1 * m0
    m1, h1 = past[0]
    first = (m0 - m1) * (h / h1)
    phi2 = 1 - phi1 / k
    if len(past) == 1:
        return phi1 * m0 + (phi1 / 2 if method.solver == "midpoint" else phi2) * first
    m2, h2 = past[1]
    earlier = (m1 - m2) * (h / h2)
    second = (first - earlier) * (h / (h1 + h2))
    first = first + second * (h1 / h)
    phi3 = phi2 / k - 0.5
    return phi1 * m0 + phi2 * first - (2 if method.exact else 1) * phi3 * second


def order_of_step(
    levels: Levels, i: int, order: int, to: float, lower_order_final: bool, euler_at_final: bool
) -> int:
    """The order of step ``i``: the end is less smooth than the rest."""
    last = len(levels.timesteps) - 1
    few = len(levels.skipped) + len(levels.timesteps) < 15
    if i == last and (to == 0 or euler_at_final or (lower_order_final and few)):
        return 1
    if i == last - 1 and lower_order_final and few:
        return min(order, 2)
    return order
