"""The classes that a diffusers ``scheduler_config.json`` can name, as data. No torch.

A configuration says only part; the rest is the default of the class that reads it. So naming
another sampler for a checkpoint reads the same file through another class. Every key is diffusers'
own name for it (version 0.42).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Grid = Literal["ddim", "k", "dpm"]


@dataclass(frozen=True, kw_only=True)
class SchedulerClass:
    """One class of diffusers.

    Attributes:
        name: what ``_class_name`` says.
        grid: which family of grids it visits: see ``spacing.timesteps``.
        defaults: every key it reads, with the value it takes where the file is silent.
        fixed: what it takes whatever the file says.
        rounds_karras: the network is told whole timesteps under karras levels.
        karras_has_limits: ``sigma_min`` and ``sigma_max`` count for karras levels, too.
        ends_on_last: levels of a shape that should end at the least sigma end on their own last.
    """

    name: str
    grid: Grid
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    rounds_karras: bool = False
    karras_has_limits: bool = True
    ends_on_last: bool = False


TRAINED = {  # how the network was trained
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
}
_READ = {**TRAINED, "prediction_type": "epsilon", "steps_offset": 0}
_STABLE = {"beta_start": 0.00085, "beta_end": 0.012}
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
    "sigma_min": None,
    "sigma_max": None,
}
_FLOW = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_K = {**_READ, **_SHAPES, "timestep_spacing": "linspace"}
_DPM = {
    **_K,
    **_LIMITS,
    **_FLOW,
    "rescale_betas_zero_snr": False,
    "solver_order": 2,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
}
_DDIM = {
    **_READ,
    **_LIMITS,
    **_CLIP,
    "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}
_CONSISTENCY = {
    **_DDIM,
    **_STABLE,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}
_EDM = {
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}

DDPM = SchedulerClass(
    name="DDPMScheduler", grid="ddim", defaults={**_DDIM, "variance_type": "fixed_small"}
)
DDIM = SchedulerClass(
    name="DDIMScheduler", grid="ddim", defaults={**_DDIM, "set_alpha_to_one": True}
)
PNDM = SchedulerClass(
    name="PNDMScheduler",
    grid="ddim",
    defaults={
        **_READ,
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "skip_prk_steps": False,
    },
)
LMS = SchedulerClass(name="LMSDiscreteScheduler", grid="k", defaults=_K, karras_has_limits=False)
HEUN = SchedulerClass(
    name="HeunDiscreteScheduler",
    grid="k",
    defaults={**_K, **_CLIP, **_STABLE, "clip_sample": False},
)
EULER = SchedulerClass(
    name="EulerDiscreteScheduler",
    grid="k",
    defaults={
        **_K,
        "rescale_betas_zero_snr": False,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
)
EULER_ANCESTRAL = SchedulerClass(
    name="EulerAncestralDiscreteScheduler",
    grid="k",
    defaults={**_READ, "timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
)
DPM2 = SchedulerClass(
    name="KDPM2DiscreteScheduler", grid="k", defaults={**_K, **_STABLE}, rounds_karras=True
)
DPM2_ANCESTRAL = SchedulerClass(
    name="KDPM2AncestralDiscreteScheduler",
    grid="k",
    defaults={**_K, **_STABLE},
    rounds_karras=True,
)
DPM_SDE = SchedulerClass(
    name="DPMSolverSDEScheduler",
    grid="k",
    defaults={**_K, **_STABLE, "noise_sampler_seed": None},
    karras_has_limits=False,
)
DPM_MULTISTEP = SchedulerClass(
    name="DPMSolverMultistepScheduler",
    grid="dpm",
    defaults={
        **_DPM,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
    },
    rounds_karras=True,
)
_SINGLESTEP = {
    **_DPM,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": False,
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}
_NEVER = {"timestep_spacing": "linspace", "steps_offset": 0, "rescale_betas_zero_snr": False}
DPM_SINGLESTEP = SchedulerClass(
    name="DPMSolverSinglestepScheduler",
    grid="dpm",
    defaults={key: value for key, value in _SINGLESTEP.items() if key not in _NEVER},
    fixed=_NEVER,
    rounds_karras=True,
)
DEIS = SchedulerClass(
    name="DEISMultistepScheduler",
    grid="dpm",
    defaults={
        **_K,
        **_LIMITS,
        **_FLOW,
        "solver_order": 2,
        "lower_order_final": True,
        "algorithm_type": "deis",
        "solver_type": "logrho",
    },
    fixed={"final_sigmas_type": "sigma_min", "rescale_betas_zero_snr": False},
    rounds_karras=True,
    ends_on_last=True,
)
UNIPC = SchedulerClass(
    name="UniPCMultistepScheduler",
    grid="dpm",
    defaults={
        **_DPM,
        "solver_type": "bh2",
        "predict_x0": True,
        "disable_corrector": [],
        "solver_p": None,
        "shift_terminal": None,
    },
    rounds_karras=True,
    ends_on_last=True,
)
LCM = SchedulerClass(name="LCMScheduler", grid="ddim", defaults=_CONSISTENCY)
TCD = SchedulerClass(
    name="TCDScheduler",
    grid="ddim",
    defaults=_CONSISTENCY,
    fixed={"final_sigmas_type": "sigma_min"},  # it ends at timestep 0
)
# Of networks that are preconditioned as Karras et al., arXiv:2206.00364.
EDM_EULER = SchedulerClass(
    name="EDMEulerScheduler",
    grid="k",
    defaults=_EDM,
    fixed={"clip_sample": False},
    ends_on_last=True,
)
EDM_MULTISTEP = SchedulerClass(
    name="EDMDPMSolverMultistepScheduler",
    grid="k",
    defaults={
        **_EDM,
        **_LIMITS,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "solver_order": 2,
        "lower_order_final": True,
        "euler_at_final": False,
    },
    fixed={"clip_sample": False},
)
