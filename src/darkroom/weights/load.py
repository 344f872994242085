"""``load``: whatever names a model, to the model."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom import foreign, machine
from darkroom.acceleration import hasten
from darkroom.arguments import shown, switch
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.errors import ArgumentError, CheckpointError, ConfigError
from darkroom.keywords import explained
from darkroom.models.clip.network import Clip
from darkroom.weights.families import check_prediction
from darkroom.weights.folder import (
    Target,
    is_supported,
    load_pipeline,
    load_single_model,
    weight_files,
)
from darkroom.weights.layouts.clip.configs import check_activation
from darkroom.weights.layouts.clip.files import open_clip_file
from darkroom.weights.locate import Located, locate
from darkroom.weights.single_file import load_single_file
from darkroom.weights.stored import convert_late


@explained
def load(
    model: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    prediction: str | None = None,
    activation: str | None = None,
    variant: str | None = None,
    ema: bool = True,
    strict: bool = False,
    accelerate: bool = True,
    offload: bool = False,
    low_memory: bool = False,
) -> Any:
    """Open a model, wherever it is and whatever wrote it.

    Args:
        model: a built-in name ("emoji"), a registered name, a folder of diffusers, a single file
            (.safetensors, .ckpt), ``hf:owner/name[@revision][:file]``, or a name that books print
            ("runwayml/stable-diffusion-v1-5"). Local copies are found without any connection.
        dtype: "float32", "float16" or "bfloat16"; None = float32 on a CPU, float16 on CUDA.
        device: None = CUDA where there is one, else the CPU.
        prediction: what the network predicts ("noise", "velocity"), over what the file or the
            catalogue says. Needed for an SD 2 single file whose name says nothing.
        activation: of a CLIP ("quick_gelu", "gelu"), over what the file or the catalogue says.
            Needed for an open_clip file of an unknown name without its open_clip_config.json.
        variant: of the weights' files ("fp16"); None = the one that fits ``dtype``.
        ema: of a single file that holds both, take the averaged weights.
        strict: refuse a file with keys that touch no part of the model. Otherwise one warning
            lists them. Keys that are missing, or do not fit inside a part, are always errors.
        accelerate: let each operation take the way that is quickest on this machine, at equal
            numbers (``acceleration.hasten``); False leaves all to PyTorch.
        offload: networks wait on the CPU, and come to ``device`` in turns: less of its memory.
        low_memory: on a CPU, large weights stay as the file has them and are converted while a
            layer computes; elsewhere as ``offload``. For ``develop(..., low_memory=True)``.

    Returns:
        A ``LatentDiffusion``; of a file or folder that holds one network, that network, or with a
        scheduler beside it a ``PixelDiffusion``. In evaluation mode and without gradients.

    Raises:
        ModelNotFoundError: nothing is called that; the message has the nearest names.
        CheckpointError: the files cannot be used, or are something else than a model.
        ConfigError: an argument is not one of its valid values.
    """
    if not isinstance(model, str | os.PathLike):
        raise ArgumentError(f"model {shown(model)}: expected a name, a file or a folder")
    place = machine.device(device)
    number = _number(dtype, place)
    if prediction is not None:
        check_prediction(prediction)
    if activation is not None:
        check_activation(activation)
    wanted = variant or ("fp16" if number == torch.float16 else None)
    located = locate(model, wanted)
    low_memory = switch("low_memory", low_memory)
    waits = (switch("offload", offload) or low_memory) and place.type != "cpu"
    target = Target(
        dtype=None if low_memory and place.type == "cpu" else number,
        device=torch.device("cpu") if waits else place,
        prediction=prediction,
        activation=activation,
        variant=variant,
        ema=ema,
        known=located.known,
        source=located.source,
        strict=strict,
    )
    with foreign.understood(located.path, CheckpointError):
        opened = open_located(located, target)
    if activation is not None and not isinstance(opened, Clip):
        raise ConfigError(f"activation= is for CLIP; {model} is a {type(opened).__name__}")
    if target.dtype is None:
        for network in opened.networks if isinstance(opened, LatentDiffusion) else [opened]:
            if isinstance(network, nn.Module):
                convert_late(network, number)
    if accelerate:
        hasten(opened)
    if waits:
        if not isinstance(opened, LatentDiffusion):
            raise ConfigError(f"offload= is for whole models; {model} is a {type(opened).__name__}")
        return opened.offload(place)
    return opened


def open_located(located: Located, target: Target) -> LatentDiffusion | PixelDiffusion | nn.Module:
    """What is at a place, as ``target`` says.

    Raises:
        CheckpointError: it is no model, or damaged.
    """
    path = located.path
    if path.is_file():
        return load_single_file(path, target)
    if (path / "model_index.json").is_file():
        return load_pipeline(path, target)
    open_clip = open_clip_file(path)
    described = (path / "config.json").is_file() and weight_files(path)
    if described and (open_clip is None or is_supported(path)):
        return load_single_model(path, target)
    if open_clip is not None:
        return load_single_file(open_clip, target)
    raise CheckpointError(f"{path}: {_what_instead(path)}")


def _what_instead(path: Path) -> str:
    files = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".ckpt"))
    if files:
        return f"a folder of single files; load one of them: {', '.join(files[:5])}"
    folders = sorted(p.parent.name for p in path.glob("*/model_index.json"))
    if folders:
        return f"a folder of models; load one of them: {', '.join(folders[:5])}"
    return "no model here; expected model_index.json, or config.json with weights"


def _number(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    return machine.dtype(dtype)
