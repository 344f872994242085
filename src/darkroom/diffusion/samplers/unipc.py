"""UniPC, Zhao et al., arXiv:2302.04867: a predictor and a corrector for one call a step."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.limit import Limit, limited
from darkroom.diffusion.samplers.step import Denoise, Step, sampler

Scale = Literal["bh1", "bh2"]


@sampler
def unipc(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    noise: NoiseSource,
    *,
    order: int = 2,
    scale: Scale = "bh2",
    lower_order_final: bool = True,
    without_corrector: Collection[int] = (),
    data: bool = True,
    limit: Limit | None = None,
) -> Iterator[Step]:
    """UniPC, algorithms 5 to 8.

    Each call first corrects the step that led to it, then predicts the next; what is yielded is
    the prediction.

    Args:
        order: of the predictor; the corrector adds one.
        scale: the paper's B(h): ``bh1`` is h, ``bh2`` is e^h - 1.
        lower_order_final: end with orders ..., 2, 1.
        without_corrector: steps that are not corrected.
        data: solve for the clean image (algorithms 7, 8); False solves for the noise (5, 6).
        limit: of the clean image; it does not enter where the noise is solved for.
    """
    history: list[tuple[Tensor, float]] = []  # (estimate, sigma), newest first
    before, now = x, 0
    last = len(levels.timesteps) - 1
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = limited(denoise(x, sigma), limit if data else None)
        prediction = denoised if data else (x - denoised) / sigma
        if i > 0 and len(levels.skipped) + i - 1 not in without_corrector:
            x = _step(before, history[:now], sigma, scale, data, corrected=prediction)
        history = [(prediction, sigma), *history[: order - 1]]
        now = min(order, i + 1)
        if to == 0:
            now = 1
        elif lower_order_final:
            now = min(now, last - i + 1)
        before = x
        x = _step(x, history[:now], to, scale, data)
        x = levels.renamed(i, x)
        yield Step(i, levels.sigmas[i + 1], x, denoised)


def _step(
    x: Tensor,
    history: Sequence[tuple[Tensor, float]],
    to: float,
    scale: Scale,
    data: bool,
    corrected: Tensor | None = None,
) -> Tensor:
    """From the newest level of ``history`` to ``to``; the corrector knows the estimate there."""
    (m0, sigma), *past = history
    if to == 0:
        return m0 if data else x - sigma * m0
    if to == sigma:  # levels that end on their own last
        return x
    h = math.log(sigma / to)
    # r: where the other estimates lie, in units of the step; the target of the step is at 1
    r = [math.log(sigma / level) / h for _, level in past]
    differences = [(m - m0) / position for (m, _), position in zip(past, r, strict=True)]
    if corrected is not None:
        differences.append(corrected - m0)
        r.append(1.0)
    # the exponential integrator of x / sigma (data) or of x (noise)
    k, keep, unit = (-h, to / sigma, 1.0) if data else (h, 1.0, to)
    x = keep * x - unit * math.expm1(k) * m0
    b = k if scale == "bh1" else math.expm1(k)
    for weight, difference in zip(_weights(r, k, b), differences, strict=True):
        x = x - (unit * b * weight) * difference
    return x


def _weights(r: Sequence[float], k: float, b: float) -> Sequence[float]:
    """Equation 9: the weights that cancel every term of the error up to the order.

    A single one is taken as 1/2 (the paper's appendix F).
    """
    if len(r) < 2:
        return [0.5] * len(r)
    factorial, phi = 1.0, math.expm1(k) / k - 1
    right = []
    for n in range(1, len(r) + 1):
        right.append(phi * factorial / b)
        factorial *= n + 1
        phi = phi / k - 1 / factorial
    left = np.vander(np.array(r), increasing=True).T
    return np.linalg.solve(left, np.array(right)).tolist()
