"""How pictures of emoji are compared, and what is made of the comparison.

The metric: root mean square of the difference in red, green and blue (0 to 1) at 32x32 pixels,
both pictures over white, each 2x2 block averaged first. Why this one: nothing in it was learned,
so the model is not graded by itself or by its data; it is sensitive to shape and colour, which is
what tells emoji apart; and the averaging forgives shifts of about a pixel and the softness of an
autoencoder. It is strict on position and scale: a well drawn emoji in another place counts as far.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64  # pixels per side of what is compared, before averaging


@dataclass(frozen=True)
class Emoji:
    """The pictures of a folder and what is known of each."""

    rows: list[dict]
    pictures: np.ndarray  # (N, 64, 64, 3) in [0, 1], over white

    @property
    def base(self) -> np.ndarray:
        """Indices of those without a skin tone."""
        return np.flatnonzero([not row.get("skin_tone") for row in self.rows])


def read(folder: Path) -> Emoji:
    """A folder with metadata.jsonl, as ``noto-emoji``."""
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return Emoji(rows, np.stack([over_white(folder / row["file_name"]) for row in rows]))


def over_white(path: Path) -> np.ndarray:
    """(64, 64, 3): scaled by area averaging of premultiplied pixels."""
    with Image.open(path) as image:
        small = image.convert("RGBA").convert("RGBa").resize((SIZE, SIZE), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32) / 255
    return values[..., :3] + (1 - values[..., 3:])


def pixels(image: Image.Image) -> np.ndarray:
    """A drawn picture as (64, 64, 3) in [0, 1]."""
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float32) / 255


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 64, 64, 3) against (M, 64, 64, 3): root mean square differences, (N, M)."""
    a, b = averaged(a), averaged(b)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])


def averaged(pictures: np.ndarray) -> np.ndarray:
    """2x2 blocks averaged, then flat: (N, 32 * 32 * 3), double precision."""
    n, height, width, channels = pictures.shape
    blocks = pictures.reshape(n, height // 2, 2, width // 2, 2, channels).astype(np.float64)
    return blocks.mean((2, 4)).reshape(n, -1)


@dataclass(frozen=True)
class Verdict:
    """Of the nearest neighbour of one picture among the base emoji."""

    nearest: int  # index of a row
    exact: bool  # it is the one that was named, or looks just like it
    subgroup: bool  # it is of the same subgroup, or exact


def verdicts(emoji: Emoji, drawn: np.ndarray, named: np.ndarray) -> list[Verdict]:
    """What each picture (N, 64, 64, 3) looks like; ``named`` (N,) are indices of rows."""
    base = emoji.base
    found = []
    for row, wanted in zip(distances(drawn, emoji.pictures[base]), named, strict=True):
        nearest = int(base[row.argmin()])
        own = row[np.flatnonzero(base == wanted)[0]]
        exact = bool(own <= row.min() + 1e-9)  # some emoji are drawn alike
        groups = [emoji.rows[i].get("subgroup", "") for i in (nearest, wanted)]
        found.append(Verdict(nearest, exact, exact or (groups[0] == groups[1] != "")))
    return found


def chance(emoji: Emoji, named: np.ndarray) -> float:
    """The share of same subgroups if the nearest emoji were any at random."""
    groups = [emoji.rows[i].get("subgroup", "") for i in emoji.base]
    shares = []
    for wanted in named:
        group = emoji.rows[wanted].get("subgroup", "")
        shares.append(groups.count(group) / len(groups) if group else 1 / len(groups))
    return float(np.mean(shares))


def to_nearest_other(emoji: Emoji, among: np.ndarray) -> np.ndarray:
    """The distance of each of these rows to the nearest other one of them."""
    table = distances(emoji.pictures[among], emoji.pictures[among])
    np.fill_diagonal(table, np.inf)
    return table.min(1)


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    if not n:
        return 0.0, 1.0
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


# --- colours


def mean_hue(picture: np.ndarray, least: float = 0.25, pixels: int = 20) -> float | None:
    """Circular mean, in degrees, of the hue of pixels with a chroma of ``least`` or more.

    Weighted by chroma. None when fewer than ``pixels`` are that coloured.
    """
    flat = picture.reshape(-1, 3).astype(np.float64)
    chroma = flat.max(1) - flat.min(1)
    flat, chroma = flat[chroma >= least], chroma[chroma >= least]
    if len(flat) < pixels:
        return None
    angle = hue(flat)
    return math.degrees(math.atan2((np.sin(angle) * chroma).sum(), (np.cos(angle) * chroma).sum()))


def hue(rgb: np.ndarray) -> np.ndarray:
    """Angles in radians of colours (N, 3), on the hexagon of HSV."""
    high, low = rgb.max(1), rgb.min(1)
    chroma = np.maximum(high - low, 1e-9)
    red, green, blue = rgb.T
    sector = np.where(
        high == red,
        ((green - blue) / chroma) % 6,
        np.where(high == green, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    return sector * (math.pi / 3)


def nearest_hue(degrees: float, colours: dict[str, tuple[int, int, int]]) -> str:
    """Which of these colours has the nearest hue."""

    def gap(name: str) -> float:
        own = math.degrees(float(hue(np.array([colours[name]], dtype=float) / 255)[0]))
        return abs((degrees - own + 180) % 360 - 180)

    return min(colours, key=gap)


def border_colour(picture: np.ndarray, colours: dict[str, tuple[int, int, int]]) -> str:
    """Which of these is nearest (RGB) to the median of the two outermost rings of pixels."""
    ring = np.ones(picture.shape[:2], dtype=bool)
    ring[2:-2, 2:-2] = False
    median = np.median(picture[ring], axis=0)

    def gap(name: str) -> float:
        return float(((median - np.array(colours[name]) / 255) ** 2).sum())

    return min(colours, key=gap)


def redness(picture: np.ndarray) -> float:
    """Mean of how far red is above the stronger one of green and blue."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    return float(np.maximum(red - np.maximum(green, blue), 0).mean())
