"""Latents to pictures and back: in tiles when large, again in float32 when not finite."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import NonFiniteError
from darkroom.generation.residence import rest

TILE, OVERLAP = 64, 16  # latents per side of a tile, and how many of them two neighbours share
LARGEST = 128 * 128  # latents that are decoded whole: 1024x1024 pixels with a factor of 8


def tiles_by_default(size: tuple[int, int], factor: int) -> bool:
    """Whether a picture of (height, width) is decoded in tiles when nothing is asked for."""
    return (size[0] // factor) * (size[1] // factor) > LARGEST


@torch.no_grad()
def decode(model: LatentDiffusion, latents: Tensor, tile: bool = False) -> tuple[Tensor, bool]:
    """Pictures (B, 3, H, W) in [-1, 1], float32, on the CPU, one after another.

    Args:
        latents: (B, C, h, w) scaled latents, any dtype.
        tile: decode tiles of 64 latents and blend them: the memory of one tile, nearly the same
            picture (the decoder's attention and norms see one tile at a time).

    Returns:
        The pictures, and whether any had to be decoded again in float32.

    Raises:
        NonFiniteError: when a picture holds NaN or infinity in float32 too.
    """
    decoded = [
        _finite(model.autoencoder, latent[None], "decode", _tiled if tile else _whole)
        for latent in latents
    ]
    rest(model.autoencoder)
    return torch.cat([image for image, _ in decoded]), any(redone for _, redone in decoded)


@torch.no_grad()
def encode(
    model: LatentDiffusion, image: Tensor, noise: Tensor | None = None
) -> tuple[Tensor, bool]:
    """Scaled latents, float32, on the model's device; and whether float32 was needed.

    Args:
        image: (1 or B, 3, H, W) in [-1, 1].
        noise: (B, C, h, w) unit noise of the posterior; None takes its mean.

    Raises:
        NonFiniteError: when the latents hold NaN or infinity in float32 too.
    """

    def run(autoencoder: Any, image: Tensor) -> Tensor:
        return autoencoder.encode(image, None if noise is None else noise.to(image))

    found = _finite(model.autoencoder, image, "encode", run, device=model.device)
    rest(model.autoencoder)
    return found


def _finite(
    autoencoder: Any,
    given: Tensor,
    action: str,
    run: Callable[[Any, Tensor], Tensor],
    device: torch.device | str = "cpu",
) -> tuple[Tensor, bool]:
    """The result of ``run``, in float32 if it is not finite otherwise."""
    weight = next(autoencoder.parameters()) if isinstance(autoencoder, nn.Module) else given
    result = run(autoencoder, given.to(weight)).to(device, torch.float32)
    if torch.isfinite(result).all():
        return result, False
    exact = autoencoder
    if isinstance(autoencoder, nn.Module):
        exact = copy.deepcopy(autoencoder).float()
    result = run(exact, given.to(weight).float()).to(device, torch.float32)
    if torch.isfinite(result).all():
        return result, True
    cause = "the latents are not finite" if not torch.isfinite(given).all() else "its weights do"
    dtype = str(weight.dtype).removeprefix("torch.")
    raise NonFiniteError(
        f"autoencoder, {action}: NaN or infinity in {dtype} and again in float32; {cause}; "
        "check the autoencoder's weights or use another one"
    )


def _whole(autoencoder: Any, latents: Tensor) -> Tensor:
    return autoencoder.decode(latents)


def _tiled(autoencoder: Any, latents: Tensor) -> Tensor:
    """Decode overlapping tiles of (1, C, h, w) and blend them with linear ramps."""
    height, width = latents.shape[2:]
    factor = autoencoder.factor
    total = torch.zeros(1, 3, height * factor, width * factor)
    weight = torch.zeros(1, 1, height * factor, width * factor)
    for top in _starts(height):
        for left in _starts(width):
            part = latents[:, :, top : top + TILE, left : left + TILE]
            image = autoencoder.decode(part).float().cpu()
            rows = _ramp(image.shape[2], factor * OVERLAP, top > 0, top + TILE < height)
            columns = _ramp(image.shape[3], factor * OVERLAP, left > 0, left + TILE < width)
            mask = rows[:, None] * columns
            y, x = top * factor, left * factor
            where = (..., slice(y, y + image.shape[2]), slice(x, x + image.shape[3]))
            total[where] += image * mask
            weight[where] += mask
    return total / weight


def _starts(length: int) -> list[int]:
    """Where tiles begin: evenly spread, neighbours sharing at least OVERLAP."""
    if length <= TILE:
        return [0]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    return [round(i * (length - TILE) / (count - 1)) for i in range(count)]


def _ramp(length: int, overlap: int, fades_in: bool, fades_out: bool) -> Tensor:
    """Weights of one tile along one side, rising from nearly 0 where it meets a neighbour."""
    ramp = torch.ones(length)
    edge = (torch.arange(overlap) + 0.5) / overlap
    if fades_in:
        ramp[:overlap] = edge
    if fades_out:
        ramp[-overlap:] = edge.flip(0)
    return ramp
