"""Random resized crops of photographs in memory (Szegedy et al., arXiv:1409.4842, section 6)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = math.log(4 / 3)  # height over width lies between 3/4 and 4/3


def draw_crops(count: int, side: int, least: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where to cut, and whether to mirror.

    Args:
        side: of the square photographs, in pixels.
        least: the smallest area of a crop, as a fraction of the photograph's.

    Returns:
        (count, 4) int64 top, left, height, width; (count,) bool.
    """
    area = least + (1 - least) * torch.rand(count, generator=g)
    shape = ((torch.rand(count, generator=g) * 2 - 1) * SHAPES).exp()
    sides = torch.stack((area * shape, area / shape), 1).sqrt() * side
    sides = sides.round().clamp(1, side).long()
    corner = (torch.rand(count, 2, generator=g) * (side - sides + 1)).long()
    return torch.cat((corner, sides), 1), torch.rand(count, generator=g) < 0.5


def cut(pixels: Tensor, boxes: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crops of uint8 pixels (B, C, H, W), each scaled: (B, C, size, size) in [0, 1]."""
    crops = torch.empty(len(pixels), pixels.shape[1], size, size, dtype=torch.uint8)
    crops = crops.contiguous(memory_format=torch.channels_last)
    for i, ((top, left, height, width), flip) in enumerate(
        zip(boxes.tolist(), mirrored.tolist(), strict=True)
    ):
        piece = pixels[i : i + 1, :, top : top + height, left : left + width]
        crops[i] = scaled(piece, size)[0].flip(-1) if flip else scaled(piece, size)[0]
    return crops.float() / 255


def scaled(pixels: Tensor, size: int) -> Tensor:
    """uint8 (B, C, H, W) -> (B, C, size, size), bilinear with antialiasing."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
