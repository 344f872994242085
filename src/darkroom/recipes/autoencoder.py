"""Train a KL autoencoder on a folder of pictures (Rombach et al., arXiv:2112.10752, section 3.1).

Without a perceptual or adversarial loss: absolute error of the pixels and of their gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig, kl_divergence
from darkroom.recipes.runs import Run
from darkroom.training.augment import TINTS, colour, compose, tint
from darkroom.training.data import CaptionedPictures, image_folder
from darkroom.training.fit import Draw, FitOptions, FitStep, Training


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "autoencoder"``."""

    data: Path  # a folder with metadata.jsonl
    out: Path  # the run: state, log, and the finished autoencoder in ``out/vae``
    size: int = 64  # pixels
    kl: float = 0.02  # weight of the divergence, in nats per pixel value
    gradients: float = 0.5  # weight of the error of the image's gradients
    recolour: float = 0.3  # fraction of pictures with another colour
    save_every: int = 500  # steps
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    fit: FitOptions = field(default_factory=FitOptions)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/vae``."""
    torch.manual_seed(config.fit.seed)
    model = Autoencoder(config.model)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    pictures = image_folder(config.data, config.size)
    training = Training(model, config.fit)
    run = Run(config.out, "autoencoder", config, training, config.save_every)

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        whole = batch(pictures, config.fit.batch, config.recolour, g)
        image = draw.share(whole)
        mean, log_variance = model.moments(image)
        noise = draw.share(torch.randn((len(whole), *mean.shape[1:]), generator=g))
        latent = (mean + (log_variance / 2).exp() * noise - config.model.shift) * config.model.scale
        return reconstruction_loss(model.decode(latent), image, config.gradients) + (
            config.kl * kl_divergence(mean, log_variance).mean() / image[0].numel()
        )

    yield from run.steps(loss)
    model.load_state_dict(training.averaged())
    scale = 1 / latent_deviation(model, pictures)
    finished = Autoencoder(replace(config.model, scale=config.model.scale * scale))
    finished.load_state_dict(model.state_dict())
    run.finish(autoencoder=finished)


def batch(pictures: CaptionedPictures, size: int, recolour: float, g: torch.Generator) -> Tensor:
    """Random pictures over random colours (half of them over white), some recoloured."""
    pixels = pictures.pixels[torch.randint(len(pictures), (size,), generator=g)]
    names = [TINTS[i] for i in torch.randint(len(TINTS), (size,), generator=g)]
    chosen = torch.rand(size, generator=g) < recolour
    pixels = torch.where(chosen[:, None, None, None], tint(pixels, colour(names)), pixels)
    ground = torch.rand(size, 3, generator=g)
    ground[torch.rand(size, generator=g) < 0.5] = 1.0
    return compose(pixels, ground).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(output: Tensor, image: Tensor, gradients: float) -> Tensor:
    """Mean absolute error of pixels, and of horizontal and vertical differences."""
    error = output - image
    across, down = error.diff(dim=-1), error.diff(dim=-2)
    return error.abs().mean() + gradients * (across.abs().mean() + down.abs().mean())


@torch.no_grad()
def latent_deviation(model: Autoencoder, pictures: CaptionedPictures) -> float:
    """Standard deviation of the scaled latents of all pictures over white."""
    latents = [
        model.encode(compose(part, torch.ones(len(part), 3))) for part in pictures.pixels.split(128)
    ]
    return torch.cat(latents).std().item()
