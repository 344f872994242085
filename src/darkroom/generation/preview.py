"""What a run looks like so far, without the cost of decoding it."""

from collections.abc import Mapping
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.generation.decode import encode
from darkroom.images import to_pictures
from darkroom.models.autoencoder import SDXL_AUTOENCODER, AutoencoderConfig

# red, green and blue of each latent channel; published fits by the InvokeAI community
# (torridgristle for SD 1.5, StAlKeR7779 for SDXL)
_FACTORS: Mapping[str, tuple[tuple[float, float, float], ...]] = {
    "sd1": (
        (0.3444, 0.1385, 0.0670),
        (0.1247, 0.4027, 0.1494),
        (-0.3192, 0.2513, 0.2103),
        (-0.1307, -0.1874, -0.7445),
    ),
    "sdxl": (
        (0.3816, 0.4930, 0.5320),
        (-0.3753, 0.1631, 0.1739),
        (0.1770, 0.3588, -0.2048),
        (-0.4350, -0.2644, -0.4289),
    ),
}
_FACTORS = {**_FACTORS, "sd2": _FACTORS["sd1"]}  # the autoencoder of 2.x shares the encoder of 1.x


class Decoder(Protocol):
    """Turns scaled latents into images: a tiny autoencoder, or the model's own."""

    def decode(self, latents: Tensor, /) -> Tensor: ...


@torch.no_grad()
def preview(
    model: LatentDiffusion,
    latents: Tensor,
    decoder: Decoder | None = None,
    colours: tuple[Tensor, Tensor] | None = None,
) -> list[Image.Image]:
    """Small pictures of ``Step.denoised``, one per image.

    Args:
        latents: (B, C, h, w).
        decoder: a ``TinyAutoencoder``: full size, some tenths of a second on a CPU. None mixes
            colours linearly: one pixel per latent, below a millisecond.
        colours: what ``factors(model)`` returned, so that a loop need not ask again.
    """
    if decoder is not None:
        weight = next(decoder.parameters()) if isinstance(decoder, torch.nn.Module) else latents
        if decoder is not model.autoencoder:
            latents = _as_usual(model, latents)
        return to_pictures(decoder.decode(latents.to(weight)))
    mix, grey = factors(model) if colours is None else colours
    images = torch.einsum("bchw,cr->brhw", latents.float().cpu(), mix) + grey[:, None, None]
    return to_pictures(images.nan_to_num())


def _as_usual(model: LatentDiffusion, latents: Tensor) -> Tensor:
    """Latents with a mean and a deviation of their own (Playground v2.5), scaled as XL's are."""
    config = getattr(model.autoencoder, "config", None)
    if not isinstance(config, AutoencoderConfig) or not config.deviation:
        return latents
    mean, deviation = (
        latents.new_tensor(values)[:, None, None] for values in (config.mean, config.deviation)
    )
    return (latents * deviation / config.scale + mean) * SDXL_AUTOENCODER.scale


@torch.no_grad()
def factors(model: LatentDiffusion) -> tuple[Tensor, Tensor]:
    """(C, 3) colours of the latent channels in [-1, 1], and the (3,) colour of zero.

    Published numbers for the known families; for others a fit to the model's own autoencoder.
    """
    known = _FACTORS.get(model.family)
    usual = not getattr(getattr(model.autoencoder, "config", None), "deviation", ())
    if known is not None and usual and model.autoencoder.channels == len(known):
        return torch.tensor(known), torch.zeros(3)
    return _fit(model)


def _fit(model: LatentDiffusion) -> tuple[Tensor, Tensor]:
    """Least squares from the latents of a board of 64 colours to those colours."""
    factor = model.autoencoder.factor
    levels = torch.linspace(-1, 1, 4)
    colours = torch.cartesian_prod(levels, levels, levels)  # (64, 3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    small = colours[order].T.reshape(1, 3, 8, 8)
    board = torch.nn.functional.interpolate(small, scale_factor=2 * factor)
    latents, _ = encode(model, board)
    samples = latents[0].flatten(1).T.cpu()  # (256, C)
    samples = torch.cat((samples, torch.ones(len(samples), 1)), dim=1)
    targets = torch.nn.functional.interpolate(small, scale_factor=2)[0].flatten(1).T
    solution = torch.linalg.lstsq(samples, targets).solution  # (C + 1, 3)
    return solution[:-1], solution[-1]
