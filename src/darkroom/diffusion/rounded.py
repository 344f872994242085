"""The levels that published implementations visit, with their rounding.

Each rule below is one of diffusers 0.42; ``tests/diffusion`` compares whole trajectories.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from darkroom.diffusion.levels import RUNGE_KUTTA, Levels
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.diffusion.spacing import (
    beta_sigmas,
    exponential_sigmas,
    karras_sigmas,
    lcm_timesteps,
    sgm_uniform_timesteps,
    timesteps,
)
from darkroom.sampling.table import TABLE, SamplerRow

Shape = Callable[[float, float, int], np.ndarray]
SHAPES: Mapping[str, Shape] = {
    "karras": karras_sigmas,
    "exponential": exponential_sigmas,
    "beta": beta_sigmas,
}


def rounded_levels(
    read: Mapping[str, Any],
    sampler: str,
    schedule: NoiseSchedule,
    steps: int,
    spacing: str | None,
    given: Sequence[float] | None = None,
) -> Levels:
    """The levels of ``sampler``.

    Args:
        read: every setting of its class.
        spacing: one of ``SPACINGS``; None is the grid of a distillation.
        given: the timesteps themselves, decreasing, as many as steps; ``spacing`` does not enter.

    Raises:
        ValueError: if that many steps would visit a level twice, or one that does not exist.
    """
    row = TABLE[sampler]
    grid, spacing = row.scheduler.grid, spacing if given is None else None
    shape = SHAPES.get(spacing or "")
    even = spacing if spacing and not shape else read["timestep_spacing"]
    table, trained = np.array(schedule.sigmas), len(schedule)
    visited = _visited(read, row, table, steps, None if shape else spacing, even, given)
    sigmas = np.interp(visited, np.arange(trained), table)
    final = _final(read, table)

    if read.get("interpolation_type") == "log_linear" and given is None:
        *inner, last = exponential_sigmas(table[-1], table[0], steps + 1)
        sigmas, final = np.array(inner), final if shape else last
    if even == "sgm_uniform":
        sigmas = np.array([schedule.sigma(timestep) for timestep in visited])
    if shape:
        high, low = _range(read, row, spacing, table, sigmas)
        sigmas = shape(high, low, steps)
        visited = np.array([schedule.timestep(sigma) for sigma in sigmas])
        visited = _whole(visited, spacing, read, row)
        if row.scheduler.ends_on_last and read["final_sigmas_type"] == "sigma_min":
            final = float(sigmas[-1])
    if schedule.continuous:
        visited = 0.25 * np.log(sigmas)
    elif visited[0] > trained - 1 or (np.diff(sigmas) >= 0).any():
        raise ValueError(
            f"{steps} steps do not fit {trained} timesteps under {even} spacing "
            f"with offset {read['steps_offset']}: give fewer steps, or another spacing"
        )

    strides = row.strides and not shape and given is None and even != "sgm_uniform"
    levels = Levels(
        sigmas=(*map(float, sigmas), 0.0),
        timesteps=tuple(map(float, visited)),
        steps=steps,
        schedule=schedule,
        initial_scale=_initial_scale(grid, even, float(sigmas[0])),
        order=row.calls,
        stride=trained // steps if strides else None,
        final=float(final),
        preserving=grid != "k",
    )
    if sampler != "pndm":
        return levels
    return _runge_kutta(levels) if strides and not read["skip_prk_steps"] else levels.warmed_up()


def edm_levels(
    read: Mapping[str, Any],
    sampler: str,
    schedule: NoiseSchedule,
    sigmas: np.ndarray,
    ends_on_last: bool,
) -> Levels:
    """The levels of ``sampler`` for a network that is preconditioned as EDM's.

    Args:
        read: every setting of its class.
        sigmas: (steps,), decreasing.
        ends_on_last: where the least sigma ends them: on their own last, or on the network's.
    """
    end = float(sigmas[-1]) if ends_on_last else float(read["sigma_min"])
    levels = Levels(
        sigmas=(*map(float, sigmas), 0.0),
        timesteps=tuple(map(schedule.told, map(float, sigmas))),
        steps=len(sigmas),
        schedule=schedule,
        initial_scale=(read["sigma_max"] ** 2 + 1) ** 0.5,
        order=TABLE[sampler].calls,
        final=end if read["final_sigmas_type"] == "sigma_min" else 0.0,
        preserving=False,
    )
    return levels.warmed_up() if sampler == "pndm" else levels


def _visited(
    read: Mapping[str, Any],
    row: SamplerRow,
    table: np.ndarray,
    steps: int,
    spacing: str | None,
    even: str,
    given: Sequence[float] | None,
) -> np.ndarray:
    """The (steps,) timesteps, before any shape changes them."""
    trained = len(table)
    if given is not None:
        return np.array(given, dtype=np.float64)
    if spacing == "sgm_uniform":
        return sgm_uniform_timesteps(trained, steps)
    if row.distilled and spacing is None:
        original = read["original_inference_steps"]
        if steps > original:
            raise ValueError(
                f"a distilled sampler visits at most {original} steps, got {steps}: give fewer"
            )
        return lcm_timesteps(trained, steps, original)
    grid = row.scheduler.grid
    top = _clipped(table, read) if grid == "dpm" else trained
    return timesteps(grid, even, trained, steps, read["steps_offset"], top)


def _range(
    read: Mapping[str, Any],
    row: SamplerRow,
    spacing: str | None,
    table: np.ndarray,
    sigmas: np.ndarray,
) -> tuple[float, float]:
    """Between which sigmas a shape lies.

    DPM-Solver, DEIS and UniPC shape the whole schedule, the others what they would visit.
    """
    high, low = (table[-1], table[0]) if row.scheduler.grid == "dpm" else (sigmas[0], sigmas[-1])
    if read.get("interpolation_type") == "log_linear":
        low = table[0]
    if not _by_lambda(read, spacing) and (spacing != "karras" or row.scheduler.karras_has_limits):
        high, low = read.get("sigma_max") or high, read.get("sigma_min") or low
    if low > high:
        raise ValueError(
            f"the scheduler's sigma_min {low:g} lies above the noisiest level {high:g}"
        )
    return float(high), float(low)


def _runge_kutta(levels: Levels) -> Levels:
    """With PNDM's own warm-up: three Runge-Kutta steps of four calls, at both ends and halfway."""
    if levels.stride is None or levels.schedule is None or levels.steps < 4:
        raise ValueError(f"PNDM's Runge-Kutta warm-up needs at least 4 steps, got {levels.steps}")
    ends = [int(timestep) for timestep in levels.timesteps]
    half = levels.stride // 2
    warm_up = [t for a, b in pairwise(ends[:4]) for t in (a, b + half, b + half, b)]
    visited = warm_up + ends[3:]
    if any(a < b for a, b in pairwise(visited)):
        raise ValueError(f"PNDM's Runge-Kutta warm-up does not fit {levels.steps} steps")
    return replace(
        levels,
        sigmas=(*(levels.schedule.sigmas[t] for t in visited), 0.0),
        timesteps=tuple(map(float, visited)),
        warm_up=RUNGE_KUTTA,
    )


