"""Train a ControlNet on edges for a finished model (Zhang et al., arXiv:2302.05543, section 3).

The model itself is frozen. A copy of its U-Net's way down learns to see the edges of the picture
that is to come; what it adds goes through convolutions that begin at zero, so the first step is the
model's own. Captions are dropped more often than usual, that the edges alone must do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ConfigError
from darkroom.generation.control import Control
from darkroom.generation.generate import develop
from darkroom.generation.guidance import Guidance
from darkroom.images import grid, to_pictures
from darkroom.models.control.controlnet import ControlNet
from darkroom.models.unet import UNet
from darkroom.recipes.running.showing import (
    Gallery,
    Item,
    Teaching,
    disturbance,
    load_base,
    placed,
    told,
)
from darkroom.recipes.runs import Run
from darkroom.training.captions import over_grounds
from darkroom.training.data import captioned, open_data
from darkroom.training.fit import Draw, FitStep, Training
from darkroom.vision.annotators.canny import edges
from darkroom.weights.load import load
from darkroom.weights.save import save


@dataclass(frozen=True, kw_only=True)
class Config(Teaching):
    """``recipe = "controlnet"``."""

    moved: float = 0.0  # fraction of cut-outs made smaller and put elsewhere
    smallest: float = 0.6  # of those, as a fraction of the picture
    # Canny's thresholds: of each picture, drawn between two
    low: tuple[float, float] = (10.0, 100.0)
    high: tuple[float, float] = (100.0, 300.0)

    def __post_init__(self) -> None:
        if not 0 <= self.low[0] <= self.low[1] <= self.high[0] <= self.high[1]:
            raise ConfigError("low and high must rise: 0 <= low[0] <= low[1] <= high[0] <= high[1]")
        if not 0 <= self.moved <= 1 or not 0 < self.smallest <= 1:
            raise ConfigError("moved must be in [0, 1], smallest in (0, 1]")


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model``, in half precision."""
    torch.manual_seed(config.fit.seed)
    captions = captioned(open_data(config.data))
    if config.moved and not captions.pictures.cut_outs:
        raise ConfigError(f"moved = {config.moved} needs cut-outs; {config.data} has photographs")
    config.out.mkdir(parents=True, exist_ok=True)
    base, size = load_base(config)
    assert isinstance(base.unet, UNet)  # load_base has looked
    net = ControlNet.from_unet(base.unet, base.autoencoder.factor).requires_grad_(True).train()
    for network in (net, base.unet):
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    gallery = Gallery(config, captions, size)
    training = Training(net, config.fit)
    run = Run(config.out, "controlnet", config, training, config.save_every)
    run.streamed = captions.pictures
    run.remark(*captions.remarks)
    yield from run.steps(Loss(config, base, net, gallery))
    net.load_state_dict(training.averaged())
    save(net.half().eval(), config.out / "model")
    draw_samples(run, config, gallery)
    run.finish(controlnet=net)


class Loss:
    """The mean square of what the frozen network, so controlled, gets wrong at a random level."""

    def __init__(
        self, config: Config, model: LatentDiffusion, net: ControlNet, gallery: Gallery
    ) -> None:
        self.config, self.model, self.net, self.gallery = config, model, net, gallery

    def __call__(self, draw: Draw) -> Tensor:
        model = self.model
        images, hints, texts = self.batch(self.gallery.choose(draw, self.config.fit.batch))
        noise, t, sigma = disturbance(model, draw, self.config, self.gallery.size)
        with torch.no_grad():
            clean = model.autoencoder.encode(images.to(draw.device))
        cond = told(model, texts, self.gallery.size)
        x = clean + sigma * noise
        seen = model.prediction.network_input(x, sigma)
        residuals = self.net(seen, t, cond.text, hints.to(draw.device), cond.vector)
        output = model.predict(x, sigma, t, cond.adding(residuals))
        return (output - model.prediction.target(clean, noise, sigma)).square().mean()

    def batch(self, items: Sequence[Item]) -> tuple[Tensor, Tensor, list[str]]:
        """Images (B, 3, H, W) in [-1, 1], their edges (B, 3, H, W) of 0 and 1, and captions."""
        config, size = self.config, self.gallery.size
        sources = [item.generator() for item in items]
        shown, pixels = self.gallery.read([item.shown for item in items])
        texts, thresholds = [], []
        for i, (variant, g) in enumerate(zip(shown, sources, strict=True)):
            moved, dropped, low, high, *place = torch.rand(7, generator=g).tolist()
            if moved < config.moved:
                side = round(size * (config.smallest + (1 - config.smallest) * place[0]))
                left, top = (round((size - side) * share) for share in place[1:])
                pixels[i] = placed(pixels[i], side, left, top)
            thresholds.append(
                [a + (b - a) * u for (a, b), u in ((config.low, low), (config.high, high))]
            )
            texts.append("" if dropped < config.empty else self.gallery.caption(variant, g))
        images = over_grounds(pixels, shown)
        return images, edges_of(images, thresholds), texts


def draw_samples(run: Run, config: Config, gallery: Gallery, count: int = 12) -> None:
    """Pictures, their edges, and what the base makes of those."""
    model, size = load_base(config)
    net = load(config.out / "model", dtype="float32", device=config.fit.place)
    items = gallery.choose(Draw(config.fit.seed, config.fit.steps), count)
    images, hints, texts = Loss(config, model, net, gallery).batch(items)
    shown: list[Image.Image] = []
    for picture, hint, text in zip(
        to_pictures(images), to_pictures(hints * 2 - 1), texts, strict=True
    ):
        scale = model.guidance if text else 1.0
        features = Guidance(scale), Control(net, hint)
        (made,) = develop(model, text, *features, seeds=[0], size=(size, size))
        shown += [picture, hint, made.image]
    run.picture("samples", grid(shown, 12), "; ".join(text or "(no words)" for text in texts))


def edges_of(images: Tensor, thresholds: Sequence[Sequence[float]]) -> Tensor:
    """White edges on black (B, 3, H, W), 0 or 1, of images in [-1, 1]; each has its thresholds."""
    pixels = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = [edges(p, low, high) for p, (low, high) in zip(pixels, thresholds, strict=True)]
    return torch.from_numpy(np.stack(found)).float()[:, None].repeat(1, 3, 1, 1)
