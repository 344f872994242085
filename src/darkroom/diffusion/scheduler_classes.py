"""The classes that a diffusers ``scheduler_config.json`` can name, as data.

A configuration says only part; the rest is the default of the class that reads it. So naming
another sampler for a checkpoint reads the same file through another row of this table.
Every key is diffusers' own name for it (version 0.42).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeGuard

from darkroom.diffusion.schedule import BETAS
from darkroom.diffusion.spacing import Grid
from darkroom.errors import ConfigError
from darkroom.names import did_you_mean

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

_DEFAULTS = {key: value for row in CLASSES.values() for key, value in row.defaults.items()}
KEYS = frozenset(_DEFAULTS)

# The words that a setting may be.
WORDS: Mapping[str, tuple[str, ...]] = {
    "beta_schedule": tuple(BETAS),
    "prediction_type": ("epsilon", "v_prediction", "sample", "original_sample", "flow_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
}
# The least and the most that a number may be.
RANGES: Mapping[str, tuple[float, float]] = {
    "num_train_timesteps": (2, 100_000),
    "steps_offset": (0, 100_000),
    "beta_start": (0, 1),
    "beta_end": (0, 1),
    "solver_order": (1, 3),
    "original_inference_steps": (1, 100_000),
    "dynamic_thresholding_ratio": (0, 1),
}
# Settings that ask for what is not implemented, unless they are silent.
UNSUPPORTED = (
    "use_beta_sigmas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "solver_p",
    "shift_terminal",
)


def check(key: str, value: object) -> None:
    """Refuse a setting that no class has, or a value that none takes.

    Raises:
        ConfigError: naming the setting and what was expected.
    """
    known("scheduler setting", key, KEYS)
    if key in UNSUPPORTED and value:
        raise ConfigError(f"scheduler setting {key}={value!r} is not supported: leave it out")
    if value is None:
        return
    if key in WORDS:
        known(key, value, WORDS[key])
    elif key in ("trained_betas", "disable_corrector"):
        if not isinstance(value, list | tuple) or not all(_number(item) for item in value):
            raise ConfigError(f"scheduler setting {key} must be a list of numbers")
    elif isinstance(_DEFAULTS[key], bool) and not isinstance(value, bool):
        raise ConfigError(f"scheduler setting {key} must be true or false, got {value!r}")
    elif isinstance(_DEFAULTS[key], int | float) and not isinstance(_DEFAULTS[key], bool):
        low, high = RANGES.get(key, (-float("inf"), float("inf")))
        whole = isinstance(_DEFAULTS[key], int)
        if not _number(value) or not low <= value <= high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise ConfigError(
                f"scheduler setting {key} must be {kind} from {low:g} to {high:g}, got {value!r}"
            )


def known(
    kind: str, name: object, valid: Collection[str], error: type[Exception] = ConfigError
) -> str:
    """``name``, or an error that lists the valid ones and the nearest."""
    if isinstance(name, str) and name in valid:
        return name
    hint = did_you_mean(str(name), valid)
    raise error(f"unknown {kind} {name!r}{hint} (valid: {', '.join(sorted(valid))})")


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
