"""Adapters written as the programs that share them read them."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.adapters.hypernetwork import Hypernetwork
from darkroom.adapters.lora import LayerChange
from darkroom.atomic import atomic_write
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.unet import UNet
from darkroom.weights.adapters.lora import PEFT_PREFIXES, networks
from darkroom.weights.configs import is_convolutional
from darkroom.weights.layouts import lora as layout
from darkroom.weights.save import write_json, write_tensors

SPELLINGS = ("kohya", "diffusers", "peft")
VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}  # as kohya says the base


def save_lora(
    path: str | os.PathLike[str],
    model: LatentDiffusion,
    layers: Mapping[str, Mapping[str, LayerChange]],
    spelling: str = "kohya",
) -> Path:
    """Write the changes of a model's layers; ``fit`` of the file gives them back, bit for bit.

    Args:
        path: a ``.safetensors`` file; for "peft" a folder, since it keeps its scales beside.
        model: the one that they are for; gives the names.
        layers: by part ("unet", "text", "text2") and path of our layer, as ``fit`` returns them,
            or as ``{"unet": attach(model.unet, ...).layers}``.
        spelling: "kohya", which A1111 and ComfyUI read, too; "diffusers", as its pipelines save;
            "peft", of one part alone.

    Raises:
        LayoutError: the spelling has no name for a layer, or for this kind of change.
        ValueError: an unknown spelling, another ending, or nothing to save.
    """
    path = Path(path)
    if spelling not in SPELLINGS:
        raise ValueError(f"no spelling {spelling!r}; there are {', '.join(SPELLINGS)}")
    if (path.suffix == ".safetensors") == (spelling == "peft"):
        wanted = "a folder" if spelling == "peft" else "a name ending .safetensors"
        raise ValueError(f"{path}: {wanted} is expected for the spelling {spelling!r}")
    changes = [
        _change(part, path, layer) for part in layers for path, layer in layers[part].items()
    ]
    if not changes or (spelling == "peft" and len({change.part for change in changes}) > 1):
        raise ValueError("nothing to save" if not changes else "peft files hold one part alone")
    parts = networks(model)
    network = parts["unet"]
    convolutional = isinstance(network, UNet) and is_convolutional(network.config)
    try:
        state = layout.write(changes, parts, spelling, convolutional)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    state = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    metadata = {"format": "pt"}
    if spelling == "kohya":
        if model.family in VERSIONS:
            metadata["ss_base_model_version"] = VERSIONS[model.family]
    elif spelling == "diffusers":
        described: dict[str, Any] = {}
        for part in dict.fromkeys(change.part for change in changes):
            own = [change for change in changes if change.part == part]
            config = _config(own, parts[part], convolutional)
            described |= {f"{PEFT_PREFIXES[part]}{key}": value for key, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(described, sort_keys=True)
    else:
        path.mkdir(parents=True, exist_ok=True)
        config = _config(changes, parts[changes[0].part], convolutional)
        write_json(path / "adapter_config.json", {**config, "inference_mode": True})
    write_tensors(
        path / "adapter_model.safetensors" if spelling == "peft" else path, state, metadata
    )
    return path


def save_embedding(
    path: str | os.PathLike[str], vectors: Tensor | Sequence[Tensor], *, step: int | None = None
) -> Path:
    """Write a textual inversion as A1111 does; prompts find it by the file's name.

    Args:
        path: ending ``.pt`` (``string_to_param``) or ``.safetensors`` (``emb_params``; ``clip_l``
            and ``clip_g`` of XL).
        vectors: (n, C), or one such tensor for each of XL's towers.
        step: how long it was trained; a .pt file says so.

    Raises:
        ValueError: another ending, or a .pt file for two towers.
    """
    path = Path(path)
    each = [vectors] if isinstance(vectors, Tensor) else list(vectors)
    each = [tensor.detach().cpu().contiguous() for tensor in each]
    names = {1: ("emb_params",), 2: ("clip_l", "clip_g")}.get(len(each))
    if names is None or any(tensor.ndim != 2 for tensor in each):
        raise ValueError("vectors of shape (n, width) are expected, for one tower or two")
    if path.suffix == ".safetensors":
        write_tensors(path, dict(zip(names, each, strict=True)), {"format": "pt"})
    elif path.suffix == ".pt" and len(each) == 1:
        content = {
            "string_to_token": {"*": 265},  # the id of "*", which training replaces
            "string_to_param": {"*": each[0]},
            "name": path.stem,
            "step": step,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
        }
        _write_pickle(path, content)
    else:
        said = ".safetensors" if len(each) == 2 else ".pt or .safetensors"
        raise ValueError(f"{path}: a name ending {said} is expected")
    return path


def save_hypernetwork(path: str | os.PathLike[str], network: Hypernetwork) -> Path:
    """Write a hypernetwork as A1111 does, to a ``.pt`` file.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise ValueError(f"{path}: a name ending .pt is expected, A1111's only form")
    _write_pickle(path, {**network.states(), "name": path.stem, **network.description()})
    return path


def _write_pickle(path: Path, content: dict[Any, Any]) -> None:
    with atomic_write(path) as file:
        torch.save(content, file)


def _change(part: str, path: str, layer: Any) -> layout.Change:
    tensors = {role: tensor.detach().cpu() for role, tensor in layer.tensors.items()}
    return layout.Change(part=part, path=path, source=path, tensors=tensors, alpha=layer.alpha)


def _config(
    changes: Sequence[layout.Change], network: nn.Module, convolutional: bool
) -> dict[str, Any]:
    """What peft's LoraConfig says of one network's changes."""
    ranks, alphas = {}, {}
    names = layout.their_names(network, convolutional)
    for change in changes:
        path = names[change.path].theirs.removeprefix("text_model.")  # newer towers lack it
        ranks[path] = len(change.tensors["down"])
        alphas[path] = ranks[path] if change.alpha is None else change.alpha
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    dora = {"magnitude" in change.tensors or "dora_scale" in change.tensors for change in changes}
    if len(dora) > 1:
        raise CheckpointError("peft has DoRA in all layers or in none; save it as 'kohya'")
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha},
        "target_modules": list(ranks),
        "use_dora": dora.pop(),
        "bias": "none",
    }
