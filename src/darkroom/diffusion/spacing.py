"""Which noise levels to visit.

Two layers. ``SPACINGS`` holds the textbook forms: sigmas from a schedule and a number of steps,
nothing rounded. ``timesteps`` holds the published implementations' grids of training timesteps,
with their rounding, which ``SamplingConfig`` uses to reproduce a checkpoint's own numbers.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from darkroom.diffusion.beta import beta_quantiles
from darkroom.diffusion.schedule import NoiseSchedule, Sigmas
from darkroom.sampling.classes import Grid


def leading(schedule: NoiseSchedule, steps: int, offset: int = 0) -> Sigmas:
    """Evenly spaced timesteps that start below the noisiest (Lin et al., 2305.08891, table 2)."""
    ratio = len(schedule) / steps
    return _closed(schedule.sigma(i * ratio + offset) for i in reversed(range(steps)))


def trailing(schedule: NoiseSchedule, steps: int) -> Sigmas:
    """Evenly spaced timesteps from the last one (Lin et al., arXiv:2305.08891, table 2)."""
    last, ratio = len(schedule) - 1, len(schedule) / steps
    return _closed(schedule.sigma(last - i * ratio) for i in range(steps))


def linspace(schedule: NoiseSchedule, steps: int) -> Sigmas:
    """Evenly spaced timesteps from the last one to the first."""
    return _closed(schedule.sigma(t) for t in np.linspace(len(schedule) - 1, 0, steps))


def karras(schedule: NoiseSchedule, steps: int, rho: float = 7.0) -> Sigmas:
    """Evenly spaced ``sigma ** (1 / rho)`` (Karras et al., arXiv:2206.00364, equation 5)."""
    return _closed(karras_sigmas(schedule.sigmas[-1], schedule.sigmas[0], steps, rho))


def exponential(schedule: NoiseSchedule, steps: int) -> Sigmas:
    """Evenly spaced ``log(sigma)``."""
    return _closed(exponential_sigmas(schedule.sigmas[-1], schedule.sigmas[0], steps))


def beta(schedule: NoiseSchedule, steps: int) -> Sigmas:
    """Sigmas at quantiles of a beta distribution: dense at both ends (Lee et al., 2407.12173)."""
    return _closed(beta_sigmas(schedule.sigmas[-1], schedule.sigmas[0], steps))


def sgm_uniform(schedule: NoiseSchedule, steps: int) -> Sigmas:
    """Evenly spaced timesteps from the last to the first, which is left out (Stability's SGM)."""
    return _closed(schedule.sigma(t) for t in sgm_uniform_timesteps(len(schedule), steps))


Spacing = Callable[[NoiseSchedule, int], Sigmas]
SPACINGS: dict[str, Spacing] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "karras": karras,
    "exponential": exponential,
    "beta": beta,
    "sgm_uniform": sgm_uniform,
}


def karras_sigmas(high: float, low: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """(steps,) sigmas from ``high`` to ``low``."""
    ramp = np.linspace(0, 1, steps)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def exponential_sigmas(high: float, low: float, steps: int) -> np.ndarray:
    """(steps,) sigmas from ``high`` to ``low``."""
    return np.exp(np.linspace(math.log(high), math.log(low), steps))


def beta_sigmas(high: float, low: float, steps: int) -> np.ndarray:
    """(steps,) sigmas from ``high`` to ``low``."""
    return low + beta_quantiles(1 - np.linspace(0, 1, steps)) * (high - low)


def sgm_uniform_timesteps(trained: int, steps: int) -> np.ndarray:
    """(steps,) timesteps, fractional."""
    return np.linspace(trained - 1, 0, steps + 1)[:-1]


def comfyui_timesteps(name: str, steps: int, trained: int = 1000) -> tuple[int, ...]:
    """The whole timesteps that ComfyUI's schedule visits: of ``simple`` or of ``beta``.

    ``simple`` is nearly :func:`trailing`. ``beta`` has the beta distribution over timesteps, where
    :func:`beta` has it over sigmas; timesteps that are there twice are visited once.
    """
    if name == "simple":
        return tuple(trained - 1 - int(i * (trained / steps)) for i in range(steps))
    shares = 1 - np.linspace(0, 1, steps, endpoint=False)
    visited = np.rint(beta_quantiles(shares) * (trained - 1)).astype(int)
    return tuple(dict.fromkeys(visited.tolist()))


def timesteps(
    grid: Grid, spacing: str, trained: int, steps: int, offset: int, top: int | None = None
) -> np.ndarray:
    """The (steps,) training timesteps that a family of implementations visits, decreasing.

    Args:
        grid: ``"ddim"`` (DDPM, DDIM, PNDM, LCM) rounds to integers; ``"k"`` (Euler, Heun, LMS)
            does so except for linspace; ``"dpm"`` (DPM-Solver, UniPC) does so, and takes
            ``steps + 1`` levels of which the cleanest is left to the final step.
        trained: number of training timesteps.
        offset: added under leading.
        top: visit only the timesteps below this one.
    """
    top = trained if top is None else top
    if spacing == "leading":
        levels = steps + (grid == "dpm")
        return np.arange(levels)[::-1][:steps] * (top // levels) + float(offset)
    if spacing == "trailing":
        # [:steps]: for 61 steps, and 50 others of the first thousand, float rounding makes
        # arange one longer than asked
        return np.arange(top, 0, -trained / steps)[:steps].round() - 1
    if grid == "k":
        return np.linspace(0, top - 1, steps, dtype=np.float32)[::-1].astype(np.float64)
    levels = steps + (grid == "dpm")
    return np.linspace(0, top - 1, levels).round()[::-1][:steps]


def lcm_timesteps(trained: int, steps: int, original: int) -> np.ndarray:
    """(steps,) of the ``original`` timesteps that the distillation visited, evenly chosen.

    Luo et al., arXiv:2310.04378, section 4.3; ``steps`` is at most ``original``.
    """
    visited = np.arange(original, 0, -1) * (trained // original) - 1
    return visited[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)]


def _closed(sigmas: Iterable[float]) -> Sigmas:
    return (*(float(sigma) for sigma in sigmas), 0.0)
