"""Four families of generative models on MNIST, with the same budget, on one page.

A GAN, a VAE, a normalising flow and diffusion are trained one after the other, each as a run of
its own in ``out/<family>``. The budget is processor time: ``steps`` of each family are chosen from
its measured rate. What they draw is judged by the digit classifier.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.config import Count, from_dict
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.diffusion.prediction import PREDICTIONS
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.diffusion.variational_bound import reconstruction, variational_bound
from darkroom.errors import DataError
from darkroom.images import sheet
from darkroom.models.digit_classifier import DigitClassifier
from darkroom.models.flow import Flow, FlowConfig
from darkroom.models.gan import GAN, GANConfig
from darkroom.models.unconditional_unet import UnconditionalUNet, UnconditionalUNetConfig
from darkroom.models.vae import VAE, VAEConfig
from darkroom.recipes import flow, gan, pixel_diffusion, vae
from darkroom.recipes import run as train_shipped
from darkroom.recipes.digit_classifier import load_classifier, read
from darkroom.recipes.flow import Config as FlowRecipe
from darkroom.recipes.gan import Config as GANRecipe
from darkroom.recipes.report import Report
from darkroom.recipes.runs import machine
from darkroom.recipes.vae import Config as VAERecipe
from darkroom.training.data import Images, idx
from darkroom.training.fit import FitOptions, FitStep
from darkroom.training.frechet import frechet_distance
from darkroom.training.saving import read_state, write_state

NAMES = {"gan": "GAN", "vae": "VAE", "flow": "flow (Glow)", "diffusion": "diffusion"}
COLUMNS = (
    "family", "parameters", "images seen", "training CPU s", "Frechet distance", "digits drawn",
    "entropy, bits", "confidence", "CPU s per 1,000", "bits/dim",
)  # fmt: skip
SENTENCES = {
    "gan": (
        "One pass draws a sharp digit, so sampling costs next to nothing.",
        "It has no likelihood, its losses do not tell how good it is, and nothing makes it draw "
        "every digit equally often.",
    ),
    "vae": (
        "It learns steadily, draws in one pass and bounds the likelihood in bits.",
        "What is shown is the decoder's mean, and what the latent does not say comes out blurred.",
    ),
    "flow": (
        "It alone states an exact density (of dequantised pixels), and the same network draws.",
        "Being invertible costs it most: the budget is spent on the exact shade of pixels rather "
        "than on the form of digits.",
    ),
    "diffusion": (
        "It is trained by plain regression, without an adversary or a posterior.",
        "A sample takes many passes of the network, which makes it the slowest to draw; it bounds "
        "the likelihood, though it is trained on another weighting of the same errors.",
    ),
}
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """The diffusion family: ``pixel_diffusion`` without classes."""

    gamma: float = 5.0  # of min-SNR weights
    steps: int = 25  # calls of the network for a sample, by dpmpp_2m
    model: UnconditionalUNetConfig = field(default_factory=UnconditionalUNetConfig)
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "compare-families"``; the families' own ``data`` and ``out`` are not read."""

    data: Path  # a folder with MNIST's four files
    out: Path  # a run for each family, ``report.html`` and ``families.json``
    classifier: Path | None = None  # a run of digit-classifier; None trains one in ``out``
    samples: Count = 1000  # drawn from each family for the judge
    likelihoods: Count = 2000  # test digits whose likelihood is measured
    gan: GANRecipe = field(default_factory=GANRecipe)
    vae: VAERecipe = field(default_factory=VAERecipe)
    flow: FlowRecipe = field(default_factory=FlowRecipe)
    diffusion: Diffusion = field(default_factory=Diffusion)

    @property
    def pixel_diffusion(self) -> pixel_diffusion.Config:
        """The recipe of the diffusion family."""
        mine = self.diffusion
        return pixel_diffusion.Config(
            data=self.data, out=self.out / "diffusion", gamma=mine.gamma, steps=mine.steps,
            samples=0, model=mine.model, fit=mine.fit,
        )  # fmt: skip


