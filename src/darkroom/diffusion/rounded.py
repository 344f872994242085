"""The levels that published implementations visit, with their rounding.

Each rule below is one of diffusers 0.42; ``tests/diffusion`` compares whole trajectories.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from darkroom.diffusion.levels import RUNGE_KUTTA, Levels
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.diffusion.scheduler_classes import CLASSES
from darkroom.diffusion.spacing import exponential_sigmas, karras_sigmas, lcm_timesteps, timesteps

SHAPES = {"karras": karras_sigmas, "exponential": exponential_sigmas}


def rounded_levels(
    read: Mapping[str, Any],
    sampler: str,
    schedule: NoiseSchedule,
    steps: int,
    spacing: str | None,
) -> Levels:
    """The levels of ``sampler``.

    Args:
        read: every setting of its class.
        spacing: one of ``SPACINGS``; None is LCM's own grid.

    Raises:
        ValueError: if that many steps would visit a level twice, or one that does not exist.
    """
    grid = CLASSES[sampler].grid
    shape = SHAPES.get(spacing or "")
    even = read["timestep_spacing"] if shape or spacing is None else spacing
    table, trained = np.array(schedule.sigmas), len(schedule)
    if spacing is None:
        original = read["original_inference_steps"]
        if steps > original:
            raise ValueError(f"lcm visits at most {original} steps, got {steps}: give fewer")
        visited = lcm_timesteps(trained, steps, original)
    else:
        top = _clipped(table, read) if grid == "dpm" else trained
        visited = timesteps(grid, even, trained, steps, read["steps_offset"], top)
    sigmas = np.interp(visited, np.arange(trained), table)
    final = _final(read, table)

    if read.get("interpolation_type") == "log_linear":
        *inner, final = exponential_sigmas(table[-1], table[0], steps + 1)
        sigmas = np.array(inner)
    if shape:
        # DPM-Solver and UniPC shape the whole schedule, the others what they would visit
        high, low = (table[-1], table[0]) if grid == "dpm" else (sigmas[0], sigmas[-1])
        high, low = read.get("sigma_max") or high, read.get("sigma_min") or low
        sigmas = shape(high, low, steps)
        visited = np.array([schedule.timestep(sigma) for sigma in sigmas])
        if grid == "dpm":
            visited = _whole(visited, spacing, read)
    if read.get("timestep_type") == "continuous" and read["prediction_type"] == "v_prediction":
        visited = 0.25 * np.log(sigmas)  # EDM's c_noise
    elif visited[0] > trained - 1 or (np.diff(sigmas) >= 0).any():
        raise ValueError(
            f"{steps} steps do not fit {trained} timesteps under {even} spacing "
            f"with offset {read['steps_offset']}: give fewer steps, or another spacing"
        )

    strides = sampler in ("ddim", "pndm") and not shape
    levels = Levels(
        sigmas=(*map(float, sigmas), 0.0),
        timesteps=tuple(map(float, visited)),
        steps=steps,
        schedule=schedule,
        initial_scale=_initial_scale(grid, even, float(sigmas[0])),
        order=2 if sampler == "heun" else 1,
        stride=trained // steps if strides else None,
        final=float(final),
        preserving=grid != "k",
    )
    if sampler != "pndm":
        return levels
    return levels.warmed_up() if read["skip_prk_steps"] or shape else _runge_kutta(levels)


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


def _whole(visited: np.ndarray, spacing: str | None, read: Mapping[str, Any]) -> np.ndarray:
    """DPM-Solver and UniPC tell the network integers: rounded, or merely cut."""
    cosine = read["beta_schedule"] == "squaredcos_cap_v2" and "algorithm_type" in read
    if (spacing == "karras" or read.get("use_lu_lambdas")) and not cosine:
        return visited.round()
    return np.trunc(visited)
