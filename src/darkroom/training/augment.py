"""Colours and backgrounds for cut-out pictures, with the words that say so.

Shapes: pixels (B, 4, H, W) uint8 RGBA; colours (B, 3) in [0, 1]; images (B, 3, H, W) in [-1, 1].
"""

import torch
from torch import Tensor

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (229, 57, 53),
    "orange": (251, 140, 0),
    "yellow": (253, 216, 53),
    "green": (67, 160, 71),
    "blue": (30, 136, 229),
    "purple": (142, 36, 170),
    "pink": (240, 98, 146),
    "brown": (121, 85, 72),
    "black": (33, 33, 33),
    "gray": (144, 144, 144),
    "white": (255, 255, 255),
}
TINTS = tuple(name for name in COLOURS if name != "white")  # of the thing itself
GROUNDS = tuple(name for name in COLOURS if name != "white")  # white is what nothing is said of
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def colour(names: list[str]) -> Tensor:
    """(B, 3) in [0, 1]."""
    return torch.tensor([COLOURS[name] for name in names]) / 255


def compose(pixels: Tensor, ground: Tensor) -> Tensor:
    """Cut-outs over a plain colour: images in [-1, 1]."""
    values = pixels.float() / 255
    alpha = values[:, 3:]
    return (values[:, :3] * alpha + ground[:, :, None, None] * (1 - alpha)) * 2 - 1


def tint(pixels: Tensor, target: Tensor) -> Tensor:
    """Give the coloured parts one hue; whites, blacks and greys stay (the eyes of a blue cat).

    A pixel becomes the target shaded by the pixel's own brightness relative to the picture's
    mean ("overlay"), in proportion to its saturation.
    """
    values = pixels.float() / 255
    rgb, alpha = values[:, :3], values[:, 3:]
    high, low = rgb.amax(1, keepdim=True), rgb.amin(1, keepdim=True)
    weight = ((high - low) / 0.25).clamp(0, 1)  # chroma 0.25 and more is fully recoloured
    luma = (rgb * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    mass = (alpha * weight).sum((2, 3), keepdim=True).clamp_min(1e-3)
    mean = (luma * alpha * weight).sum((2, 3), keepdim=True) / mass
    shade = 0.5 + (luma - mean)  # 0.5 = exactly the target
    goal = target[:, :, None, None]
    overlay = torch.where(
        shade < 0.5, goal * 2 * shade.clamp_min(0), 1 - 2 * (1 - goal) * (1 - shade.clamp_max(1))
    )
    mixed = (weight * overlay + (1 - weight) * rgb).clamp(0, 1)
    return torch.cat((mixed * 255, alpha * 255), dim=1).round().to(torch.uint8)
