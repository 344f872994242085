"""Train a generative adversarial network on MNIST (Goodfellow et al., arXiv:1406.2661)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config import Count, Size
from darkroom.images import sheet
from darkroom.models.gan import GAN, GANConfig
from darkroom.recipes.runs import Run
from darkroom.training.data import idx
from darkroom.training.fit import Draw, FitOptions, FitStep, Group, Training


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "gan"``; ``fit.lr`` is the discriminator's rate."""

    data: Path = Path("data/mnist")  # a folder with MNIST's four files
    out: Path = Path("runs/gan")  # the run: state, log, and the finished ``out/gan.safetensors``
    generator_lr: float = 1e-3  # two rates steady the game (Heusel et al., arXiv:1706.08500)
    evaluate_every: Count = 100  # steps
    save_every: Size = 500  # steps
    model: GANConfig = field(default_factory=GANConfig)
    fit: FitOptions = field(default_factory=FitOptions)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/gan.safetensors``."""
    torch.manual_seed(config.fit.seed)
    digits = idx(config.data)
    model = GAN(config.model)
    groups = [
        Group([model.generator], config.generator_lr),
        Group([model.discriminator], config.fit.lr),
    ]
    training = Training(model, config.fit, groups)
    run = Run(config.out, "gan", config, training, config.save_every)
    run.held = digits.pixels.nbytes
    parts = {}

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        index = torch.randint(len(digits), (config.fit.batch,), generator=g)
        z = draw.share(torch.randn(len(index), config.model.latent, generator=g))
        real = draw.share(digits.pixels[index]) / 127.5 - 1
        of_discriminator, of_generator = model.losses(real, z)
        parts["discriminator_loss"] = of_discriminator.detach()
        parts["generator_score"] = -of_generator.detach()  # above 1: taken for real
        return of_discriminator + of_generator

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(**{name: value.item() for name, value in parts.items()})
        yield step
    model.load_state_dict(training.averaged())
    samples = model.eval().sample(100, torch.Generator().manual_seed(config.fit.seed))
    run.picture("samples", sheet(samples, 10, pad=0), "100 samples, not chosen")
    run.finish(gan=model)
