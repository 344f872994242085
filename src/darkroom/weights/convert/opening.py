"""Models opened for converting and merging: every tensor lazy, in the dtype it is stored in."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.text.encoder import PromptEncoder, Tower
from darkroom.weights.convert.lazy import LazyTensors
from darkroom.weights.folder import Target
from darkroom.weights.load import open_located
from darkroom.weights.locate import Located

DTYPES: Mapping[str, torch.dtype] = {
    "fp16": torch.float16, "float16": torch.float16,
    "bf16": torch.bfloat16, "bfloat16": torch.bfloat16,
    "fp32": torch.float32, "float32": torch.float32,
}  # fmt: skip


def dtype_called(name: str | torch.dtype | None) -> torch.dtype | None:
    """A dtype by its long or its short name.

    Raises:
        ValueError: there is none of that name.
    """
    if name is None or isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ValueError(f"no dtype {name!r}; known: fp16, bf16, fp32")
    return DTYPES[name]


def lazily(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What ``read_tensors`` gives, made when it is asked for."""
    infos: Any = tensors
    return LazyTensors(tensors, infos.infos)


def target_of(
    located: Located,
    *,
    ema: bool = True,
    prediction: str | None = None,
    activation: str | None = None,
    variant: str | None = None,
) -> Target:
    """How ``open_lazily`` reads."""
    return Target(
        dtype=None,
        device=torch.device("cpu"),
        prediction=prediction,
        activation=activation,
        variant=variant,
        ema=ema,
        known=located.known,
        source=located.source,
        wrap=lazily,
    )


def open_lazily(
    located: Located,
    *,
    ema: bool = True,
    prediction: str | None = None,
    activation: str | None = None,
    variant: str | None = None,
) -> LatentDiffusion | PixelDiffusion | nn.Module:
    """As ``load``, without reading the tensors.

    Raises:
        DarkroomError: as ``load``.
    """
    target = target_of(
        located, ema=ema, prediction=prediction, activation=activation, variant=variant
    )
    return open_located(located, target)


def networks_of(model: Any) -> dict[str, nn.Module]:
    """The networks of a model by part, or the one network."""
    if isinstance(model, PixelDiffusion):
        return {"unet": model.unet}
    if not isinstance(model, LatentDiffusion):
        return {type(model).__name__: model}
    found: dict[str, Any] = {"unet": model.unet, "vae": model.autoencoder}
    encoder = model.text_encoder
    towers = [t for t in encoder.towers if isinstance(t, Tower)] if isinstance(
        encoder, PromptEncoder
    ) else []  # fmt: skip
    found |= {f"text{n or ''}": tower.model for n, tower in enumerate(towers)}
    found |= {"depth": model.depth} if model.depth is not None else {}
    return found


def replace_each(network: nn.Module, change: Callable[[str, Tensor], Tensor]) -> None:
    """Put ``change(name, tensor)`` in place of every tensor that the state dict has."""
    for path, module, name in list(_places(network)):
        own = module._parameters if name in module._parameters else module._buffers
        tensor = own[name]
        assert tensor is not None
        changed = change(f"{path}.{name}" if path else name, tensor)
        if changed is tensor:
            continue
        if own is module._parameters:
            module._parameters[name] = nn.Parameter(changed, requires_grad=False)
        else:
            module._buffers[name] = changed


def _places(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for path, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield path, module, name
