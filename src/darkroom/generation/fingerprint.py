"""A short name for weights: tells whether a picture can be drawn again bit for bit."""

import hashlib
from collections.abc import Iterator

import torch
from torch import nn

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.ops.packed import Packed
from darkroom.weights.stored import computes_in

_VALUES = 8  # of each end of every tensor: enough to tell fine-tunings apart, and milliseconds


@torch.no_grad()
def fingerprint(model: LatentDiffusion | nn.Module) -> str:
    """16 hexadecimal digits from the names, shapes and end values of all weights."""
    names, values = [], []
    for part in _modules(model):
        for name, tensor, dtype in _tensors(part):
            names.append(f"{name}{tuple(tensor.shape)}{dtype}")
            flat = tensor.reshape(-1)
            values += [flat[:_VALUES].float(), flat[-_VALUES:].float()]
    digest = hashlib.sha256("\n".join(names).encode())
    if values:
        digest.update(torch.cat(values).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _modules(model: LatentDiffusion | nn.Module) -> Iterator[nn.Module]:
    if isinstance(model, nn.Module):
        yield model
        return
    towers = getattr(model.text_encoder, "towers", None) or (model.text_encoder,)
    for part in (model.unet, model.autoencoder, *towers, model.depth):
        if isinstance(part, nn.Module):
            yield part


def _tensors(part: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.dtype]]:
    """Parameters and buffers in order of name, and what is computed in.

    Those that ``ops.packed`` hides come one at a time.
    """
    for path, module in sorted(part.named_modules()):
        own = dict((*module.named_parameters(path, False), *module.named_buffers(path, False)))
        if isinstance(module, Packed):
            own[f"{path}.weight"] = module.weight_data()
        for name, tensor in sorted(own.items()):
            late = computes_in(module) if name.endswith("weight") else None
            yield name, tensor, late or tensor.dtype
