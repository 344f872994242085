"""The keyword arguments of samplers, from a scheduler configuration's settings."""

import inspect
from collections.abc import Mapping
from typing import Any

from darkroom.diffusion.prediction import Noise, Preconditioned, Prediction, Sample, Velocity
from darkroom.diffusion.samplers import SAMPLERS, Limit
from darkroom.errors import ConfigError
from darkroom.sampling.table import TABLE

PREDICTIONS: Mapping[str, type[Prediction]] = {
    "epsilon": Noise,
    "v_prediction": Velocity,
    "sample": Sample,
    "original_sample": Sample,
}


def option_names(sampler: str) -> list[str]:
    """The options that ``sampler`` takes."""
    return list(inspect.signature(SAMPLERS[sampler]).parameters)[4:]


def sampler_options(sampler: str, read: Mapping[str, Any]) -> dict[str, Any]:
    """What ``sampler`` is called with.

    Args:
        read: every setting that its class reads, defaults filled in.

    Raises:
        ConfigError: for a setting that this sampler cannot follow.
    """
    _check_variance(sampler, read)
    options = TABLE[sampler].options(read)
    shared: dict[str, Any] = {"prediction": prediction(read)}
    if limit := _limit(read):
        shared["limit"] = limit
    taken = option_names(sampler)
    return {**options, **{name: shared[name] for name in shared if name in taken}}


def prediction(read: Mapping[str, Any]) -> Prediction:
    """What the network's output means."""
    kind = read["prediction_type"]
    if "sigma_data" not in read:
        return PREDICTIONS[kind]()
    if kind not in ("epsilon", "v_prediction"):
        raise ConfigError(
            f"prediction_type {kind!r} of an EDM scheduler: expected epsilon or v_prediction"
        )
    return Preconditioned(read["sigma_data"], negative=kind == "v_prediction")


def _check_variance(sampler: str, read: Mapping[str, Any]) -> None:
    kind = read.get("variance_type")
    valid = ("fixed_small", "fixed_small_log", "fixed_large")
    refused = kind not in valid if sampler == "ddpm" else str(kind).startswith("learned")
    if kind is not None and refused:
        raise ConfigError(
            f"scheduler setting variance_type {kind!r} is not supported by {sampler}: expected one "
            f"of {', '.join(valid)}"
        )


def _limit(read: Mapping[str, Any]) -> Limit | None:
    """What keeps estimates in range; only networks that paint pixels ask for it."""
    if read.get("thresholding"):
        return Limit(read["sample_max_value"], read["dynamic_thresholding_ratio"])
    return Limit(read["clip_sample_range"]) if read.get("clip_sample") else None
