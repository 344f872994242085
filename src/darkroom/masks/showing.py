"""Masks laid over pictures, and the points and boxes that asked for them."""

import colorsys
import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from darkroom.images import labelled_grid
from darkroom.masks.mask import Mask

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

BLUE = (30, 144, 255)
GREEN, RED, WHITE = (0, 160, 0), (230, 0, 0), (255, 255, 255)
STAR, LINE = 0.0175, 0.0036  # a star's radius and a box's line, of the picture's longer side
LARGEST, SMALLEST = 512, 256  # pixels of a side, of the pictures in a figure

__all__ = ["Colour", "colours", "mark", "overlay", "show_all", "show_candidates", "show_mask"]


def overlay(
    image: Image.Image,
    masks: Sequence[Mask],
    tints: Sequence[Colour] | None = None,
    alpha: float = 0.5,
) -> Image.Image:
    """The picture with each mask laid over it in a colour, in their order.

    Args:
        tints: a colour for each mask; None = ``colours``.
        alpha: 0 shows the picture alone, 1 the colours alone.

    Raises:
        ValueError: a mask has another size, or there are fewer colours than masks.
    """
    tints = colours(len(masks)) if tints is None else tints
    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    for mask, tint in zip(masks, tints[: len(masks)], strict=True):
        if mask.values.shape != pixels.shape[:2]:
            raise ValueError(
                f"a mask of {mask.width}x{mask.height} over a picture of "
                f"{image.width}x{image.height}"
            )
        left, top, right, bottom = mask.box or (0, 0, 0, 0)
        part = slice(top, bottom), slice(left, right)
        share = (alpha * mask.values[part])[..., None]
        pixels[part] = pixels[part] * (1 - share) + np.array(tint, np.float32) * share
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def show_mask(image: Image.Image, mask: Mask, alpha: float = 0.6) -> Image.Image:
    """The picture with one mask over it, in blue.

    Raises:
        ValueError: the mask has another size.
    """
    return overlay(image, [mask], [BLUE], alpha)


def show_all(
    image: Image.Image, masks: Iterable[Mask], alpha: float = 0.35, outline: bool = False
) -> Image.Image:
    """The picture with all masks over it, each in its colour; where they overlap the smaller shows.

    Args:
        outline: draw a line along the inner edge of each, too.

    Raises:
        ValueError: a mask has another size.
    """
    shape = (image.height, image.width)
    least = np.full(shape, np.inf, np.float32)  # area of the mask that shows
    paint, share = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.float32)
    thick = max(1, round(max(shape) / 600))
    for number, given in enumerate(masks):
        mask = given.binary()
        if mask.values.shape != shape:
            overlay(image, [mask])  # says what is wrong
        left, top, right, bottom = mask.box or (0, 0, 0, 0)
        part = slice(top, bottom), slice(left, right)
        area, inside = mask.area, mask.values[part]
        shows = inside & (least[part] > area)
        paint[part][shows], share[part][shows], least[part][shows] = _hue(number), alpha, area
        if outline:
            around = np.pad(inside, thick)  # so that what lies at the edges of the box is an edge
            deep = Mask(around).grow(-thick).values[thick:-thick, thick:-thick]
            share[part][shows & ~deep] = 1
    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    mixed = pixels + (paint - pixels) * share[..., None]
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def mark(
    image: Image.Image,
    points: Sequence[Point] = (),
    inside: Sequence[bool] = (),
    boxes: Sequence[Box] = (),
) -> Image.Image:
    """The picture with boxes in green and points as stars: green inside, red in the background.

    Args:
        inside: one for each point.
        boxes: left, top, right, bottom.

    Raises:
        ValueError: points and ``inside`` differ in number.
    """
    drawn = image.convert("RGB")
    longest = max(drawn.size)
    thick = max(2, round(LINE * longest))
    pen = ImageDraw.Draw(drawn)
    for left, top, right, bottom in boxes:
        pen.rectangle((left, top, right - 1, bottom - 1), outline=GREEN, width=thick)
    radius = max(5.0, STAR * longest)
    for (x, y), within in zip(points, inside, strict=True):
        star = _star(radius, GREEN if within else RED)
        drawn.paste(star, (round(x - star.width / 2), round(y - star.height / 2)), star)
    return drawn


def show_candidates(
    image: Image.Image,
    masks: Sequence[Mask],
    points: Sequence[Point] = (),
    inside: Sequence[bool] = (),
    boxes: Sequence[Box] = (),
    columns: int | None = None,
) -> Image.Image:
    """A figure: the picture once for each mask, with the mask's score above.

    Args:
        columns: None = all side by side.

    Raises:
        ValueError: no masks, one of another size, or points and ``inside`` differ in number.
    """
    cells, titles = [], []
    for number, mask in enumerate(masks, 1):
        shown = mark(show_mask(image, mask), points, inside, boxes)
        shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        cells.append(shown)
        score = "" if mask.score is None else f", score: {mask.score:.3f}"
        titles.append(f"Mask {number}{score}")
    scale = max(1, SMALLEST // max(cells[0].size)) if cells else 1
    return labelled_grid(cells, columns or max(1, len(cells)), titles=titles, scale=scale)


def colours(count: int) -> list[Colour]:
    """Colours far apart: hues a golden section further each time."""
    return [_hue(number) for number in range(count)]


def _hue(number: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _star(radius: float, colour: Colour) -> Image.Image:
    """Five points, filled, with a white edge; transparent around it, smooth."""
    finer, edge = 4, max(1.0, radius / 10)
    half = math.ceil(radius + 2 * edge)
    large = Image.new("RGBA", (2 * half * finer, 2 * half * finer), (*WHITE, 0))
    pen = ImageDraw.Draw(large)
    for reach, tint in ((radius + 1.5 * edge, WHITE), (radius, colour)):
        corners = []
        for i in range(10):
            away = finer * reach * (1 if i % 2 == 0 else 0.42)
            turn = math.pi * i / 5
            corners.append(
                (finer * half + away * math.sin(turn), finer * half - away * math.cos(turn))
            )
        pen.polygon(corners, fill=(*tint, 255))
    return large.resize((2 * half, 2 * half), Image.Resampling.BOX)
