"""Train a KL autoencoder on a folder of pictures (Rombach et al., arXiv:2112.10752, section 3.1).

Without a perceptual loss: absolute error of the pixels and of their gradients. A patch adversarial
loss (Isola et al., arXiv:1611.07004; hinge form) can join once reconstructions are near.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.images import grid, to_pictures
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig, kl_divergence
from darkroom.models.gan import hinge_losses
from darkroom.models.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from darkroom.recipes.runs import Run
from darkroom.training.augment import TINTS, colour, compose, tint
from darkroom.training.data import Part, open_data
from darkroom.training.fit import Draw, FitOptions, FitStep, Training
from darkroom.training.metrics.quality import psnr, ssim
from darkroom.training.stream import BUFFER, Batch, held, stream

SHOWN = 8  # pictures in the report
MEASURED = 512  # pictures, at most
ENCODED = 2048  # pictures, at most, for the deviation of the latents where they are streamed


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The patch adversarial loss."""

    weight: float = 0.0  # of the generator's side; 0 = none
    first: Count = 0  # step at which it joins
    model: PatchDiscriminatorConfig = field(default_factory=PatchDiscriminatorConfig)


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "autoencoder"``."""

    data: Path  # pictures in any format that ``open_data`` knows
    out: Path  # the run: state, log, report, and the finished ``out/autoencoder.safetensors``
    stream: bool = False  # pictures stay on the disk; those in shards always do
    size: Size = 64  # pixels
    kl: float = 0.02  # weight of the divergence, in nats per pixel value
    gradients: float = 0.5  # weight of the error of the image's gradients
    recolour: float = 0.3  # fraction of pictures with another colour
    mirrored: bool = False  # half of the pictures the other way round
    held_out: float = 0.0  # fraction of pictures that are kept aside, to measure on
    evaluate_every: Count = 500  # steps
    save_every: Size = 500  # steps
    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    adversary: Adversary = field(default_factory=Adversary)
    fit: FitOptions = field(default_factory=FitOptions)


class Networks(nn.Module):
    """The autoencoder and, if there is one, its adversary."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(config.model)
        self.adversary = PatchDiscriminator(config.adversary.model)

    def adversarial(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Of the adversary and of the autoencoder; neither has a gradient in the other network."""
        return hinge_losses(self.adversary, real, made)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/autoencoder.safetensors``."""
    torch.manual_seed(config.fit.seed)
    found = open_data(config.data)
    learnt, aside = found.split(config.held_out, config.fit.seed)
    which = aside if len(aside) else learnt
    streamed = config.stream or found.sharded
    if streamed:
        pixels, (measured, _) = torch.empty(0), which.spread(MEASURED).hold(config.size, 4)
    else:
        pixels, _ = learnt.hold(config.size, 4)
        measured = aside.hold(config.size, 4)[0] if len(aside) else pixels
    networks = Networks(config)
    model, adversary = networks.autoencoder, config.adversary
    trained = networks if adversary.weight else model
    trained.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    training = Training(trained, config.fit)
    run = Run(config.out, "autoencoder", config, training, config.save_every)
    run.held = measured.nbytes + (pixels.nbytes if measured is not pixels else 0)
    batches: Iterator[Batch] = iter(())
    if streamed:
        run.streamed, run.held = learnt, run.held + held(training, config.size, 4)
        buffer = BUFFER if found.sharded else 0
        batches = stream(learnt, config.size, training, buffer=buffer, channels=4)
    else:
        run.remark(*found.remarks())

    def loss(draw: Draw) -> Tensor:
        g, size = draw.generator, config.fit.batch
        if streamed:
            mine = next(batches).pixels.contiguous()
        else:
            mine = pixels[torch.randint(len(pixels), (size,), generator=g)[draw.part :: draw.parts]]
        image = augmented(mine, config, draw).to(draw.device, non_blocking=True)
        mean, log_variance = model.moments(image)
        noise = draw.share(torch.randn((size, *mean.shape[1:]), generator=g))
        latent = (mean + (log_variance / 2).exp() * noise - config.model.shift) * config.model.scale
        output = model.decode(latent)
        total = reconstruction_loss(output, image, config.gradients) + (
            config.kl * kl_divergence(mean, log_variance).mean() / image[0].numel()
        )
        if adversary.weight and draw.step >= adversary.first:
            of_adversary, of_model = networks.adversarial(output, image)
            total = total + of_adversary + adversary.weight * of_model
        return total

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(**quality(model, measured))
        yield step
    trained.load_state_dict(training.averaged())
    encoded = pixels.split(128) if not streamed else spread(learnt, config.size)
    scale = 1 / latent_deviation(model, encoded)
    finished = Autoencoder(replace(config.model, scale=config.model.scale * scale))
    finished.load_state_dict(model.state_dict())
    report(run, finished, measured, "kept aside" if len(aside) else "trained on")
    run.finish(autoencoder=finished)


def augmented(pixels: Tensor, config: Config, draw: Draw) -> Tensor:
    """A draw's share of pictures (B, 4, H, W): some recoloured, half of them not over white."""
    g, size = draw.generator, config.fit.batch
    mine = slice(draw.part, None, draw.parts)  # all is drawn for the whole batch
    names = [TINTS[i] for i in torch.randint(len(TINTS), (size,), generator=g)[mine]]
    chosen = (torch.rand(size, generator=g) < config.recolour)[mine]
    if config.recolour:
        pixels = torch.where(chosen[:, None, None, None], tint(pixels, colour(names)), pixels)
    ground = torch.rand(size, 3, generator=g)
    ground[torch.rand(size, generator=g) < 0.5] = 1.0
    if config.mirrored:
        turned = (torch.rand(size, generator=g) < 0.5)[mine]
        pixels = torch.where(turned[:, None, None, None], pixels.flip(-1), pixels)
    return compose(pixels, ground[mine]).contiguous(memory_format=torch.channels_last)


def spread(pictures: Part, size: int) -> Iterator[Tensor]:
    """Some pictures of a set (B, 4, size, size), evenly apart, part by part."""
    some = pictures.spread(ENCODED)
    for numbers in torch.arange(len(some)).split(128):
        yield some.readable(numbers, size, channels=4)[0]


def reconstruction_loss(output: Tensor, image: Tensor, gradients: float) -> Tensor:
    """Mean absolute error of pixels, and of horizontal and vertical differences."""
    error = output - image
    across, down = error.diff(dim=-1), error.diff(dim=-2)
    return error.abs().mean() + gradients * (across.abs().mean() + down.abs().mean())


def over_white(pixels: Tensor, model: Autoencoder) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1], where the model is."""
    return compose(pixels, torch.ones(len(pixels), 3)).to(next(model.parameters()).device)


@torch.no_grad()
def quality(model: Autoencoder, pixels: Tensor) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of the reconstructions of pictures (N, 4, H, W), the first 512."""
    pairs = []
    for part in pixels[:MEASURED].split(64):
        image = over_white(part, model)
        output = model.decode(model.encode(image)).clamp(-1, 1)
        pairs.append(((image + 1) / 2, (output + 1) / 2))
    return {
        "psnr": torch.cat([psnr(a, b) for a, b in pairs]).mean().item(),
        "ssim": torch.cat([ssim(a, b) for a, b in pairs]).mean().item(),
    }


@torch.no_grad()
def report(run: Run, model: Autoencoder, pixels: Tensor, which: str) -> None:
    """Figures of the finished autoencoder, and pictures above their reconstructions."""
    model.to(run.training.options.place).eval()
    found = quality(model, pixels)
    count = min(len(pixels), MEASURED)
    run.table(
        f"Reconstruction of {count} pictures that were {which}",
        ("PSNR, dB", "SSIM"),
        [(f"{found['psnr']:.2f}", f"{found['ssim']:.4f}")],
    )
    shown = pixels[:: max(1, len(pixels) // SHOWN)][:SHOWN]
    image = over_white(shown, model)
    output = model.decode(model.encode(image))
    both = to_pictures(torch.cat((image, output)).cpu())
    run.picture("reconstructions", grid(both, len(image)), f"{which}: pictures, and what returns")


@torch.no_grad()
def latent_deviation(model: Autoencoder, parts: Iterable[Tensor]) -> float:
    """Standard deviation of the scaled latents of pictures (B, 4, H, W) over white."""
    latents = [model.encode(over_white(part, model)) for part in parts if len(part)]
    return torch.cat(latents).std().item()
