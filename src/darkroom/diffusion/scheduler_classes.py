"""The classes that a diffusers ``scheduler_config.json`` can name, as data.

A configuration says only part; the rest is the default of the class that reads it. So naming
another sampler for a checkpoint reads the same file through another row of this table.
Every key is diffusers' own name for it (version 0.42).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from darkroom.diffusion.spacing import Grid

_TRAINED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_LIMITS = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_SHAPES = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_DPM = {
    **_TRAINED,
    **_LIMITS,
    **_SHAPES,
    "timestep_spacing": "linspace",
    "rescale_betas_zero_snr": False,
    "solver_order": 2,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_MULTISTEP = {
    **_DPM,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}


@dataclass(frozen=True)
class SchedulerClass:
    """One class of diffusers.

    Attributes:
        name: what ``_class_name`` says.
        grid: which family of grids it visits.
        defaults: every key it reads, with the value it takes where the file is silent.
    """

    name: str
    grid: Grid
    defaults: Mapping[str, Any]


def _row(name: str, grid: Grid, *defaults: Mapping[str, Any]) -> SchedulerClass:
    merged = {key: value for part in defaults for key, value in part.items()}
    return SchedulerClass(name, grid, MappingProxyType(merged))


CLASSES: dict[str, SchedulerClass] = {
    "ddpm": _row(
        "DDPMScheduler",
        "ddim",
        _TRAINED,
        _LIMITS,
        _CLIP,
        {
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
            "variance_type": "fixed_small",
        },
    ),
    "ddim": _row(
        "DDIMScheduler",
        "ddim",
        _TRAINED,
        _LIMITS,
        _CLIP,
        {
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
            "set_alpha_to_one": True,
        },
    ),
    "pndm": _row(
        "PNDMScheduler",
        "ddim",
        _TRAINED,
        {"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False},
    ),
    "lms": _row("LMSDiscreteScheduler", "k", _TRAINED, _SHAPES, {"timestep_spacing": "linspace"}),
    "heun": _row(
        "HeunDiscreteScheduler",
        "k",
        _TRAINED,
        _SHAPES,
        _CLIP,
        {
            "timestep_spacing": "linspace",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
        },
    ),
    "euler": _row(
        "EulerDiscreteScheduler",
        "k",
        _TRAINED,
        _SHAPES,
        {
            "timestep_spacing": "linspace",
            "rescale_betas_zero_snr": False,
            "interpolation_type": "linear",
            "sigma_min": None,
            "sigma_max": None,
            "timestep_type": "discrete",
            "final_sigmas_type": "zero",
        },
    ),
    "euler_ancestral": _row(
        "EulerAncestralDiscreteScheduler",
        "k",
        _TRAINED,
        {"timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
    ),
    "dpmpp_2m": _row("DPMSolverMultistepScheduler", "dpm", _MULTISTEP),
    "dpmpp_2m_sde": _row(
        "DPMSolverMultistepScheduler", "dpm", _MULTISTEP, {"algorithm_type": "sde-dpmsolver++"}
    ),
    "dpmpp_3m_sde": _row(
        "DPMSolverMultistepScheduler",
        "dpm",
        _MULTISTEP,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    ),
    "unipc": _row(
        "UniPCMultistepScheduler",
        "dpm",
        _DPM,
        {
            "solver_type": "bh2",
            "predict_x0": True,
            "disable_corrector": [],
            "solver_p": None,
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
    ),
    "lcm": _row(
        "LCMScheduler",
        "ddim",
        _TRAINED,
        _LIMITS,
        _CLIP,
        {
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "set_alpha_to_one": True,
            "original_inference_steps": 50,
            "timestep_scaling": 10.0,
        },
    ),
}

KEYS = frozenset(key for row in CLASSES.values() for key in row.defaults)
