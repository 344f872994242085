"""Draw with a network that paints pixels and takes a class, or nothing, instead of a prompt."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.diffusion.samplers import SAMPLERS, Step
from darkroom.diffusion.samplers.step import Denoise


def guided(
    model: PixelDiffusion, labels: Tensor | None, scale: float = 1.0, empty: int | None = None
) -> Denoise:
    """The function that samplers call: classifier-free guidance (Ho & Salimans, arXiv:2207.12598).

    ``estimate = without + scale * (with - without)``, both from one call of the network.

    Args:
        labels: (B,) class numbers; None for a network without classes.
        scale: 1 is off.
        empty: the class that stands for none.

    Raises:
        ValueError: guidance without labels, or without a class that stands for none.
    """
    if scale == 1.0:
        return lambda x, sigma: model.denoise(x, sigma, labels)
    if labels is None or empty is None:
        raise ValueError("guidance needs labels, and a class that stands for none")
    both = torch.cat((labels, torch.full_like(labels, empty)))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        told, without = model.denoise(torch.cat((x, x)), sigma, both).chunk(2)
        return without + scale * (told - without)

    return denoise


def draw(
    model: PixelDiffusion,
    shape: Sequence[int],
    seeds: Sequence[int],
    labels: Tensor | None = None,
    *,
    sampler: str | None = None,
    steps: int = 50,
    guidance: float = 1.0,
    empty: int | None = None,
) -> Iterator[Step]:
    """From noise to images, one ``Step`` per call of the network; the last one's ``x`` is drawn.

    Args:
        shape: of one image, (C, H, W).
        seeds: one per image; each image depends on its own seed alone.
        labels: (B,) class numbers, for a network with classes.
        sampler: a row of ``SAMPLERS``; None is the model's own.
        guidance: 1 is off.
        empty: the class that stands for none.

    Raises:
        ValueError: for an unknown sampler, or guidance without classes.
    """
    levels = model.sampling.levels(steps, sampler)
    place = next(model.unet.parameters()).device
    noise = NoiseSource(seeds, shape, place)
    labels = None if labels is None else labels.to(place)
    denoise = guided(model, labels, guidance, empty)
    run = SAMPLERS[sampler or model.sampling.sampler]
    start = levels.initial_scale * noise.fresh()
    return run(torch.no_grad()(denoise), start, levels, noise, **model.sampling.options(sampler))
