"""Lines, limbs and dots, with the pixels that OpenCV gives them; arrays to pictures and back.

A canvas is (H, W, 3), 8 bits. Points are (x, y) in whole pixels; what lies outside is left out.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darkroom.errors import ConfigError
from darkroom.vision.annotators.resampling import resize

Canvas = NDArray[np.uint8]
Point = tuple[int, int]
Place = tuple[float, float]
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
MULTIPLE = 64  # of pixels: sides of what a network sees


def at_resolution(picture: Image.Image, resolution: int) -> Canvas:
    """The pixels (H, W, 3), the shorter side near to ``resolution``, both multiples of 64.

    Raises:
        ConfigError: ``resolution`` is below 64.
    """
    if resolution < MULTIPLE:
        raise ConfigError(f"resolution {resolution}: expected at least {MULTIPLE} pixels")
    scale = resolution / min(picture.size)
    sides = [max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in picture.size]
    pixels = np.asarray(picture.convert("RGB"))
    if picture.size == tuple(sides):
        return pixels
    return resize(pixels, sides[1], sides[0]).round().clip(0, 255).astype(np.uint8)


def to_picture(values: Canvas, size: tuple[int, int]) -> Image.Image:
    """(H, W[, 3]) as an RGB picture of ``size`` (width, height), bilinear."""
    picture = Image.fromarray(values).convert("RGB")
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def line(canvas: Canvas, start: Point, end: Point, colour: Colour) -> None:
    """One pixel wide."""
    ends = _clipped([[*start], [*end]], (canvas.shape[1] - 1, canvas.shape[0] - 1))
    if ends:
        _put(canvas, _between(*ends), colour)


def limb(canvas: Canvas, start: Place, end: Place, width: int, colour: Colour) -> None:
    """A filled ellipse with its ends at two places, ``width`` to each side."""
    (x0, y0), (x1, y1) = start, end
    length = int(np.hypot(x1 - x0, y1 - y0) / 2)
    turn = int(np.degrees(np.arctan2(y0 - y1, x0 - x1)))
    degrees = np.array([*range(361), turn])
    sine, cosine = (f(np.radians(degrees)).round(7) for f in (np.sin, np.cos))  # 30 gives 0.5
    along, across = length * cosine[:-1], width * sine[:-1]
    x = int((x0 + x1) / 2) + along * cosine[-1] - across * sine[-1]
    y = int((y0 + y1) / 2) + along * sine[-1] + across * cosine[-1]
    fill(canvas, np.stack((np.rint(x), np.rint(y)), 1).astype(int), colour)


def fill(canvas: Canvas, corners: NDArray[np.int_], colour: Colour) -> None:
    """A convex polygon (N, 2) with its outline."""
    following = np.roll(corners, -1, axis=0)
    apart = (corners != following).any(1)
    ends = zip(corners[apart], following[apart], strict=True)
    sides = [corners, *(side for a, b in ends for side in _side(a, b))]
    outline = np.concatenate(sides)
    for y in range(max(0, outline[:, 1].min()), min(len(canvas) - 1, outline[:, 1].max()) + 1):
        x = outline[outline[:, 1] == y, 0]
        canvas[y, max(0, x.min()) : max(0, x.max() + 1)] = colour


def dot(canvas: Canvas, centre: Point, radius: int, colour: Colour) -> None:
    """A filled circle."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = x**2 + y**2 <= radius**2
    _put(canvas, np.stack((x[inside] + centre[0], y[inside] + centre[1]), 1), colour)


def _clipped(ends: list[list[int]], last: Point) -> list[list[int]]:
    """The part of a line within 0 to ``last``, in whole pixels; nothing if there is none.

    Cohen and Sutherland's way, rows first, each end moved along what is left of the line.
    """
    for along in (1, 0):
        if max(end[along] for end in ends) < 0 or min(end[along] for end in ends) > last[along]:
            return []
        for end in ends:
            missing = min(max(end[along], 0), last[along]) - end[along]
            if missing:
                way = [b - a for a, b in zip(*ends, strict=True)]
                end[1 - along] += int(missing * way[1 - along] / way[along])
                end[along] += missing
    return ends


def _side(start: NDArray[np.int_], end: NDArray[np.int_]) -> Iterable[NDArray[np.int_]]:
    """What a side of a polygon covers: its line, and where it crosses the middle of each row.

    The crossings are in 65536ths of a pixel, which decides those that lie between two pixels.
    """
    yield _between(start, end)
    if start[1] > end[1]:
        start, end = end, start
    rows = int(end[1] - start[1])
    if rows:
        slope = int(((int(end[0] - start[0]) << 17) + rows) / (2 * rows))  # towards 0
        done = np.arange(rows + 1)
        yield np.stack((start[0] + ((done * slope + (1 << 15)) >> 16), start[1] + done), 1)


def _between(start: Iterable[int], end: Iterable[int]) -> NDArray[np.int_]:
    """(N, 2) points after Bresenham; a step sideways waits until it is past the middle."""
    first, last = np.array(start), np.array(end)
    if last[0] < first[0]:
        first, last = last, first  # always to the right: it decides where ties fall
    way = last - first
    length = int(np.abs(way).max())
    done = np.arange(length + 1)[:, None]
    moved = (2 * np.abs(way) * done + length - 1) // max(1, 2 * length)
    return first + np.sign(way) * moved


def _put(canvas: Canvas, points: NDArray[np.int_], colour: Colour) -> None:
    x, y = points[:, 0], points[:, 1]
    inside = (x >= 0) & (y >= 0) & (x < canvas.shape[1]) & (y < canvas.shape[0])
    canvas[y[inside], x[inside]] = colour
