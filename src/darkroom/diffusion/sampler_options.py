"""The keyword arguments of samplers, from a scheduler configuration's settings."""

from collections.abc import Mapping
from typing import Any

from darkroom.diffusion.prediction import PREDICTIONS, Prediction
from darkroom.diffusion.samplers.limit import Limit
from darkroom.diffusion.scheduler_classes import known

PREDICTION_NAMES = {
    "epsilon": "noise",
    "v_prediction": "velocity",
    "sample": "sample",
    "original_sample": "sample",
    "flow_prediction": "flow",
}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}
ORDERS = {"dpmpp_2m": (1, 3), "dpmpp_2m_sde": (1, 2), "dpmpp_3m_sde": (3, 3)}


def sampler_options(sampler: str, read: Mapping[str, Any]) -> dict[str, Any]:
    """What ``sampler`` is called with.

    Args:
        read: every setting that its class reads, defaults filled in.
    """
    limit = _limit(read)
    options = _family_options(sampler, read)
    return options if limit is None else {**options, "limit": limit}


def prediction(read: Mapping[str, Any]) -> Prediction:
    """What the network's output means."""
    return PREDICTIONS[PREDICTION_NAMES[read["prediction_type"]]]()


def _family_options(sampler: str, read: Mapping[str, Any]) -> dict[str, Any]:
    match sampler:
        case "pndm":
            return {"prediction": prediction(read)}
        case "ddpm":
            kind = known("variance_type", read["variance_type"], VARIANCES)
            return {"variance": VARIANCES[kind]}
        case "lcm":
            return {"scaling": read["timestep_scaling"]}
        case "unipc":
            return {
                "order": read["solver_order"],
                "scale": "bh1" if read["solver_type"] == "bh1" else "bh2",
                "lower_order_final": read["lower_order_final"],
                "data": read["predict_x0"],
                "without_corrector": tuple(read["disable_corrector"]),
            }
        case "dpmpp_2m" | "dpmpp_2m_sde" | "dpmpp_3m_sde":
            low, high = ORDERS[sampler]
            options = {
                "order": min(max(read["solver_order"], low), high),
                "solver": "heun" if read["solver_type"] == "heun" else "midpoint",
                "lower_order_final": read["lower_order_final"],
                "euler_at_final": read["euler_at_final"],
            }
            if sampler != "dpmpp_3m_sde":
                options["plus"] = read["algorithm_type"] not in ("dpmsolver", "sde-dpmsolver")
            return options
        case _:
            return {}


def _limit(read: Mapping[str, Any]) -> Limit | None:
    """What keeps estimates in range; only networks that paint pixels ask for it."""
    if read.get("thresholding"):
        return Limit(read["sample_max_value"], read["dynamic_thresholding_ratio"])
    return Limit(read["clip_sample_range"]) if read.get("clip_sample") else None