def train(config: Config) -> Iterator[FitStep]:
    """Train all four, yielding every step; at the end write ``out/report.html``."""
    for name, recipe in (("gan", gan), ("vae", vae), ("flow", flow)):
        own = replace(getattr(config, name), data=config.data, out=config.out / name)
        yield from _timed(recipe.train(own), own.out)
    yield from _timed(pixel_diffusion.train(config.pixel_diffusion), config.out / "diffusion")
    judge = config.classifier or config.out / "digit-classifier"
    if config.classifier is None:
        path = Path(__file__).with_name("digit-classifier.toml")
        yield from train_shipped(path, {"data": str(config.data), "out": str(judge)})
    compare(config, load_classifier(judge / "classifier.safetensors"))


def _timed(steps: Iterator[FitStep], folder: Path) -> Iterator[FitStep]:
    """Pass on the steps; write the processor seconds of one, by the last session, to ``folder``."""
    spent, count, started = 0.0, 0, time.process_time()
    try:
        for step in steps:
            spent, count = spent + time.process_time() - started, count + 1
            yield step
            started = time.process_time()
    finally:
        steps.close()  # pyright: ignore[reportAttributeAccessIssue]
        if count:
            _write_json(folder / "cost.json", {"seconds_per_step": spent / count})


def compare(config: Config, judge: DigitClassifier) -> None:
    """Draw from each trained family, judge what it draws, and write the page."""
    digits, held_out = idx(config.data), idx(config.data, train=False)
    _, reference = read(judge, held_out.pixels / 255)
    chosen = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    real = digits.pixels[chosen[: config.samples]]
    report = Report("Four families of generative models on MNIST", config)
    rows = [{"family": "real digits", **_judged(judge, real, reference)}]
    shown = [real]
    for name, title in NAMES.items():
        folder = config.out / name
        model = _trained(config, name)
        drawn, seconds = _drawn(config, name, model, digits, folder / "drawn.safetensors")
        fit: FitOptions = getattr(config, name).fit
        cost = foreign.read_object(folder / "cost.json", DataError)["seconds_per_step"]
        rows.append(
            {
                "family": title,
                "parameters": sum(p.numel() for p in model.parameters()),
                "images seen": fit.steps * fit.batch,
                "training CPU s": round(cost * fit.steps, 1),
                **_judged(judge, drawn, reference),
                "CPU s per 1,000": round(seconds, 2),
                "bits/dim": _likelihood(model, digits, held_out, config.likelihoods),
            }
        )
        shown.append(drawn)
    report.table(
        "Side by side", COLUMNS, [[row.get(column, "") for column in COLUMNS] for row in rows]
    )
    report.text(
        f"Frechet distance: {config.samples:,} drawn digits against the features of "
        f"{len(held_out):,} test digits; the first row is as many real training digits. Entropy of "
        "the digits that the classifier reads: log2(10) = 3.32 is all ten equally often. The flow "
        f"draws at temperature {config.flow.temperature:g}, diffusion in {config.diffusion.steps} "
        "calls; the VAE shows means."
    )
    for (name, title), drawn in zip(NAMES.items(), shown[1:], strict=True):
        report.heading(title)
        report.picture(sheet(drawn[:100] / 127.5 - 1, 20), "100 samples, not chosen")
        report.text(" ".join(SENTENCES[name]))
    columns = 20
    together = torch.cat([images[: 2 * columns] for images in shown])
    with atomic_write(config.out / "families.png") as file:
        sheet(together / 127.5 - 1, columns).convert("L").save(file, "PNG", optimize=True)
    _write_json(config.out / "families.json", {"rows": rows, **machine()})
    report.write(config.out / "report.html", (), machine())


def _trained(config: Config, name: str) -> nn.Module:
    """The finished network of a family."""
    folder = config.out / name
    if name == "gan":
        return _restored(folder / "gan.safetensors", GAN, GANConfig)
    if name == "vae":
        return _restored(folder / "vae.safetensors", VAE, VAEConfig)
    if name == "flow":
        return _restored(folder / "flow.safetensors", Flow, FlowConfig)
    return _restored(folder / "unet.safetensors", UnconditionalUNet, UnconditionalUNetConfig)


def _restored(path: Path, kind: type[M], config: type) -> M:
    tensors, plain = read_state(path)
    model = kind(from_dict(config, plain["config"], str(path)))
    model.load_state_dict(tensors)
    return model.requires_grad_(False).eval()


