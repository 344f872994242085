"""What the families of Stable Diffusion have in common, for what a file or folder leaves unsaid."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Annotated, Any

from torch import nn

from darkroom.config import Range, from_dict
from darkroom.diffusion.latent_diffusion import Autoencoder, LatentDiffusion
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.errors import CheckpointError, ConfigError
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.unet import UNetConfig
from darkroom.names import did_you_mean
from darkroom.text.encoder import PromptEncoder, Tower
from darkroom.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
LARGEST = 16_384  # pixels of a side of a picture
SIZE_NUMBERS = 6  # original size, crop, target size; the refiner: one score in place of the last

SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "sd1": {"size": (512, 512), "guidance": 7.5},
        "sd2": {"size": (512, 512), "guidance": 7.5},
        "sdxl": {"size": (1024, 1024), "guidance": 5.0},
        "sdxl-refiner": {"size": (1024, 1024), "guidance": 5.0},
    }
)
TRAINED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
PNDM = {
    **TRAINED,
    "_class_name": "PNDMScheduler",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
DDIM = {
    **TRAINED,
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
EULER = {
    **TRAINED,
    "_class_name": "EulerDiscreteScheduler",
    "timestep_spacing": "leading",
    "interpolation_type": "linear",
}
TURBO = {
    **TRAINED,
    "_class_name": "EulerAncestralDiscreteScheduler",
    "timestep_spacing": "trailing",
}
PLAYGROUND = {  # v2.5: preconditioned as EDM, with the mean and deviation of its latents
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "prediction_type": "epsilon",
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
}
PLAYGROUND_SCALE = 0.5  # of its latents, after their mean and deviation
COSXL = {  # EDM's continuous levels with v-prediction
    "_class_name": "EDMEulerScheduler",
    "prediction_type": "v_prediction",
    "sigma_min": 0.002,
    "sigma_max": 120.0,
    "sigma_data": 1.0,
    "sigma_schedule": "exponential",
}
# The scheduler that the family's repositories ship with, for files that have none.
SCHEDULERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"sd1": PNDM, "sd2": DDIM, "sdxl": EULER, "sdxl-refiner": EULER}
)
PREDICTION_TYPES = {
    "noise": "epsilon",
    "velocity": "v_prediction",
    "sample": "sample",
    "flow": "flow_prediction",
}


Side = Annotated[int, Range(1, LARGEST)]  # pixels


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What our own files say of how a model is meant to be drawn with."""

    size: tuple[Side, Side] | None = None  # height, width
    steps: Annotated[int, Range(1, 100_000)] | None = None
    guidance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Own:
    """What our own files say of a model that its tensors do not tell."""

    family: str | None = None
    name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    zero_unconditional: bool | None = None


def check_own(own: Any, where: str) -> Mapping[str, Any]:
    """``own`` itself, if its values are of the types that our own files write.

    Raises:
        CheckpointError: naming the one that is not.
    """
    if not isinstance(own, Mapping):
        raise CheckpointError(f"{where}: expected an object")
    try:
        for kind, said in ((Own, own), (Settings, own.get("settings") or {})):
            known = {f.name for f in fields(kind)}
            from_dict(kind, {k: v for k, v in said.items() if k in known and v is not None}, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return own


def family_of(unet: UNetConfig, towers: Sequence[TextConfig]) -> str:
    """The family by structure, whatever the sizes."""
    if len(towers) == 2:
        return "sdxl"
    if unet.vector_channels:
        return "sdxl-refiner"
    return "sd1" if towers[0].quick_gelu else "sd2"


def check_prediction(name: str) -> str:
    """Return ``name`` if a network can be said to predict that.

    Raises:
        ConfigError: with the nearest valid name.
    """
    if name not in PREDICTION_TYPES:
        valid = ", ".join(PREDICTION_TYPES)
        raise ConfigError(
            f"prediction {name!r} is unknown{did_you_mean(name, PREDICTION_TYPES)}; one of {valid}"
        )
    return name


def predicting(sampling: SamplingConfig, prediction: str | None) -> SamplingConfig:
    """``sampling`` for a network that predicts this; None leaves it as it is."""
    if prediction is None:
        return sampling
    kind = PREDICTION_TYPES[check_prediction(prediction)]
    return replace(sampling, settings={**sampling.settings, "prediction_type": kind})


def sized(sample: Any, factor: int) -> dict[str, Any]:
    """The size in pixels that a config's ``sample_size`` (of latents) means."""
    sides = sample if isinstance(sample, list) and len(sample) == 2 else [sample, sample]
    if all(type(side) is int and 1 <= side * factor <= LARGEST for side in sides):
        return {"size": (sides[0] * factor, sides[1] * factor)}
    return {}  # a hint at most: what it is meant for, not what it can do


def prompt_encoder(
    family: str,
    unet: UNetConfig,
    models: Sequence[ClipTextModel],
    tokenizers: Sequence[Tokenizer],
    *,
    zero_unconditional: bool,
    where: str,
) -> PromptEncoder:
    """Text towers as the family's U-Net expects them.

    Raises:
        CheckpointError: the towers do not make what the U-Net takes.
    """
    xl = family.startswith("sdxl")
    towers = [
        Tower(model, tokenizer, layer=-2 if xl else -1, norm=not xl)
        for model, tokenizer in zip(models, tokenizers, strict=True)
    ]
    width = sum(model.config.channels for model in models)
    if width != unet.text_channels:
        raise CheckpointError(
            f"{where}: the text towers make {width} channels, the U-Net takes {unet.text_channels}"
        )
    if not unet.vector_channels:
        return PromptEncoder(towers)
    scored = family == "sdxl-refiner"
    count = SIZE_NUMBERS - scored
    room = unet.vector_channels - models[-1].config.projection
    if room < count or room % count:
        raise CheckpointError(
            f"{where}: the U-Net takes a vector of {unet.vector_channels}, the last text tower "
            f"gives {models[-1].config.projection}: expected {count} equal parts for the rest"
        )
    return PromptEncoder(
        towers,
        size_channels=room // count,
        scored=scored,
        zero_unconditional=zero_unconditional,
    )


def _usual(unet: nn.Module, sampling: SamplingConfig) -> dict[str, Any]:
    """What models of a kind are drawn with, as their authors say."""
    config = getattr(unet, "config", None)
    if isinstance(config, UNetConfig) and config.guidance_channels:  # LCM
        return {"guidance": 8.5, "steps": 4}
    velocity = sampling.settings.get("prediction_type") == "v_prediction"
    return {"guidance": 3.0} if sampling.edm and not velocity else {}  # Playground v2.5


def latent_diffusion(
    *,
    unet: nn.Module,
    autoencoder: Autoencoder,
    text_encoder: PromptEncoder,
    sampling: SamplingConfig,
    family: str,
    name: str,
    settings: Mapping[str, Any],
    notes: Sequence[str],
    source: str,
    depth: nn.Module | None = None,
) -> LatentDiffusion:
    """Put the parts together; ``notes`` are logged and kept in ``settings["notes"]``."""
    for note in notes:
        log.info("%s: %s", name, note)
    return LatentDiffusion(
        unet=unet,
        autoencoder=autoencoder,
        text_encoder=text_encoder,
        schedule=sampling.schedule(),
        prediction=sampling.prediction(),
        sampling=sampling,
        name=name,
        family=family,
        settings={
            **SETTINGS.get(family, {}),
            **_usual(unet, sampling),
            **settings,
            "notes": tuple(notes),
        },
        source=source,
        depth=depth,
    )
