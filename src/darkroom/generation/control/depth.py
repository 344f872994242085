"""Drawing with the depths of a photograph: checkpoints that are told a depth map."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom import arrays
from darkroom.errors import ArgumentError, ConfigError, ModelMismatchError
from darkroom.generation.feature import Feature, Run
from darkroom.generation.image import ImageToImage, fitted, posterior_of, strength_of
from darkroom.generation.metadata import Params, UsedDepth
from darkroom.images import ImageLike, open_depth, open_image, to_tensor
from darkroom.models.dpt.view import told

DepthLike = ImageLike


class DepthGuide(Feature):
    """Keep the depths of a photograph, or of a depth map, in what is drawn.

    For checkpoints with one input channel more than latents, such as Stable Diffusion 2 depth: the
    map, at the latents' resolution (bicubic) and from -1, far, to 1, near. The result equals that
    of diffusers' StableDiffusionDepth2ImgPipeline.

    Args:
        photo: a picture, as ``open_image`` takes it. It is resized and cropped around its centre to
            the run's size. None: the map alone guides.
        depth: the map: numbers (H, W), larger is nearer, in any unit, or a grey picture of 8 or 16
            bits, brighter is nearer. It needs the photograph's aspect. None: the checkpoint's own
            depth network tells it from the photograph.
        strength: the run starts from the noised photograph and takes this fraction of the steps.
            None: it starts from noise, or from what another feature says.
        posterior, noise: as ``ImageToImage`` has them.

    Raises:
        ConfigError: neither photograph nor map, a map of another aspect or without any difference
            in depth, or a value out of range.
        ImageError: a picture cannot be read, or the map is in colour.
    """

    def __init__(
        self,
        photo: ImageLike | None,
        depth: DepthLike | None = None,
        strength: float | None = 0.7,
        *,
        posterior: Literal["sample", "mode"] = "sample",
        noise: Tensor | None = None,
    ) -> None:
        if photo is None and depth is None:
            raise ConfigError("no photo and no depth map: give one of them")
        if strength is not None:
            strength = strength_of(strength)
        posterior = posterior_of(posterior)
        self.photo = None if photo is None else open_image(photo)
        self.depth = None if depth is None else _numbers(depth)
        if self.photo is not None and self.depth is not None:
            _check_aspect(self.depth, self.photo)
        self.start = None
        if self.photo is not None and strength is not None:
            self.start = ImageToImage(self.photo, strength, posterior=posterior, noise=noise)
        self.posterior = posterior
        self.sha256 = ""  # of the photograph's pixels; known after ``prepare``

    @property
    def starts(self) -> bool:
        return self.start is not None

    def natural_size(self, factor: int, own: tuple[int, int]) -> tuple[int, int]:
        """The photograph's size, rounded down; of a map alone its aspect at about ``own``."""
        if self.photo is not None:
            width, height = self.photo.size
            return max(height // factor, 1) * factor, max(width // factor, 1) * factor
        assert self.depth is not None
        rows, columns = self.depth.shape
        scale = math.sqrt(own[0] * own[1] / (rows * columns))
        height, width = (max(round(side * scale / factor), 1) * factor for side in (rows, columns))
        return height, width

    def prepare(self, run: Run) -> Run:
        _check_model(run)
        photo = None if self.photo is None else fitted(self.photo, run.size)
        if photo is not None:
            self.sha256 = hashlib.sha256(to_tensor(photo).numpy().tobytes()).hexdigest()
        if self.depth is not None:
            depth = torch.from_numpy(_cropped(self.depth, run.size))
        elif photo is not None and run.model.depth is not None:
            depth = told(run.model.depth, photo)
        else:
            raise ModelMismatchError(
                f"{run.model.name or 'the model'} has no depth network: give a depth map too, "
                "such as what estimate_depth makes with load('Intel/dpt-hybrid-midas')"
            )
        if self.start is not None:
            run = self.start.prepare(run)
        concat = scaled(depth, (run.initial.shape[2], run.initial.shape[3])).to(run.initial)
        return replace(run, concat=concat.expand(len(run.seeds), -1, -1, -1))

    def describe(self) -> Mapping[str, Any]:
        used = UsedDepth(
            photo=self.sha256,
            map="" if self.depth is None else _digest(self.depth),
            strength=None if self.start is None else self.start.strength,
            posterior=self.posterior,
        )
        return {"depth": used}


def scaled(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) of any unit to (1, 1, *size), bicubic, from -1 to 1.

    Raises:
        ConfigError: there is no difference in depth, or a number is not finite.
    """
    small = F.interpolate(depth[None, None].float(), size=size, mode="bicubic")
    least, most = small.amin(), small.amax()
    if not torch.isfinite(small).all() or least == most:
        raise ConfigError(
            "the depth map is the same everywhere or not finite: it needs near and far parts"
        )
    return 2 * (small - least) / (most - least) - 1


def again(
    params: Params, photo: ImageLike | None, depth: DepthLike | None, *, exact: bool = True
) -> list[Feature]:
    """The depth guide of a picture, from the pictures that its metadata does not hold.

    Raises:
        ConfigError: they are missing, are others (if ``exact``), or are not needed.
    """
    used = params.depth
    if used is None:
        if photo is None and depth is None:
            return []
        raise ConfigError("the picture was not drawn by depth: leave out the photo and the map")
    for name, wanted, given in (("photo", used.photo, photo), ("depth map", used.map, depth)):
        if wanted and given is None:
            raise ConfigError(f"the picture was drawn with a {name}: give that too")
        if given is not None and not wanted:
            raise ConfigError(f"the picture was drawn without a {name}: leave it out")
    posterior = "mode" if used.posterior == "mode" else "sample"
    feature = DepthGuide(photo, depth, used.strength, posterior=posterior)
    found = {"photo": used.photo, "depth map": used.map}
    if feature.photo is not None:
        pixels = to_tensor(fitted(feature.photo, params.size))
        found["photo"] = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
    if feature.depth is not None:
        found["depth map"] = _digest(feature.depth)
    for name, wanted in (("photo", used.photo), ("depth map", used.map)):
        if exact and found[name] != wanted:
            raise ConfigError(
                f"the {name} is not the one that the picture was drawn with; pass exact=False to "
                "use it all the same"
            )
    return [feature]


def _check_model(run: Run) -> None:
    latents = run.initial.shape[1]
    taken = getattr(getattr(run.model.unet, "config", None), "in_channels", latents + 1)
    name = run.model.name or "the model"
    if taken == 2 * latents + 1:
        raise ModelMismatchError(
            f"{name} is an inpainting checkpoint: its network is told a mask, not depth; use a "
            "depth checkpoint, with Inpaint too if you like"
        )
    if taken != latents + 1:
        raise ModelMismatchError(
            f"{name} is told no depth: its network takes {taken} input channels, a depth "
            f"checkpoint's {latents + 1}; use a depth ControlNet, Control(net, hint)"
        )
    if run.concat is not None:
        raise ConfigError("two DepthGuide features: give at most one")


def _numbers(depth: DepthLike) -> np.ndarray:
    """(H, W) float32."""
    if not arrays.is_array(depth) or isinstance(depth, arrays.Drawable):
        return open_depth(depth)
    values = arrays.numbers("the depth map", depth)
    if values.dtype.kind == "b":
        raise ArgumentError("the depth map: an array of bool is a mask; expected numbers")
    if not np.isfinite(values).all():
        raise ArgumentError("the depth map: an array with NaN or infinity in it")
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 2:
        raise ArgumentError(f"depth map of shape {values.shape}: expected (height, width)")
    return np.ascontiguousarray(values, np.float32)


def _check_aspect(depth: np.ndarray, photo: Image.Image) -> None:
    rows, columns = depth.shape
    expected = columns * photo.height / photo.width
    if abs(rows - expected) > max(1.0, 0.01 * expected):
        raise ConfigError(
            f"depth map of {columns}x{rows}, the photo is {photo.width}x{photo.height}: give a map "
            "of the same aspect"
        )


def _cropped(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of a map that has the aspect of (height, width)."""
    rows, columns = depth.shape
    height = min(rows, round(columns * size[0] / size[1]))
    width = min(columns, round(rows * size[1] / size[0]))
    top, left = (rows - height) // 2, (columns - width) // 2
    return depth[top : top + max(height, 1), left : left + max(width, 1)]


def _digest(depth: np.ndarray) -> str:
    return hashlib.sha256(f"{depth.shape} ".encode() + depth.tobytes()).hexdigest()