def _drawn(
    config: Config, name: str, model: nn.Module, digits: Images, path: Path
) -> tuple[Tensor, float]:
    """Samples (N, 1, H, W) uint8 and the processor seconds of 1,000; drawn once, then read."""
    if path.is_file():
        tensors, plain = read_state(path)
        if len(tensors["images"]) == config.samples:
            return tensors["images"], plain["seconds"]
    started = time.process_time()
    if isinstance(model, UnconditionalUNet):
        recipe, whole = config.pixel_diffusion, _assembled(model)
        seeds = list(range(1000, 1000 + config.samples))
        images = pixel_diffusion.samples(recipe, whole, digits, seeds, None) / 2 + 0.5
    else:
        g = torch.Generator().manual_seed(1)
        parts = [min(100, config.samples - i) for i in range(0, config.samples, 100)]
        if isinstance(model, Flow):
            temperature = config.flow.temperature
            images = torch.cat([model.sample(count, g, temperature) for count in parts])
        else:
            assert isinstance(model, GAN | VAE)
            images = torch.cat([model.sample(count, g) for count in parts]) / 2 + 0.5
    seconds = (time.process_time() - started) * 1000 / config.samples
    drawn = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    write_state(path, {"images": drawn}, {"seconds": seconds})
    return drawn, seconds


@torch.no_grad()
def _judged(judge: DigitClassifier, images: Tensor, reference: Tensor) -> dict[str, Any]:
    """Quality and diversity of (N, 1, H, W) uint8, as the classifier sees them."""
    digits, features = read(judge, images / 255)
    place = next(judge.parameters()).device
    share = digits.bincount(minlength=10).double() / len(digits)
    return {
        "Frechet distance": round(frechet_distance(features, reference), 2),
        "digits drawn": int((share >= 0.01).sum()),  # each at least a hundredth of all
        "entropy, bits": round(-(share * share.clamp_min(1e-12).log2()).sum().item(), 3),
        "confidence": round(judge.output(features.to(place)).softmax(1).amax(1).mean().item(), 3),
        "share of each digit": [round(value, 3) for value in share.tolist()],
    }


def _likelihood(model: nn.Module, digits: Images, held_out: Images, count: int) -> str:
    """Bits per dimension of test digits, as far as the family has them."""
    if isinstance(model, VAE):
        return f"<= {vae.bits(model, held_out, count):.3f} (bound)"
    if isinstance(model, Flow):
        return f"{flow.bits(model, held_out, count):.3f} (exact, dequantised)"
    if isinstance(model, UnconditionalUNet):
        return f"<= {diffusion_bits(_assembled(model), digits, held_out, count):.3f} (bound)"
    return "none"


@torch.no_grad()
def diffusion_bits(
    model: PixelDiffusion, digits: Images, held_out: Images, count: int, draws: int = 8
) -> float:
    """The variational bound on bits per dimension of the first ``count`` held-out images.

    The deviation of the pixels in the end is the best of a few for 200 of ``digits``.

    Args:
        draws: timesteps for each batch of 50.
    """
    place, g = next(model.unet.parameters()).device, torch.Generator().manual_seed(0)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return model.denoise(x, sigma).clamp(-1, 1)

    some = pixel_diffusion.scaled(digits.pixels[:200]).to(place)
    first = model.schedule.sigmas[0]
    seen = denoise(some + first * torch.randn(some.shape, generator=g).to(place), first)
    deviation = min(
        (0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.04, 0.1),
        key=lambda value: reconstruction(some, seen, value).mean().item(),
    )
    nats, pixels = 0.0, held_out.pixels[:count]
    for part in pixels.split(50):
        clean = pixel_diffusion.scaled(part).to(place)
        bound = variational_bound(denoise, clean, model.schedule, deviation, g, draws)
        nats += bound.sum().item()
    return nats / (pixels.numel() * math.log(2))


def _assembled(unet: UnconditionalUNet) -> PixelDiffusion:
    """The network with the schedule and the prediction of its recipe."""
    return PixelDiffusion(
        unet=unet,
        schedule=NoiseSchedule.linear(),
        prediction=PREDICTIONS["noise"](),
        sampling=pixel_diffusion.sampling("noise"),
    )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(values, indent=2).encode())
