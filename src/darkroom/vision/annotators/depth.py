"""How near things are: told by a network, drawn in grey, and read as the way surfaces face."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from darkroom.errors import ModelMismatchError
from darkroom.images import ImageLike, open_image
from darkroom.models.dpt.network import DPT
from darkroom.models.dpt.view import told
from darkroom.vision.annotators.drawing import at_resolution, to_picture
from darkroom.vision.annotators.surfaces import FLATTENING, facing

Depth = NDArray[np.float32]


@torch.no_grad()
def estimate_depth(network: DPT, image: ImageLike) -> Depth:
    """(H, W) of the picture: relative inverse depth, 0 far away, larger is nearer.

    The picture is shown to the network as the network's files say, and what it tells is brought
    to the picture's size, bicubic, as transformers does it.

    Args:
        network: what ``load("Intel/dpt-hybrid-midas")`` returns, or the ``depth`` of a checkpoint.

    Raises:
        ModelMismatchError: it is another network.
        ImageError: the picture cannot be read.
    """
    picture = open_image(image)
    found = told(_checked(network), picture)
    size = (picture.height, picture.width)
    return F.interpolate(found[None, None], size=size, mode="bicubic")[0, 0].numpy()


def depth(image: Image.Image, model: DPT, *, resolution: int = 512) -> Image.Image:
    """Nearness in grey: the nearest part is white, the farthest black.

    Args:
        resolution: of the shorter side of what the network sees; rounded to 64.
    """
    return to_picture(grey(_at(image, model, resolution)), image.size)


def normals(
    image: Image.Image,
    model: DPT,
    *,
    resolution: int = 512,
    background: float = 0.1,
    flattening: float = FLATTENING,
) -> Image.Image:
    """Which way surfaces face, in colours.

    Args:
        resolution: as ``depth``.
        background, flattening: as ``surfaces.facing`` has them.
    """
    found = _at(image, model, resolution)
    return to_picture(facing(found, background, flattening), image.size)


def grey(depth: Depth) -> NDArray[np.uint8]:
    """Any numbers (H, W) to 0, the least, to 255, the most, rounded down; all 0 if all equal."""
    above = depth - depth.min()
    return (above / max(float(above.max()), 1e-12) * 255).clip(0, 255).astype(np.uint8)


def depth_picture(depth: Depth) -> Image.Image:
    """Any numbers (H, W) as a 16-bit grey picture, the most white; a PNG file of it keeps them.

    ``open_depth``, and so ``DepthGuide``, reads it as a depth map.
    """
    above = depth - depth.min()
    values = (above / max(float(above.max()), 1e-12) * 65535).round()
    return Image.fromarray(values.clip(0, 65535).astype(np.uint16))


@torch.no_grad()
def _at(image: Image.Image, model: DPT, resolution: int) -> Depth:
    """(h, w) at the resolution that the network sees the picture at, from -1 to 1."""
    weight = next(_checked(model).parameters())
    pixels = torch.from_numpy(at_resolution(image, resolution).copy())
    x = pixels.permute(2, 0, 1)[None].to(weight) / 127.5 - 1
    return model(x)[0].float().cpu().numpy()


def _checked(network: DPT) -> DPT:
    if not isinstance(network, DPT):
        raise ModelMismatchError(
            f"depth needs a DPT network (Intel/dpt-hybrid-midas, dpt_hybrid-midas-501f0c75.pt), "
            f"not a {type(network).__name__}"
        )
    return network
