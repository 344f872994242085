"""Inpainting: what lies under a mask is painted anew, the rest of the picture stays."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from darkroom.arguments import switch, whole, wholes
from darkroom.diffusion.conditioning import Conditioning
from darkroom.diffusion.levels import Levels
from darkroom.errors import ArgumentError, ConfigError
from darkroom.generation.decode import encode
from darkroom.generation.feature import Denoiser, Feature, Layer, Run
from darkroom.generation.image import posterior_noise, posterior_of, strength_of
from darkroom.generation.inpaint.canvas import Box, around, pad_canvas, pasted, widened
from darkroom.generation.metadata import Params, UsedInpaint, UsedSelection
from darkroom.images import ImageLike, held, open_image, peek, to_tensor
from darkroom.masks import Mask, open_mask


class Inpaint(Feature):
    """Paint a part of a picture anew, with any checkpoint.

    An inpainting checkpoint (section 3.4 of arXiv:2112.10752; 9 input channels for Stable
    Diffusion) is told the mask and the rest of the picture. With any other, the rest is held: at
    every level it is the picture's own latents with the run's own first noise (the "known region"
    of RePaint, arXiv:2201.09865, without its resampling). Either way the result equals diffusers'.

    The run has the size of the picture, or about the model's own size where that is far off; what
    is painted is resized and put into the picture. Outside of the mask the picture stays as it
    was, bit for bit, unless ``harmonise`` is set.

    Args:
        image: a picture, as ``open_image`` takes it. Transparency lies on white.
        mask: of the picture's size, as ``open_mask`` takes it. White, or 1, is painted anew; of a
            mask with transparency, what is opaque. None: where ``image`` is transparent.
        strength: fraction of the steps to take; 1 starts from noise alone, less keeps something of
            what was under the mask. To be left out beside ``ImageToImage``, which says it then.
        only_masked: draw the mask's surroundings alone, at the run's full size. Hints and starts of
            other features must then show that part, too.
        padding: how many pixels around the mask that shows; they say what the rest looks like.
        harmonise: keep what the network made of the rest, too.
        feather: over how many pixels the two fade into each other: inside of the mask; with
            ``harmonise`` outside of it, 0 is then the network's picture everywhere.
        extend: how many pixels to add (left, top, right, bottom); they are painted too.
        posterior: "sample" encodes with noise, as diffusers does; "mode" without.
        noise: (B, C, h, w) unit noise to encode the picture; None draws it from each seed.
        masked_noise: the same for the picture without what is masked.
        selected: how the mask was found, if by words; it goes into the picture's metadata.

    Attributes:
        canvas: the picture after ``extend``, RGB.
        mask: of the same size, perhaps soft. Above one half is painted; soft values mix.
        image_sha256, mask_sha256: of the pixels that were given.

    Raises:
        ConfigError: for a mask of another size or without anything to paint, or a value out of
            range.
        ImageError: when a picture cannot be read.
    """

    layer = Layer.SAMPLE

    def __init__(
        self,
        image: ImageLike,
        mask: Mask | ImageLike | None = None,
        strength: float = 1.0,
        *,
        only_masked: bool = False,
        padding: int = 32,
        harmonise: bool = False,
        feather: int = 0,
        extend: tuple[int, int, int, int] = (0, 0, 0, 0),
        posterior: Literal["sample", "mode"] = "sample",
        noise: Tensor | None = None,
        masked_noise: Tensor | None = None,
        selected: UsedSelection | None = None,
    ) -> None:
        strength, posterior = strength_of(strength), posterior_of(posterior)
        padding = whole("padding", padding, "0 pixels or more")
        feather = whole("feather", feather, "0 pixels or more")
        only_masked = switch("only_masked", only_masked)
        harmonise = switch("harmonise", harmonise)
        sides = "four numbers of pixels: left, top, right, bottom"
        left, top, right, bottom = extend = _four(wholes("extend", extend, sides), sides)
        image, mask = held(image), held(mask)
        picture, given = open_image(image), _mask(image, mask)
        if given is not None and (given.width, given.height) != picture.size:
            raise ConfigError(
                f"mask of {given.width}x{given.height}, the picture is "
                f"{picture.width}x{picture.height}: give a mask of the picture's size"
            )
        if given is None and not any(extend):
            raise ConfigError("no mask: give one, or a picture with transparent parts")
        given = given or Mask(np.zeros((picture.height, picture.width), bool))
        self.image_sha256 = _digest(np.asarray(picture))
        self.mask_sha256 = _digest(given.values)
        self.canvas, new = pad_canvas(picture, *extend)
        values = given.values.astype(np.float32) if given.soft else given.values
        self.mask = Mask(np.pad(values, ((top, bottom), (left, right)))) | new
        if not self.mask.binary().area:
            raise ConfigError(
                "the mask is empty: nothing to paint; white (or 1, or opaque) is what changes"
            )
        self.strength, self.posterior = strength, posterior
        self.only_masked, self.padding, self.extend = only_masked, padding, extend
        self.harmonise, self.feather = harmonise, feather
        self.noise, self.masked_noise = noise, masked_noise
        self.selected = selected

    @property
    def starts(self) -> bool:
        return self.strength < 1

    def natural_size(self, factor: int, own: tuple[int, int]) -> tuple[int, int]:
        """The picture's own size if the model can be expected to draw that; else about ``own``."""
        if self.only_masked:
            return own
        width, height = self.canvas.size
        scale = math.sqrt(own[0] * own[1] / (width * height))
        if 0.7 < scale < 1.42:  # an area between half and twice the model's
            scale = 1.0
        sides = (max(round(side * scale / factor), 1) * factor for side in (height, width))
        height, width = sides
        return height, width

    def prepare(self, run: Run) -> Run:
        if run.mask is not None:
            raise ConfigError("two Inpaint features: join their masks with | and give one")
        picture, mask = self._seen(run.size)
        pixels = to_tensor(picture)
        small, widened = _latent_mask(mask, run.model.autoencoder.factor)
        small = small.to(run.initial)
        notes, redone = list(run.notes), False
        if widened:
            notes.append("the mask is thinner than a latent pixel; whole ones were painted")
        informed, known = takes_mask(run), None
        if informed:
            masked, redone = self._encoded(run, pixels * (mask < 0.5), "masked", self.masked_noise)
            concat = torch.cat((small.expand(len(masked), -1, -1, -1), masked), dim=1)
            run = replace(run, concat=concat)
        if not informed or self.starts:
            known, again = self._encoded(run, pixels, "posterior", self.noise)
            redone = redone or again
        if self.starts:
            run = replace(run, clean=known, levels=_shortened(run.levels, self.strength))
        if redone:
            notes.append("image encoded in float32")
        return replace(run, mask=small, known=None if informed else known, notes=tuple(notes))

    def wrap(self, denoise: Denoiser, run: Run) -> Denoiser:
        known, mask = run.known, run.mask
        if known is None or mask is None:
            return denoise
        # the first sample is noise alone, as diffusers has it
        alone = (run.whole or run.levels).sigmas[0] if run.clean is None else None

        def held(x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
            if sigma != alone:
                x = mask * x + (1 - mask) * (known + sigma * run.initial)
            return mask * denoise(x, sigma, cond) + (1 - mask) * known

        return held

    def end(self, x: Tensor, run: Run) -> Tensor:
        if run.known is None or run.mask is None:
            return x
        return run.mask * x + (1 - run.mask) * run.known

    def finish(self, picture: Image.Image, run: Run, index: int) -> Image.Image:
        return pasted(self.canvas, picture, self._box(run.size), self._weights())

    def describe(self) -> Mapping[str, Any]:
        used = UsedInpaint(
            image=self.image_sha256,
            mask=self.mask_sha256,
            strength=self.strength,
            only_masked=self.only_masked,
            padding=self.padding,
            harmonise=self.harmonise,
            feather=self.feather,
            extend=self.extend,
            posterior=self.posterior,
            selected=self.selected,
        )
        return {"inpaint": used}

    def _box(self, size: tuple[int, int]) -> Box:
        """The part of the canvas that a run of (height, width) shows."""
        canvas = (self.canvas.height, self.canvas.width)
        box = self.mask.box
        if not self.only_masked or box is None:
            return (0, 0, canvas[1], canvas[0])
        return widened(around(box, self.padding, canvas), size, canvas)

    def _seen(self, size: tuple[int, int]) -> tuple[Image.Image, Tensor]:
        """What the network sees of the picture, and (1, 1, H, W) of 0 and 1, at the run's size."""
        wanted, box = (size[1], size[0]), self._box(size)
        picture, mask = self.canvas.crop(box), self.mask.image().crop(box)
        if picture.size != wanted:
            picture = picture.resize(wanted, Image.Resampling.LANCZOS)
            mask = mask.resize(wanted, Image.Resampling.LANCZOS)
        inside = torch.from_numpy(np.asarray(mask) > 127)
        return picture, inside[None, None].float()

    def _weights(self) -> np.ndarray:
        """(H, W) in [0, 1], of the canvas: how much of it is the painted picture."""
        if self.harmonise and not self.feather:
            return np.ones(self.mask.values.shape, np.float32)
        return self.mask.feather(self.feather, outwards=self.harmonise).values

    def _encoded(
        self, run: Run, pixels: Tensor, purpose: str, noise: Tensor | None
    ) -> tuple[Tensor, bool]:
        """(B, C, h, w) latents, and whether float32 was needed."""
        if self.posterior == "mode":
            noise = None
        elif noise is None:
            noise = posterior_noise(run.seeds, tuple(run.initial.shape[1:]), purpose)
        latents, redone = encode(run.model, pixels, noise)
        return latents.expand_as(run.initial), redone


def takes_mask(run: Run) -> bool:
    """Whether the run's network is an inpainting one: it is told the mask and the masked image."""
    channels = getattr(getattr(run.model.unet, "config", None), "in_channels", None)
    return channels == 2 * run.initial.shape[1] + 1


def _shortened(levels: Levels, strength: float) -> Levels:
    try:
        return levels.strength(strength)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _mask(image: ImageLike, mask: Mask | ImageLike | None) -> Mask | None:
    """The mask that was given, or the transparent part of the picture; None if there is none."""
    if mask is not None:
        return open_mask(mask)
    picture = peek(image)
    if not picture.has_transparency_data:
        return None
    alpha = ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (255, 255) else ~Mask.from_image(alpha)


def _latent_mask(mask: Tensor, factor: int) -> tuple[Tensor, bool]:
    """(1, 1, h, w), and whether it had to be widened.

    A latent pixel is painted if its upper left picture pixel is: so the public checkpoints were
    trained, and so diffusers does it. Where that leaves nothing, any of its pixels counts.
    """
    small = mask[..., ::factor, ::factor]
    if small.any():
        return small, False
    return F.max_pool2d(mask, factor), True


def _four(values: tuple[int, ...], expected: str) -> tuple[int, int, int, int]:
    if len(values) != 4:
        raise ArgumentError(f"extend {values}: expected {expected}")
    return values[0], values[1], values[2], values[3]


def _digest(values: np.ndarray) -> str:
    head = f"{values.shape} {values.dtype} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(values).tobytes()).hexdigest()


def made(used: UsedInpaint, image: ImageLike, mask: Mask | ImageLike | None) -> Inpaint:
    """The feature that metadata describes, of these pictures."""
    return Inpaint(
        image,
        mask,
        used.strength,
        only_masked=used.only_masked,
        padding=used.padding,
        harmonise=used.harmonise,
        feather=used.feather,
        extend=used.extend,
        posterior="mode" if used.posterior == "mode" else "sample",
        selected=used.selected,
    )


def again(
    params: Params,
    image: ImageLike | None,
    mask: Mask | ImageLike | None,
    *,
    exact: bool = True,
) -> list[Feature]:
    """The inpainting of a picture, from the pictures that its metadata does not hold.

    Raises:
        ConfigError: they are missing, are others (if ``exact``), or are not needed.
    """
    used = params.inpaint
    if used is None:
        if image is None and mask is None:
            return []
        raise ConfigError("the picture was not inpainted: leave out what was edited, and its mask")
    if image is None:
        raise ConfigError(
            "the picture is another one with a part painted anew: give that one, and its mask"
        )
    feature = made(used, image, mask)
    found = {"picture": feature.image_sha256, "mask": feature.mask_sha256}
    given = {"picture": used.image, "mask": used.mask}
    for name, wanted in given.items():
        if exact and wanted and found[name] != wanted:
            raise ConfigError(
                f"the {name} is not the one that was edited with; pass exact=False to use it all "
                "the same"
            )
    return [feature]