def _initial_scale(grid: str, even: str, sigma: float) -> float:
    """Pure noise: k-diffusion's own start from sigma, the rest from a unit variance."""
    return sigma if grid == "k" and even != "leading" else (sigma**2 + 1) ** 0.5


def _final(read: Mapping[str, Any], table: np.ndarray) -> float:
    """Where the last step lands."""
    stops = read.get("final_sigmas_type") == "sigma_min" or (
        not read.get("set_alpha_to_one", True) and "original_inference_steps" not in read
    )
    return float(table[0]) if stops else 0.0


def _clipped(table: np.ndarray, read: Mapping[str, Any]) -> int:
    """How many timesteps DPM-Solver may visit: those with enough signal (cosine schedules)."""
    log_signal = -np.log(table)
    return int((log_signal >= read.get("lambda_min_clipped", -np.inf)).sum())


def _by_lambda(read: Mapping[str, Any], spacing: str | None) -> bool:
    """Whether exponential levels are asked for in Lu's name: the same, with whole timesteps."""
    asked = read.get("use_lu_lambdas") and not read.get("use_karras_sigmas")
    return bool(asked) and spacing == "exponential"


def _whole(
    visited: np.ndarray, spacing: str | None, read: Mapping[str, Any], row: SamplerRow
) -> np.ndarray:
    """What the network is told under a shape: whole timesteps, rounded or merely cut, or not."""
    cosine = read["beta_schedule"] == "squaredcos_cap_v2" and "use_lu_lambdas" in read
    rounds = (spacing == "karras" and row.scheduler.rounds_karras) or _by_lambda(read, spacing)
    if rounds and not cosine:
        return visited.round()
    return np.trunc(visited) if row.scheduler.grid == "dpm" else visited
