"""Teach a latent-diffusion model to paint only what a mask says (Rombach et al., arXiv:2112.10752).

The U-Net's first convolution gets input channels for a mask and for the latents of the picture
with the masked part greyed out, as the public inpainting checkpoints have them. Their weights
begin at zero, so the first step is the base's own; then everything is trained further on random
masks. Some pictures get a smaller cut-out laid into them, which is what is masked and named: so
the model learns to put a thing where the mask is.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ConfigError
from darkroom.generation.generate import develop
from darkroom.generation.guidance import Guidance
from darkroom.generation.inpaint import Inpaint
from darkroom.images import grid, to_pictures
from darkroom.masks import Mask
from darkroom.models.unet import UNet
from darkroom.recipes.inpainting.masks import Masks
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
from darkroom.weights.folder import read_json
from darkroom.weights.load import load
from darkroom.weights.locate import built_in_names
from darkroom.weights.save import save, write_json


@dataclass(frozen=True, kw_only=True)
class Config(Teaching):
    """``recipe = "inpainting"``."""

    name: str = "model"
    lean: bool = False  # leave out of ``out/model`` what is a built-in base's own
    laid: float = 0.0  # fraction of pictures with a cut-out laid into them
    silent: float = 0.5  # fraction of captions that leave the background to the surroundings
    masks: Masks = field(default_factory=Masks)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model``, in half precision."""
    torch.manual_seed(config.fit.seed)
    captions = captioned(open_data(config.data))
    if config.laid and not captions.pictures.cut_outs:
        raise ConfigError(f"laid = {config.laid} needs cut-outs; {config.data} has photographs")
    if config.lean and config.base not in built_in_names():
        raise ConfigError(
            f"lean = true with base {config.base!r}: only a built-in model is where the finished "
            f"one is; one of {', '.join(built_in_names())}"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    base, size = load_base(config)
    assert isinstance(base.unet, UNet)  # load_base has looked
    unet = widened(base.unet, 1 + base.autoencoder.channels).requires_grad_(True).train()
    unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model = replace(base, unet=unet, name=config.name)
    gallery = Gallery(config, captions, size)
    training = Training(unet, config.fit)
    run = Run(config.out, "inpainting", config, training, config.save_every)
    run.streamed = captions.pictures
    run.remark(*captions.remarks)
    yield from run.steps(Loss(config, model, gallery))
    unet.load_state_dict(training.averaged())
    save(halved(model), config.out / "model")
    draw_samples(run, config, gallery)
    if config.lean:
        leave_out(config.out / "model", config.base)
    run.finish(unet=unet)


class Loss:
    """The mean square of what the network gets wrong at a random level, over the whole picture."""

    def __init__(self, config: Config, model: LatentDiffusion, gallery: Gallery) -> None:
        self.config, self.model, self.gallery = config, model, gallery

    def __call__(self, draw: Draw) -> Tensor:
        model = self.model
        images, masks, texts = self.batch(self.gallery.choose(draw, self.config.fit.batch))
        noise, t, sigma = disturbance(model, draw, self.config, self.gallery.size)
        images, masks = images.to(draw.device), masks.to(draw.device)
        clean, concat = told_apart(model, images, masks)
        cond = replace(told(model, texts, self.gallery.size), concat=concat)
        output = model.predict(clean + sigma * noise, sigma, t, cond)
        return (output - model.prediction.target(clean, noise, sigma)).square().mean()

    def batch(self, items: Sequence[Item]) -> tuple[Tensor, Tensor, list[str]]:
        """Images (B, 3, H, W) in [-1, 1], masks (B, 1, H, W) of 0 and 1, and captions."""
        config, gallery = self.config, self.gallery
        sources = [item.generator() for item in items]
        shown, pixels = gallery.read([item.shown for item in items])
        images = over_grounds(pixels, shown)
        masks, texts = [], []
        for i, (variant, g) in enumerate(zip(shown, sources, strict=True)):
            if torch.rand((), generator=g).item() < config.laid:
                images[i], mask, text = self.laid(images[i], g)
            else:
                mask = config.masks.draw(pixels[i, 3].float() / 255, g)
                text = gallery.caption(variant, g)
                known = not bool(mask.all())
                if variant.ground and known and torch.rand((), generator=g).item() < config.silent:
                    text = text.rpartition(" on a")[0]
            masks.append(mask)
            dropped = torch.rand((), generator=g).item() < config.empty
            texts.append("" if dropped else text)
        return images, torch.stack(masks)[:, None], texts

    def laid(self, image: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, str]:
        """``image`` (3, H, W) with another thing in it; the mask around that; what it is called."""
        size = self.gallery.size

        def between(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=g))

        kind = self.gallery.kinds[2] if between(0, 3) == 0 else self.gallery.kinds[0]
        kind = kind or self.gallery.kinds[0]
        (variant,), pixels = self.gallery.read([kind[between(0, len(kind) - 1)]])
        side = between(size * 3 // 8, size * 3 // 4)
        left, top = between(0, size - side), between(0, size - side)
        thing = placed(pixels[0], side, left, top)
        alpha = thing[3].float() / 255
        image = (image + 1) * (1 - alpha) + thing[:3].float() / 127.5 * alpha - 1
        room = between(0, size // 16)
        mask = torch.zeros(size, size)
        if between(0, 2):
            mask[
                max(top - room, 0) : top + side + room, max(left - room, 0) : left + side + room
            ] = 1
        else:
            grown = F.max_pool2d(alpha[None], 2 * room + 3, stride=1, padding=room + 1)
            mask = (grown[0] > 0).float()
        return image, mask, self.gallery.caption(variant, g)


def draw_samples(run: Run, config: Config, gallery: Gallery, count: int = 12) -> None:
    """Pictures, what is left of them, and what the finished model makes of that."""
    model = load(config.out / "model", dtype="float32", device=config.fit.place)
    items = gallery.choose(Draw(config.fit.seed, config.fit.steps), count)
    images, masks, texts = Loss(config, model, gallery).batch(items)
    shown: list[Image.Image] = []
    for picture, left, mask, text in zip(
        to_pictures(images), to_pictures(images * (masks < 0.5)), masks, texts, strict=True
    ):
        feature = Inpaint(picture, Mask.from_tensor(mask > 0.5))
        scale = model.guidance if text else 1.0
        (made,) = develop(model, text, Guidance(scale), feature, seeds=[0])
        shown += [picture, left, made.image]
    run.picture("samples", grid(shown, 12), "; ".join(text or "(no words)" for text in texts))


def leave_out(folder: Path, base: str) -> None:
    """Have a saved model take from the built-in ``base`` what training has left as it was."""
    path, parts = folder / "model_index.json", ["text_encoder", "tokenizer", "vae"]
    index = read_json(path)
    index["_darkroom"] = {**index["_darkroom"], "parts_of": {base: parts}}
    write_json(path, index)
    for part in parts:
        shutil.rmtree(folder / part)


@torch.no_grad()
def told_apart(model: LatentDiffusion, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Clean latents, and what the network is told of them: mask and latents of what is known.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        masks: (B, 1, H, W) of 0 and 1.

    Returns:
        (B, C, h, w), and (B, 1 + C, h, w): the mask, nearest, before the masked latents.
    """
    both = model.autoencoder.encode(torch.cat((images, images * (masks < 0.5))))
    clean, known = both.chunk(2)
    return clean, torch.cat((F.interpolate(masks, clean.shape[2:]), known), dim=1)


def widened(unet: UNet, extra: int) -> UNet:
    """A copy with ``extra`` more input channels, which change nothing until they are trained."""
    config = replace(unet.config, in_channels=unet.config.in_channels + extra)
    state = unet.state_dict()
    weight = state["input.weight"]
    state["input.weight"] = torch.cat((weight, weight.new_zeros(len(weight), extra, 3, 3)), dim=1)
    wide = UNet(config).to(weight)
    wide.load_state_dict(state)
    return wide


def halved(model: LatentDiffusion) -> LatentDiffusion:
    """In half precision, for good: what is learned has no more digits than that."""
    for part in (model.unet, model.autoencoder, model.text_encoder):
        assert isinstance(part, nn.Module)
        part.half().eval()
    return model
