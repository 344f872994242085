"""Train a variational autoencoder on MNIST (Kingma & Welling, arXiv:1312.6114)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config import Count, Size
from darkroom.images import sheet
from darkroom.models.vae import VAE, VAEConfig
from darkroom.recipes.runs import Run
from darkroom.training.data import Images, idx
from darkroom.training.fit import Draw, FitOptions, FitStep, Training


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "vae"``."""

    data: Path = Path("data/mnist")  # a folder with MNIST's four files
    out: Path = Path("runs/vae")  # the run: state, log, and the finished ``out/vae.safetensors``
    kl_warmup: Count = 500  # steps over which the divergence gains its full weight
    evaluate_every: Count = 500  # steps
    save_every: Size = 500  # steps
    model: VAEConfig = field(default_factory=VAEConfig)
    fit: FitOptions = field(default_factory=FitOptions)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/vae.safetensors``."""
    torch.manual_seed(config.fit.seed)
    digits, held_out = idx(config.data), idx(config.data, train=False)
    model = VAE(config.model)
    training = Training(model, config.fit)
    run = Run(config.out, "vae", config, training, config.save_every)
    run.held = digits.pixels.nbytes + held_out.pixels.nbytes

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        index = torch.randint(len(digits), (config.fit.batch,), generator=g)
        noise = draw.share(torch.randn(len(index), config.model.latent, generator=g))
        image = draw.share(digits.pixels[index]) / 127.5 - 1
        likelihood, divergence = model.bound(image, noise)
        weight = min(1.0, (draw.step + 1) / max(config.kl_warmup, 1))
        return (weight * divergence - likelihood).mean() / (image[0].numel() * math.log(2))

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(bits_per_dimension=bits(model, held_out, 1000))
        yield step
    model.load_state_dict(training.averaged())
    g = torch.Generator().manual_seed(config.fit.seed)
    drawn = sheet(model.sample(100, g), 10, pad=0)
    run.picture("samples", drawn, "100 samples, not chosen: the decoder's mean")
    run.finish(vae=model)


@torch.no_grad()
def bits(model: VAE, images: Images, count: int, draws: int = 1) -> float:
    """The bound on bits per dimension of the first ``count`` images.

    Args:
        draws: of z for each image; more than one gives the importance-weighted bound.
    """
    g = torch.Generator().manual_seed(0)
    place, total = next(model.parameters()).device, 0.0
    pixels = images.pixels[:count]
    for part in pixels.split(250):
        noise = torch.randn(draws, len(part), model.config.latent, generator=g).to(place)
        image = part.to(place) / 127.5 - 1
        if draws == 1:
            likelihood, divergence = model.bound(image, noise[0])
            total += (divergence - likelihood).sum().item()
        else:
            total -= model.importance_weighted(image, noise).sum().item()
    return total / (pixels.numel() * math.log(2))
