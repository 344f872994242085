"""What recipes that teach a finished latent-diffusion model share: its pictures and its levels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.acceleration import accelerate, for_training
from darkroom.config import Count, Size
from darkroom.diffusion.conditioning import Conditioning
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ConfigError
from darkroom.models.unet import UNet
from darkroom.recipes.latent_diffusion import Mixture
from darkroom.training.captions import Variant, caption, recoloured, variants
from darkroom.training.data import Captioned
from darkroom.training.fit import Draw, FitOptions
from darkroom.weights.load import load


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """What is taught to which model: the fields that such recipes have in common."""

    data: Path  # pictures with captions or classes in any format that ``open_data`` knows
    base: str  # the model to begin with: a name or a path, as ``load`` takes it
    out: Path  # the run: state, log, and what was trained in ``out/model``
    size: Size = 0  # pixels; 0 = the base's own
    noun: str = ""  # what all the pictures are, for captions such as "cat face emoji"
    empty: float = 0.1  # fraction of captions dropped
    emphasis: float = 1.0  # t = T u^emphasis for uniform u: below 1, more of high noise
    tints: int = 0  # recoloured variants of each picture; needs cut-outs, as the next two do
    grounds: Count = 0  # variants over a colour
    both: Count = 0
    mirrored: bool = False  # every picture the other way round, too
    mixture: Mixture = field(default_factory=Mixture)
    prompts: tuple[str, ...] = ()  # drawn for the report; none = some of the captions
    save_every: Size = 500  # steps
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True)
class Item:
    """One picture of a batch: all that is random in it comes from its own generator."""

    shown: Variant
    seed: int

    def generator(self) -> torch.Generator:
        """The same each time."""
        return torch.Generator().manual_seed(self.seed)


class Gallery:
    """Captioned pictures in their variants, read from the disk when a step asks for them."""

    def __init__(self, config: Teaching, captions: Captioned, size: int) -> None:
        self.rows, self.pictures = captions.rows, captions.pictures
        self.noun, self.size = config.noun, size
        self.kinds = variants(
            self.rows, config.tints, config.grounds, config.both, config.fit.seed, config.mirrored
        )
        mixture = config.mixture
        self.shares = torch.tensor(
            [mixture.plain, mixture.rare, mixture.tinted, mixture.grounds, mixture.both]
        )
        self.shares *= torch.tensor([bool(kind) for kind in self.kinds])

    def choose(self, draw: Draw, count: int) -> list[Item]:
        """The share of ``draw`` of a batch of ``count``."""
        g, items = draw.generator, list[Item]()
        for kind in torch.multinomial(self.shares, count, replacement=True, generator=g).tolist():
            i, seed = torch.randint(2**62, (2,), generator=g).tolist()
            items.append(Item(self.kinds[kind][i % len(self.kinds[kind])], seed))
        return items[draw.part :: draw.parts]

    def read(self, shown: Sequence[Variant]) -> tuple[list[Variant], Tensor]:
        """What is shown, and its pixels (B, 4, size, size) uint8: RGBA, recoloured.

        In place of a picture that cannot be read comes the next one that can.
        """
        numbers = [variant.picture for variant in shown]
        pixels, found = self.pictures.readable_or_next(numbers, self.size, channels=4)
        shown = [
            replace(variant, picture=number)
            for variant, number in zip(shown, found.tolist(), strict=True)
        ]
        return shown, recoloured(pixels.contiguous(), shown)

    def caption(self, shown: Variant, g: torch.Generator) -> str:
        """One way of saying what is shown."""
        return caption(self.rows[shown.picture], shown, g, self.noun)

    def names(self, count: int) -> list[str]:
        """Some of the captions, evenly apart."""
        names = list(dict.fromkeys(row["text"] for row in self.rows))
        return names[:: max(1, len(names) // count)][:count]


def placed(pixels: Tensor, side: int, left: int, top: int) -> Tensor:
    """A cut-out made smaller (or larger), on a transparent canvas of its old size.

    Args:
        pixels: (4, H, H) uint8 RGBA.
        side: its new side, in pixels.
        left: column of its new corner, may be negative.
        top: likewise its row.

    Returns:
        (4, H, H) uint8 RGBA.
    """
    values = pixels.float() / 255
    alpha = values[3:]
    small = torch.cat((values[:3] * alpha, alpha))[None]
    small = F.interpolate(small, (side, side), mode="bilinear", antialias=True)[0].clamp(0, 1)
    rest = pixels.shape[-1] - side
    canvas = F.pad(small, (left, rest - left, top, rest - top))  # negative widths cut
    colours = canvas[:3] / canvas[3:].clamp_min(1e-6)
    return (torch.cat((colours.clamp_max(1), canvas[3:])) * 255).round().to(torch.uint8)


def load_base(config: Teaching) -> tuple[LatentDiffusion, int]:
    """The model to begin with, in float32 and frozen, and the size of the pictures in pixels.

    Raises:
        ConfigError: it is no text-to-image model, or the size does not fit it.
    """
    model = load(config.base, dtype="float32", device=config.fit.place)
    if not isinstance(model, LatentDiffusion) or not isinstance(model.unet, UNet):
        raise ConfigError(
            f"base {config.base!r} is a {type(model).__name__}: expected a latent-diffusion model, "
            "such as emoji"
        )
    taken, channels = model.unet.config.in_channels, model.autoencoder.channels
    if taken != channels:
        raise ConfigError(
            f"base {config.base!r} takes {taken} input channels, its latents have {channels}: "
            "expected a plain text-to-image model"
        )
    size = config.size or min(model.settings.get("size", (512, 512)))
    if size % model.autoencoder.factor:
        raise ConfigError(f"size {size}: expected a multiple of {model.autoencoder.factor}")
    if config.fit.place.type == "cpu":
        for part in (model.autoencoder, model.text_encoder):
            if isinstance(part, nn.Module):
                accelerate(part, for_training())
    return model, size


@torch.no_grad()
def told(model: LatentDiffusion, texts: Sequence[str], size: int) -> Conditioning:
    """What the network is told of captions; of a long one, the first chunk."""
    encode = model.text_encoder
    length = encode([""], (size, size)).text.shape[1]
    cond = encode(texts, (size, size))
    return replace(cond, text=cond.text[:, :length])


def disturbance(
    model: LatentDiffusion, draw: Draw, config: Teaching, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The share of ``draw`` of the noise (B, C, h, w), timesteps (B,) and levels (B, 1, 1, 1).

    The timesteps are stratified: one from each of B equal parts of the schedule.
    """
    g, count, sigmas = draw.generator, config.fit.batch, torch.tensor(model.schedule.sigmas)
    side = size // model.autoencoder.factor
    noise = torch.randn((count, model.autoencoder.channels, side, side), generator=g)
    u = (torch.randperm(count, generator=g) + torch.rand(count, generator=g)) / count
    t = (u**config.emphasis * len(sigmas)).long().clamp_max(len(sigmas) - 1)
    return draw.share(noise), draw.share(t), draw.share(sigmas[t][:, None, None, None])
