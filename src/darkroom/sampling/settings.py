"""What the settings of a scheduler configuration may be, by diffusers' names. No torch."""

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from darkroom.errors import ConfigError
from darkroom.names import did_you_mean
from darkroom.sampling.classes import SchedulerClass
from darkroom.sampling.table import TABLE

# Keys of diffusers that say nothing to the classes here: those that it retired, and those of its
# other classes, which ``from_config`` hands on into saved files.
_RETIRED = ("timestep_values", "tensor_format", "predict_epsilon")
_FLOW = ("shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
_OTHERS = (
    "invert_sigmas",
    "stochastic_sampling",
    "snr_shift_scale",
    "predictor_order",
    "corrector_order",
    "tau_func",
    "eta",
    "snr",
    "sampling_eps",
    "correct_steps",
    "s_noise",
    "s_churn",
    "s_min",
    "s_max",
)
IGNORED = frozenset((*_RETIRED, *_FLOW, *_OTHERS))
# The words that a setting may be.
WORDS: Mapping[str, tuple[str, ...]] = {
    "beta_schedule": (
        "linear",
        "scaled_linear",
        "squaredcos_cap_v2",
        "exp",
        "laplace",
        "sigmoid",
    ),
    "prediction_type": ("epsilon", "v_prediction", "sample", "original_sample", "flow_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "sigma_schedule": ("karras", "exponential"),
}
# The least and the most that a number may be.
_TINY = 1e-6
RANGES: Mapping[str, tuple[float, float]] = {
    "num_train_timesteps": (2, 100_000),
    "steps_offset": (0, 100_000),
    "beta_start": (0, 1),
    "beta_end": (0, 1),
    "solver_order": (1, 3),
    "original_inference_steps": (1, 100_000),
    "dynamic_thresholding_ratio": (0, 1),
    "sample_max_value": (_TINY, 1e6),
    "clip_sample_range": (0, 1e6),
    "sigma_min": (_TINY, 1e6),
    "sigma_max": (_TINY, 1e6),
    "sigma_data": (_TINY, 1e6),
    "rho": (0.1, 100),
}
NUMBERS = ("sigma_min", "sigma_max")  # whose default is none
LISTS = ("trained_betas", "disable_corrector")
SHAPES = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
# Settings that ask for what is not implemented, unless they are silent; and why.
UNSUPPORTED: Mapping[str, str] = {
    "use_flow_sigmas": "flow models are not supported",
    "use_dynamic_shifting": "flow models are not supported",
    "shift_terminal": "flow models are not supported",
    "solver_p": "UniPC predicts by itself",
    "noise_sampler_seed": "noise depends on the picture's seed alone",
}


def scheduler_classes() -> dict[str, SchedulerClass]:
    """Every class that a configuration may name, by ``_class_name``."""
    found = {row.scheduler.name: row.scheduler for row in TABLE.values() if row.when is not None}
    edm = {row.edm.name: row.edm for row in TABLE.values() if row.edm is not None}
    return {**found, **edm}


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a setting that no class has, a value that none takes, and what contradicts itself.

    Null says nothing, whatever the key.

    Raises:
        ConfigError: naming the setting and what was expected.
    """
    defaults = {
        key: value for each in scheduler_classes().values() for key, value in each.defaults.items()
    }
    said = {key: value for key, value in settings.items() if value is not None}
    for key in settings:
        known("scheduler setting", key, defaults.keys() | IGNORED)
    for key, value in said.items():
        if key in defaults:
            _check_value(key, value, defaults[key])
    _check_together(said)


def _check_value(key: str, value: object, default: object) -> None:
    if key in UNSUPPORTED and (value or key == "noise_sampler_seed"):
        raise ConfigError(
            f"scheduler setting {key}={value!r:.40} is not supported "
            f"({UNSUPPORTED[key]}): leave it out"
        )
    if key in UNSUPPORTED:
        return
    if key in WORDS:
        known(key, value, WORDS[key])
    elif key in LISTS:
        if not isinstance(value, list | tuple) or not all(_number(item) for item in value):
            raise ConfigError(f"scheduler setting {key} must be a list of numbers")
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"scheduler setting {key} must be true or false, got {value!r:.40}")
    elif isinstance(default, int | float) or key in NUMBERS:
        whole = isinstance(default, int)
        low, high = RANGES.get(key, (-math.inf, math.inf))
        if not _number(value) or not low <= value <= high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise ConfigError(
                f"scheduler setting {key} must be {kind} from {low:g} to {high:g}, "
                f"got {value!r:.40}"
            )


def _check_together(said: Mapping[str, Any]) -> None:
    shaped = [key for key in SHAPES if said.get(key)]
    if len(shaped) > 1:
        raise ConfigError(
            f"scheduler settings {' and '.join(shaped)} exclude each other: keep one of them"
        )
    if said.get("prediction_type") == "flow_prediction":
        raise ConfigError(
            "scheduler setting prediction_type='flow_prediction' needs flow sigmas, which are not "
            "supported: expected epsilon, v_prediction or sample"
        )
    if said.get("predict_epsilon") is False and said.get("prediction_type") not in (
        "sample",
        "original_sample",
    ):
        raise ConfigError(
            "scheduler setting predict_epsilon=False is retired and would be ignored: say "
            "prediction_type='sample' instead"
        )
    low, high = said.get("sigma_min"), said.get("sigma_max")
    if low is not None and high is not None and low >= high:
        raise ConfigError(f"scheduler setting sigma_min={low:g} must be below sigma_max={high:g}")


def known(
    kind: str, name: object, valid: Collection[str], error: type[Exception] = ConfigError
) -> str:
    """``name``, or an error that lists the valid ones and the nearest."""
    if isinstance(name, str) and name in valid:
        return name
    hint = did_you_mean(str(name), valid)
    raise error(f"unknown {kind} {name!r:.60}{hint} (valid: {', '.join(sorted(valid))})")


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
