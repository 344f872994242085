"""diffusers' schedulers and our samplers, run side by side on one analytic network."""

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers import SAMPLERS, Step
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.sampling.table import TABLE

diffusers.logging.set_verbosity_error()
with mock.patch.dict(sys.modules, {"torchsde": ModuleType("torchsde")}):  # its noise is not used
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

# The scheduler_config.json of the public checkpoints, as published.
_TRAINED = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    **_TRAINED,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
SD2 = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    **_TRAINED,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    **_TRAINED,
    "clip_sample": False,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
TURBO = {
    **SDXL,
    "_class_name": "EulerAncestralDiscreteScheduler",
    "_diffusers_version": "0.24.0.dev0",
    "timestep_spacing": "trailing",
}
LCM = {
    "_class_name": "LCMScheduler",
    "_diffusers_version": "0.22.0.dev0",
    **_TRAINED,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "original_inference_steps": 50,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "thresholding": False,
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
}
DDPM_CAT = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
CONFIGS: dict[str, dict[str, Any]] = {"sd15": SD15, "sd2": SD2, "sdxl": SDXL}

SHAPE = (4, 4, 4)
SEEDS = (7, 8)


def network(x: Tensor, t: float) -> Tensor:
    """Any smooth function of the scaled input and the timestep."""
    return torch.tanh(x * (0.7 + t / 2000)) + 0.1 * torch.sin(3 * x)


def scheduler(config: Mapping[str, Any], sampler: str | None, **overrides: Any) -> Any:
    """diffusers' scheduler of a configuration, or the one swapped in by ``from_config``."""
    own = _made(config["_class_name"], config)
    if sampler is None:
        return own
    if sampler in ("dpmpp_2m_sde", "dpmpp_3m_sde"):
        overrides = {"algorithm_type": "sde-dpmsolver++", **overrides}
    return _made(TABLE[sampler].scheduler.name, own.config, **overrides)


@contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' and NumPy's words on what diffusers does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _made(name: str, config: Mapping[str, Any], **overrides: Any) -> Any:
    """A scheduler that has not spaced all its timesteps yet, which takes DPM2's a second."""
    sde = name == "DPMSolverSDEScheduler"
    cls: Any = DPMSolverSDEScheduler if sde else getattr(diffusers, name)
    spaced = cls.set_timesteps

    def few(self: Any, steps: int, *rest: Any) -> None:
        spaced(self, 2, *rest)

    with quiet(), mock.patch.object(cls, "set_timesteps", few):
        return cls.from_config(config, **overrides)


class Increments:
    """The Brownian increments of DPM++ SDE, from one generator per image, in place of torchsde.

    Asked for the half of a step, then for the whole of it: both belong to one path.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators, self.half = generators, None

    def __call__(self, sigma: Tensor, to: Tensor) -> Tensor:
        unit = torch.cat([torch.randn((1, *SHAPE), generator=g) for g in self.generators])
        if self.half is None:
            self.half = unit, to
            return unit
        (half, middle), self.half = self.half, None
        share = (sigma - middle) / (sigma - to)
        return share.sqrt() * half + (1 - share).sqrt() * unit


def theirs(
    own: Any,
    steps: int | list[int],
    clean: Tensor | None = None,
    strength: float = 1.0,
    **options: Any,
) -> list[Tensor]:
    """x after every call; from pure noise, or from ``clean`` as StableDiffusionImg2ImgPipeline."""
    given = {"timesteps": steps} if isinstance(steps, list) else {"num_inference_steps": steps}
    with quiet():
        own.set_timesteps(**given)
    steps = len(steps) if isinstance(steps, list) else steps
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    if isinstance(own, DPMSolverSDEScheduler):
        own.noise_sampler = Increments(generators)
    unit = torch.cat([torch.randn((1, *SHAPE), generator=g) for g in generators])
    timesteps = own.timesteps
    if clean is None:
        x = unit * own.init_noise_sigma
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(0)  # else it looks for a timestep that may be there twice
    else:
        start = max(steps - min(int(steps * strength), steps), 0)
        timesteps = timesteps[start * own.order :]
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(start * own.order)
        x = own.add_noise(clean, unit, timesteps[:1].repeat(len(clean)))
    if "generator" in inspect.signature(own.step).parameters:
        options["generator"] = generators
    trajectory = []
    for t in timesteps:
        scaled = own.scale_model_input(x, t)
        x = own.step(network(scaled, float(t)), t, x, **options).prev_sample
        trajectory.append(x)
    return trajectory


def ours(
    config: SamplingConfig,
    levels: Levels,
    sampler: str | None,
    clean: Tensor | None = None,
    **options: Any,
) -> list[Step]:
    """Every Step of our sampler, from the same seeds."""
    prediction, noise = config.prediction(), NoiseSource(SEEDS, SHAPE)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        output = network(prediction.network_input(x, sigma), levels.timestep(sigma))
        return prediction.denoised(x, output, sigma)

    unit = noise.fresh()
    x = unit * levels.initial_scale if clean is None else clean + unit * levels.sigmas[0]
    options = {**config.options(sampler), **options}
    return list(SAMPLERS[sampler or config.sampler](denoise, x, levels, noise, **options))


def deviations(
    config: Mapping[str, Any],
    sampler: str | None,
    steps: int | list[int],
    strength: float | None = None,
    spacing: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[float]:
    """The relative deviation of x after every call."""
    clean = None
    if strength is not None:
        clean = torch.randn(len(SEEDS), *SHAPE, generator=torch.Generator().manual_seed(9))
    reference = scheduler(config, sampler, **(overrides or {}))
    wanted = theirs(reference, steps, clean, strength or 1.0, **options)
    own = SamplingConfig.from_diffusers(config)
    levels = (
        own.levels(sampler=sampler, timesteps=steps)
        if isinstance(steps, list)
        else own.levels(steps, sampler, spacing)
    )
    levels = levels if strength is None else levels.strength(strength)
    got = ours(own, levels, sampler, clean, **options)
    assert len(got) == len(wanted) == levels.calls
    # the DDPM family keeps x / sqrt(1 + sigma^2)
    preserving = not isinstance(getattr(type(reference), "init_noise_sigma", None), property)
    result = []
    for step, want in zip(got, wanted, strict=True):
        x = step.x / (1 + step.sigma**2) ** 0.5 if preserving else step.x
        result.append(((x - want).norm() / want.norm()).item())
    return result
