"""Diffusion on MNIST as "Modern Computer Vision with PyTorch", chapter 16, prints it.

Kept as printed, and done otherwise by ``pixel_diffusion``:

- the loss compares the output with the clean image in [0, 1], though the text says noise;
- ``corrupt`` never draws t = 999, at which sampling starts;
- sampling noises each estimate of the clean image anew, to the next of 100 log-spaced timesteps;
- the learning rate falls to 0 in every odd epoch and rises again in every even one;
- the class is a random code of 32 numbers, never trained, in 32 more input channels;
- digits for a class are drawn in one step, from the noise that t = 999 makes of a black image.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from darkroom.config import Count
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.diffusion.prediction import Sample
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.images import sheet
from darkroom.models.unconditional_unet import MNIST, UnconditionalUNet, UnconditionalUNetConfig
from darkroom.recipes.pixel_diffusion import noise_curve
from darkroom.recipes.runs import Run
from darkroom.training.data import Images, idx
from darkroom.training.fit import Draw, FitStep, Training, step_generator
from darkroom.weights.save import save

if TYPE_CHECKING:
    from darkroom.recipes.mnist import Config

SIZE, CODE = 32, 32  # pixels; channels that say which digit to draw


@dataclass(frozen=True, kw_only=True)
class BookConfig:
    classes: Count = 0  # 0 = any digit
    unet: UnconditionalUNetConfig = field(default_factory=lambda: MNIST)  # of any digit


class BookNetwork(nn.Module):
    """The printed network; with classes, a fixed random code of each joins the image."""

    def __init__(self, config: BookConfig) -> None:
        super().__init__()
        self.config = config
        wide = CODE if config.classes else 0
        self.unet = UnconditionalUNet(
            replace(config.unet, in_channels=config.unet.in_channels + wide)
        )
        self.code = nn.Embedding(config.classes, CODE) if config.classes else None
        if self.code is not None:
            self.code.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The clean image (B, 1, H, W) in [0, 1], from a noisy one, timesteps and digits (B,)."""
        if self.code is not None:
            code = self.code(label)[:, :, None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat((x, code), 1)
        return self.unet(x, t)


def train(config: "Config") -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model`` and the printed figures."""
    torch.manual_seed(config.fit.seed)
    digits = idx(config.data)
    labels = digits.labels
    assert labels is not None  # idx reads them
    network = replace(config.model, in_channels=1, out_channels=1, classes=0)
    classes = len(digits.classes) if config.conditional else 0
    model = BookNetwork(BookConfig(classes=classes, unet=network))
    training = Training(model, config.fit)
    run = Run(config.out, "mnist-book", config, training, config.save_every)
    run.held = digits.pixels.nbytes
    alpha_bar = alphas()

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        index = epoch_part(len(digits), config.fit.batch, draw.step, config.fit.seed)
        clean = resized(digits, index)
        t = torch.randint(0, 999, (len(index),), generator=g)
        noise = torch.randn(clean.shape, generator=g)
        noisy = add_noise(clean, noise, alpha_bar[t])
        clean, noisy, t, label = map(draw.share, (clean, noisy, t, labels[index]))
        return F.mse_loss(model(noisy, t, label if classes else None), clean)

    losses: list[float] = []
    for step in run.steps(loss):
        losses = [*losses[-29:], step.loss]
        if run.due(config.evaluate_every):
            run.note(running_loss=sum(losses) / len(losses))  # of the last 30 steps
        yield step
    model.eval()
    pixel_model = PixelDiffusion(
        unet=model.unet,
        schedule=NoiseSchedule.linear(),
        prediction=Sample(),
        sampling=SamplingConfig(sampler="ddpm", settings={"prediction_type": "sample"}),
        settings={"size": (SIZE, SIZE)},
    )
    save(pixel_model, config.out / "model")
    run.report.chart(noise_curve(pixel_model.schedule))
    g = torch.Generator().manual_seed(config.fit.seed)
    if classes:
        one_step = estimates(model, classes, [999], g)[0]
        run.picture("one-step", sheet(one_step * 2 - 1, classes), "one step from t = 999")
        times = log_timesteps(6)
        shown = torch.stack(estimates(model, classes, times, g), 1).flatten(0, 1)
        run.picture("progressive", titled(sheet(shown * 2 - 1, 6), times), "estimates at each t")
    else:
        frames = progressive(model, 5, log_timesteps(100), g)
        shown = torch.stack(frames[::10], 1).flatten(0, 1)
        run.picture("samples", sheet(shown.clamp(0, 1) * 2 - 1, 11), "every tenth of 100 steps")
    run.finish(network=model)


def epoch_part(count: int, size: int, step: int, seed: int) -> Tensor:
    """The indices of step ``step``: every epoch a new order, its last part smaller."""
    epoch, part = divmod(step, -(-count // size))
    order = torch.randperm(count, generator=step_generator(seed, -1 - epoch))
    return order[part * size : (part + 1) * size]


def resized(digits: Images, index: Tensor) -> Tensor:
    """(B, 1, 32, 32) in [0, 1]: enlarged in 8 bits by PIL's bilinear filter, as ``Resize`` does."""
    pictures = [Image.fromarray(digits.pixels[i, 0].numpy()) for i in index]
    large = [np.asarray(p.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for p in pictures]
    return torch.from_numpy(np.stack(large))[:, None].float() / 255


def alphas() -> Tensor:
    """(1000,) the share of signal variance left at each timestep."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


def add_noise(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Ho et al., arXiv:2006.11239, equation 4."""
    alpha_bar = alpha_bar.view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def log_timesteps(count: int) -> list[int]:
    """From 999 down to 1, evenly spaced in their logarithms, then cut to whole numbers."""
    return np.logspace(np.log10(999), 0.1, count).astype(int).tolist()


@torch.no_grad()
def progressive(model: nn.Module, count: int, times: list[int], g: torch.Generator) -> list[Tensor]:
    """The noise, then the image after each timestep: its estimate, noised again to that timestep.

    Returns:
        ``len(times) + 1`` tensors (count, 1, 32, 32).
    """
    alpha_bar, place = alphas(), next(model.parameters()).device
    x = torch.randn(count, 1, SIZE, SIZE, generator=g)
    frames = [x]
    for t in times:
        clean = model(x.to(place), torch.full((count,), t, device=place)).cpu()
        x = add_noise(clean, torch.randn(x.shape, generator=g), alpha_bar[t])
        frames.append(x)
    return frames


@torch.no_grad()
def estimates(model: nn.Module, classes: int, times: list[int], g: torch.Generator) -> list[Tensor]:
    """A digit of each class, estimated in one step at the first t, then noised to the next one.

    Returns:
        (classes, 1, 32, 32) for each timestep, clipped to [0, 1].
    """
    alpha_bar, place = alphas(), next(model.parameters()).device
    clean, label = torch.zeros(classes, 1, SIZE, SIZE), torch.arange(classes, device=place)
    found = []
    for t in times:
        x = add_noise(clean, torch.randn(clean.shape, generator=g), alpha_bar[t])
        clean = model(x.to(place), torch.full((classes,), t, device=place), label).cpu()
        found.append(clean.clamp(0, 1))
    return found


def titled(picture: Image.Image, times: list[int]) -> Image.Image:
    """With the timesteps over the columns."""
    page = Image.new("RGB", (picture.width, picture.height + 14), "white")
    page.paste(picture, (0, 14))
    pen, width = ImageDraw.Draw(page), picture.width / len(times)
    for i, t in enumerate(times):
        pen.text(((i + 0.5) * width, 7), str(t), "black", anchor="mm")
    return page
