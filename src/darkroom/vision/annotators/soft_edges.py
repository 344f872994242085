"""Soft edges from a network, and scribbles: from soft edges, or from a difference of Gaussians."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.models.annotators.soft_edges import SoftEdges
from darkroom.vision.annotators.drawing import Canvas, at_resolution, to_picture
from darkroom.vision.annotators.resampling import blur, blur_bytes

WAYS = ((0, 1), (1, 0), (1, 1), (1, -1))  # in which a neighbour can lie: (down, right)


def hed(
    image: Image.Image, model: SoftEdges, *, resolution: int = 512, safe: bool = False
) -> Image.Image:
    """Edges in grey, brighter where they are surer.

    Args:
        resolution: of the shorter side of what the network sees; rounded to 64.
        safe: only three levels of grey above black, so that nothing of the picture hides in them.
    """
    return to_picture(soft_edges(at_resolution(image, resolution), model, safe), image.size)


def scribble(
    image: Image.Image,
    model: SoftEdges | None = None,
    *,
    resolution: int = 512,
    threshold: float = 32,
) -> Image.Image:
    """White lines on black, as if drawn by hand.

    With a network its soft edges are thinned and drawn with a thick pen. Without one, lines are
    where a difference of Gaussians is large (Winnemoeller, Computers & Graphics 2012).

    Args:
        resolution: as ``hed``; also of what the difference is taken of.
        threshold: without a network: twice the difference, 0 to 510, from which on there is a line.

    Raises:
        ConfigError: a threshold beside a network, which has no use for it, or below 0.
    """
    pixels = at_resolution(image, resolution)
    if model is None:
        return to_picture(difference_lines(pixels, threshold), image.size)
    if threshold != 32:
        raise ConfigError("scribble with a network has no threshold; leave one of them out")
    return to_picture(thick_lines(soft_edges(pixels, model)), image.size)


def soft_edges(pixels: Canvas, model: SoftEdges, safe: bool = False) -> Canvas:
    """(H, W, 3) to (H, W): the sigmoid of the mean over all scales."""
    if not isinstance(model, SoftEdges):
        raise ModelMismatchError(
            f"soft edges need a SoftEdges network (ControlNetHED.pth), not a {type(model).__name__}"
        )
    with torch.no_grad():
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(model.mean)
        maps = [
            F.interpolate(m.float(), pixels.shape[:2], mode="bilinear", align_corners=False)
            for m in model(x)
        ]
        edges = torch.stack(maps).mean(0)[0, 0].double().sigmoid().cpu().numpy()
    if safe:
        edges = np.floor(edges * 3) / 2
    return (edges * 255).clip(0, 255).astype(np.uint8)


def thick_lines(edges: Canvas) -> Canvas:
    """Soft edges (H, W) to the ridges that are surer than not, some 11 pixels wide."""
    soft = blur(edges, 3.0, 12).astype(np.float32)
    around = np.pad(soft, 1, constant_values=-np.inf)
    height, width = soft.shape
    ridge = np.zeros(soft.shape, dtype=np.bool_)
    for down, right in WAYS:
        first, second = (
            around[1 + sign * down :, 1 + sign * right :][:height, :width] for sign in (-1, 1)
        )
        ridge |= (soft >= first) & (soft >= second)
    thin = (ridge & (soft > 127)).astype(np.uint8) * 255
    return (blur_bytes(thin, 3.0, 9) > 4).astype(np.uint8) * 255


def difference_lines(pixels: Canvas, threshold: float) -> Canvas:
    """(H, W, 3) to the dark lines (H, W) of a difference of Gaussians, sigma 0.5 and 5 pixels."""
    if threshold < 0:
        raise ConfigError(f"scribble threshold {threshold:g}: expected 0 or more")
    darker: NDArray[np.float64] = (blur(pixels, 5.0, 20) - blur(pixels, 0.5, 2)).min(-1)
    whole = np.ceil(darker.clip(0, 255))
    return (2 * whole > threshold).astype(np.uint8) * 255
