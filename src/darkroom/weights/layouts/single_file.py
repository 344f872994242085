"""Which models a single-file checkpoint holds, under which prefixes, and what else may be there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from darkroom.errors import LayoutError
from darkroom.weights.layout import Layout, StateDict, identify
from darkroom.weights.layouts import autoencoder, clip_text, unet
from darkroom.weights.layouts.annotators import dpt

UNUSED = (  # shell patterns of what no part needs
    "model_ema.*",  # averaged weights, under flattened names
    "betas",
    "alphas_cumprod*",
    "sqrt_*alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_*",
    "logvar",
    "lvlb_weights",
    "scale_factor",
    "denoiser.*",  # the noise levels of SGM checkpoints
    "denoiser_ema.*",
    "conditioner.embedders.*.freqs",
    "v_pred",  # empty tensors by which some files say how they were trained
    "ztsnr",
    "edm_*",
    "callbacks*",
    "cond_stage_model.logit_scale",  # in files that ComfyUI saved
    "conditioner.embedders.*.logit_scale",
)


@dataclass(frozen=True)
class Part:
    """One model inside a file."""

    name: str  # 'unet', 'autoencoder', 'text', 'text2' or 'depth'
    prefix: str  # before each of its keys, with the dot
    layouts: tuple[Layout[Any], ...]  # the first is what a saved file gets
    optional: bool = False  # a checkpoint may lack it


@dataclass(frozen=True)
class Family:
    """How one family of checkpoints divides a file."""

    name: str
    parts: tuple[Part, ...]


_UNET = "model.diffusion_model."
_AUTOENCODER = Part("autoencoder", "first_stage_model.", (autoencoder.LDM,))
_HUGGINGFACE = (clip_text.HUGGINGFACE, clip_text.HUGGINGFACE_BARE)
SD1 = Family(
    "sd1",
    (
        Part("unet", _UNET, (unet.LDM_SD1,)),
        _AUTOENCODER,
        Part("text", "cond_stage_model.transformer.", _HUGGINGFACE),
    ),
)
SD2 = Family(
    "sd2",
    (
        Part("unet", _UNET, (unet.LDM,)),
        _AUTOENCODER,
        Part("text", "cond_stage_model.model.", (clip_text.OPENCLIP,)),
        Part("depth", "depth_model.model.", (dpt.MIDAS,), optional=True),
    ),
)
SDXL = Family(
    "sdxl",
    (
        Part("unet", _UNET, (unet.LDM,)),
        _AUTOENCODER,
        Part("text", "conditioner.embedders.0.transformer.", _HUGGINGFACE),
        Part("text2", "conditioner.embedders.1.model.", (clip_text.OPENCLIP,)),
    ),
)
SDXL_REFINER = Family(
    "sdxl-refiner",
    (
        Part("unet", _UNET, (unet.LDM,)),
        _AUTOENCODER,
        Part("text2", "conditioner.embedders.0.model.", (clip_text.OPENCLIP,)),
    ),
)
FAMILIES = {family.name: family for family in (SD1, SD2, SDXL, SDXL_REFINER)}


def family_of(names: Mapping[str, Any]) -> Family:
    """The family whose text towers the keys show.

    Raises:
        LayoutError: when no text tower is there; a file without one does not say its family.
    """
    for family in (SD1, SD2, SDXL, SDXL_REFINER):
        prefixes = [part.prefix for part in family.parts if part.name in ("text", "text2")]
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            return family
    wanted = ", ".join(p.prefix + "*" for f in FAMILIES.values() for p in f.parts[2:3])
    raise LayoutError(f"no text tower among the keys; expected one of {wanted}")


def foreign(names: Iterable[str], family: Family) -> list[str]:
    """The keys that belong to no part of ``family`` and are not known as unused."""
    prefixes = tuple(part.prefix for part in family.parts)
    return [
        name
        for name in names
        if not name.startswith(prefixes) and not any(fnmatchcase(name, p) for p in UNUSED)
    ]


def split(state: Mapping[str, Tensor], family: Family) -> dict[str, StateDict]:
    """Divide a checkpoint's tensors into the parts of ``family``, prefixes taken off."""
    parts: dict[str, StateDict] = {part.name: {} for part in family.parts}
    for key, tensor in state.items():
        for part in family.parts:
            if key.startswith(part.prefix):
                parts[part.name][key.removeprefix(part.prefix)] = tensor
                break
    return {name: part for name, part in parts.items() if part}


def read(state: Mapping[str, Tensor], family: Family) -> dict[str, tuple[Any, StateDict]]:
    """Config and converted tensors of each part that the file has.

    Raises:
        LayoutError: naming the part, when its tensors are of no known model.
    """
    found: dict[str, tuple[Any, StateDict]] = {}
    tensors = split(state, family)
    for part in family.parts:
        if part.name not in tensors:
            continue
        try:
            layout, preset = identify(tensors[part.name], part.layouts)
            config = layout.presets[preset]
            found[part.name] = config, layout.convert(tensors[part.name], config)
        except LayoutError as error:
            raise LayoutError(f"{part.name} ({part.prefix}*): {error}") from None
    return found


def join(parts: Mapping[str, tuple[Any, Mapping[str, Tensor]]], family: Family) -> StateDict:
    """The inverse of ``read``: configs and our state dicts of the parts to one file's tensors.

    Raises:
        LayoutError: when the family has no such part, or a part does not fit its layout.
    """
    by_name = {part.name: part for part in family.parts}
    state: StateDict = {}
    for name, (config, tensors) in parts.items():
        if name not in by_name:
            raise LayoutError(f"a {family.name} file has no {name}; it has {', '.join(by_name)}")
        part = by_name[name]
        reverted = part.layouts[0].revert(tensors, config)
        state.update({f"{part.prefix}{key}": tensor for key, tensor in reverted.items()})
    return state
