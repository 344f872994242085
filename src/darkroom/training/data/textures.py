"""Procedural grounds and shapes to compose scenes of. Everything is drawn from a given generator.

Shapes: H height, W width; pixels (H, W, 3) uint8.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

FINE = 2  # shapes are drawn so much larger, for smooth edges


def plain(size: int, rng: np.random.Generator) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(_colour(rng).astype(np.uint8), (size, size, 3)).copy()


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Clouds, stripes, a gradient, checks or blotches, of two colours or more."""
    kind = int(rng.integers(5))
    if kind == 4:
        return clouds(size, rng, channels=3)
    share = (_clouds, _stripes, _gradient, _checks)[kind](size, rng)
    low, high = _colour(rng), _colour(rng)
    return (low + (high - low) * share[..., None]).astype(np.uint8)


def clouds(size: int, rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """Noise of several scales, each channel for itself."""
    parts = [_clouds(size, rng) for _ in range(channels)]
    return (255 * np.stack(parts, -1)).astype(np.uint8)


def shape(side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side) uint8 coverage of a polygon, a blob, a star, an ellipse or a rectangle."""
    large = side * FINE
    paper = Image.new("L", (large, large))
    pen = ImageDraw.Draw(paper)
    kind, middle = int(rng.integers(5)), large / 2
    if kind < 2:  # rectangle, ellipse
        half = middle * rng.uniform(0.35, 1.0, 2)
        box = (*(middle - half), *(middle + half - 1))
        (pen.rectangle if kind == 0 else pen.ellipse)(box, fill=255)
    else:
        if kind == 2:  # blob
            angle = np.linspace(0, 2 * math.pi, 48, endpoint=False)
            radius = np.ones(48)
            for wave in range(1, 6):
                swing = rng.uniform(0, 0.45 / wave)
                radius += swing * np.sin(wave * angle + rng.uniform(0, 2 * math.pi))
        else:
            corners = int(rng.integers(3, 9)) * (kind - 2)
            angle = np.sort(rng.uniform(0, 2 * math.pi, corners)) if kind == 3 else None
            if angle is None:  # a star: every other corner lies within
                angle = np.arange(corners) * 2 * math.pi / corners
            radius = rng.uniform(0.6, 1.0, corners)
            radius[1::2] *= 1.0 if kind == 3 else rng.uniform(0.3, 0.7)
        radius = radius / radius.max() * middle
        points = np.stack((middle + radius * np.cos(angle), middle + radius * np.sin(angle)), 1)
        pen.polygon([(float(x), float(y)) for x, y in points], fill=255)
    return np.asarray(paper.resize((side, side), Image.Resampling.BOX))


def _colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 256, 3)


def _clouds(size: int, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros((size, size), np.float32)
    cells, weight = int(rng.integers(2, 9)), 1.0
    falling = rng.uniform(0.4, 0.9)
    for _ in range(3):
        coarse = Image.fromarray(rng.random((cells, cells), np.float32))
        total += weight * np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR))
        cells, weight = min(cells * 3, size), weight * falling
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def _across(size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W): how far along a random direction, in pixels."""
    turn = rng.uniform(0, 2 * math.pi)
    line = np.arange(size, dtype=np.float32)
    return line * np.float32(math.cos(turn)) + line[:, None] * np.float32(math.sin(turn))


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    waves = np.sin(_across(size, rng) * np.float32(2 * math.pi / rng.uniform(4, 40)))
    return 0.5 + 0.5 * np.clip(waves * np.float32(rng.uniform(1, 8)), -1, 1)


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    along = _across(size, rng)
    return (along - along.min()) / max(float(np.ptp(along)), 1e-6)


def _checks(size: int, rng: np.random.Generator) -> np.ndarray:
    line = np.arange(size, dtype=np.float32)
    side, turn = rng.uniform(4, 32), rng.uniform(0, math.pi / 2)
    x = line * math.cos(turn) + line[:, None] * math.sin(turn)
    y = line[:, None] * math.cos(turn) - line * math.sin(turn)
    return ((np.floor(x / side) + np.floor(y / side)) % 2).astype(np.float32)
