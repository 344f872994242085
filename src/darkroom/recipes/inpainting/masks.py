"""Random masks to train inpainting on: what people paint over a picture, and parts of things."""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from darkroom.masks import Mask


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Fractions of the masks, by kind."""

    boxes: float = 0.25  # one to three
    strokes: float = 0.15  # of a thick brush
    ellipses: float = 0.1  # one or two
    halves: float = 0.15  # what lies on one side of a straight cut
    things: float = 0.2  # what is cut out, grown by a few pixels; or what of it a cut leaves
    whole: float = 0.15  # everything

    def __post_init__(self) -> None:
        shares = [getattr(self, field.name) for field in fields(self)]
        if min(shares) < 0 or sum(shares) <= 0:
            raise ValueError("the fractions of the masks must be at least 0, one of them above")

    def draw(self, alpha: Tensor, g: torch.Generator) -> Tensor:
        """One mask, never empty.

        Args:
            alpha: (H, W) in [0, 1], what is cut out; 1 everywhere in a photograph.

        Returns:
            (H, W) of 0 and 1; 1 is to be painted anew.
        """
        kinds = (boxes, strokes, ellipses, half, thing, whole)
        shares = torch.tensor([float(getattr(self, field.name)) for field in fields(self)])
        kind = kinds[int(torch.multinomial(shares, 1, generator=g))]
        mask = kind(alpha, g)
        return mask if mask.any() else whole(alpha, g)


def boxes(alpha: Tensor, g: torch.Generator) -> Tensor:
    """One to three boxes, each side 15 to 70 % of the picture's."""
    picture, pen = _paper(alpha)
    for _ in range(_whole_number(1, 3, g)):
        pen.rectangle(_box(alpha, g), fill=255)
    return _tensor(picture)


def ellipses(alpha: Tensor, g: torch.Generator) -> Tensor:
    """One or two ellipses within such boxes."""
    picture, pen = _paper(alpha)
    for _ in range(_whole_number(1, 2, g)):
        pen.ellipse(_box(alpha, g), fill=255)
    return _tensor(picture)


def strokes(alpha: Tensor, g: torch.Generator) -> Tensor:
    """One to three strokes of a round brush, 8 to 30 % of the picture wide, with bends."""
    height, width = alpha.shape
    picture, pen = _paper(alpha)
    for _ in range(_whole_number(1, 3, g)):
        points = [
            (_between(0, width, g), _between(0, height, g)) for _ in range(_whole_number(2, 5, g))
        ]
        brush = _between(0.08, 0.3, g) * min(height, width)
        pen.line(points, fill=255, width=max(round(brush), 1))
        for x, y in points:
            half_brush = brush / 2
            pen.ellipse((x - half_brush, y - half_brush, x + half_brush, y + half_brush), fill=255)
    return _tensor(picture)


def half(alpha: Tensor, g: torch.Generator) -> Tensor:
    """One side of a cut that leaves about 20 to 80 %: two thirds of them along an axis."""
    height, width = alpha.shape
    angle = _between(0, 2 * math.pi, g)
    if _between(0, 1, g) < 2 / 3:
        angle = round(angle / (math.pi / 2)) * math.pi / 2
    x = torch.linspace(-0.5, 0.5, width)
    y = torch.linspace(-0.5, 0.5, height)[:, None]
    return (x * math.cos(angle) + y * math.sin(angle) > _between(-0.3, 0.3, g)).float()


def thing(alpha: Tensor, g: torch.Generator) -> Tensor:
    """What is cut out, grown by up to an eighth of the picture; half of the time, a part of it."""
    grown = 2 * _whole_number(1, max(min(alpha.shape) // 8, 1), g) + 1
    inside = (alpha > 0).float()[None, None]
    mask = F.max_pool2d(inside, grown, stride=1, padding=grown // 2)[0, 0]
    if _between(0, 1, g) < 0.5:
        part = mask * half(alpha, g)
        mask = part if part.any() else mask
    return mask


def whole(alpha: Tensor, g: torch.Generator) -> Tensor:
    """Everything: text to image is not to be forgotten."""
    return torch.ones_like(alpha)


def _paper(alpha: Tensor) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("L", (alpha.shape[1], alpha.shape[0]))
    return picture, ImageDraw.Draw(picture)


def _tensor(picture: Image.Image) -> Tensor:
    return Mask.from_image(picture).tensor()


def _box(alpha: Tensor, g: torch.Generator) -> tuple[float, float, float, float]:
    corner, end = [], []
    for length in reversed(alpha.shape):
        side = _between(0.15, 0.7, g) * length
        first = _between(0, length - side, g)
        corner.append(first)
        end.append(first + side)
    return (*corner, *end)


def _between(low: float, high: float, g: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=g).item()


def _whole_number(low: int, high: int, g: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))
