"""Composed scenes with exact masks: cut-outs laid over photographs, textures or plain colours.

What a data engine is for (Kirillov et al., arXiv:2304.02643, section 4), where nobody can annotate:
whoever lays the things knows their masks. A scene is a function of a seed and a number.

Shapes: N things; H and W at most ``size``, the longer one equal to it.
"""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from darkroom.errors import DataError
from darkroom.training.data import textures
from darkroom.training.data.held_out import family, split
from darkroom.training.data.opening import open_data
from darkroom.training.data.pictures import Part, Pictures, squeezed_cut_out
from darkroom.training.data.reading import attempts, left_out

MOST = 250  # things in a scene: their numbers are bytes


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What scenes are like; shares lie in [0, 1]."""

    size: int = 128  # pixels of the longer side
    oblong: float = 0.0  # share of scenes whose other side is shorter, down to half as long
    things: tuple[int, int] = (1, 7)
    scale: tuple[float, float] = (0.15, 0.8)  # longer side of a thing, as a share of the picture's
    near: float = 0.4  # share of things that are laid beside or upon an earlier one
    turned: float = 0.7  # share of things that are rotated; a third of them by any angle
    shapes: float = 0.0  # share of things that are random shapes, filled as grounds are
    photographs: float = 0.6  # share of grounds, where there are photographs
    textured: float = 0.25  # share of grounds; the others are plain
    shadow: float = 0.3  # share of things that throw one
    blur: float = 0.2  # shares of scenes that are so disturbed
    noise: float = 0.3
    jpeg: float = 0.3
    light: float = 0.4  # other brightness, contrast and saturation
    least_area: int = 24  # visible pixels below which a thing is no object of the scene

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise ValueError(f"size {self.size}: expected 8 to 4096 pixels")
        if not 1 <= self.things[0] <= self.things[1] <= MOST:
            raise ValueError(f"things {self.things}: expected two rising numbers, 1 to {MOST}")
        if not 0 < self.scale[0] <= self.scale[1] <= 2:
            raise ValueError(f"scale {self.scale}: expected two rising numbers, above 0 to 2")
        if self.photographs + self.textured > 1:
            raise ValueError("photographs and textured are shares of the grounds: at most 1 in all")


@dataclass(frozen=True)
class Cutouts:
    """Cut-out pictures in memory, one after the other: 64 KiB each at 128 pixels."""

    pixels: np.ndarray  # (K, side, side, 4) uint8 RGBA, not multiplied by alpha
    names: tuple[str, ...]
    remarks: tuple[str, ...] = ()  # what is to be said of the set: pictures were left out

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def families(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of each name's variants: each family is drawn as often."""
        groups: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            groups.setdefault(family(name), []).append(i)
        return tuple(tuple(group) for group in groups.values())


@dataclass(frozen=True)
class Scene:
    """One picture, and which of its things each pixel shows."""

    pixels: Tensor  # (3, H, W) uint8
    shown: Tensor  # (H, W) uint8: the number of the object, from 1; 0 = none
    labels: tuple[str, ...]  # of each object; "" for a random shape
    groups: tuple[int, ...]  # of each object: those that touch, directly or not, have one number

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def masks(self) -> Tensor:
        """(N, H, W) bool: the visible part of each object."""
        return self.shown[None] == torch.arange(1, len(self) + 1)[:, None, None]

    @cached_property
    def boxes(self) -> Tensor:
        """(N, 4) float: left, top, right, bottom of each mask, the latter two exclusive."""
        return boxes_of(self.masks)

    def group(self, i: int) -> Tensor:
        """(H, W) bool: object ``i`` with all that touches it."""
        chosen = [k + 1 for k, number in enumerate(self.groups) if number == self.groups[i]]
        return torch.isin(self.shown, torch.tensor(chosen, dtype=torch.uint8))


def boxes_of(masks: Tensor) -> Tensor:
    """(N, H, W) bool, none empty -> (N, 4) float: left, top, right, bottom, exclusive."""
    found = []
    for axis in (1, 2):  # columns that are set, then rows
        line = masks.any(dim=axis).byte()
        found += [line.argmax(1), line.shape[1] - line.flip(1).argmax(1)]
    return torch.stack((found[0], found[2], found[1], found[3]), 1).float()


class Composer:
    """Scenes by number. Safe in several threads.

    Args:
        photographs: (M, 3, h, w) uint8, h and w at least ``options.size``; None = no photographs,
            textures in their place.
        seed: another one gives other scenes.

    Raises:
        ValueError: the photographs are smaller than a scene.
    """

    def __init__(
        self,
        cutouts: Cutouts,
        photographs: Tensor | None = None,
        options: SceneOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.cutouts, self.options, self.seed = cutouts, options or SceneOptions(), seed
        if photographs is not None and min(photographs.shape[-2:]) < self.options.size:
            raise ValueError(
                f"photographs of {tuple(photographs.shape[-2:])} under scenes of "
                f"{self.options.size}: expected at least that size"
            )
        self.photographs = None if photographs is None else photographs.permute(0, 2, 3, 1).numpy()

    @property
    def held(self) -> int:
        """Bytes of pictures in memory."""
        photographs = 0 if self.photographs is None else self.photographs.nbytes
        return self.cutouts.pixels.nbytes + photographs

    def scene(self, index: int) -> Scene:
        """Scene ``index``: always the same."""
        options, rng = self.options, np.random.default_rng((self.seed, index))
        size = options.size
        wide, high = self._sides(rng)
        picture = Image.fromarray(self._ground(size, rng)).crop((0, 0, wide, high))
        shown = np.zeros((high, wide), np.uint8)
        labels: list[str] = []
        links: list[set[int]] = []
        places: list[tuple[float, float]] = []
        for _ in range(int(rng.integers(options.things[0], options.things[1] + 1))):
            thing, label = self._thing(rng)
            x, y = self._place(places, thing, picture.size, rng)
            places.append((x, y))
            if rng.random() < options.shadow:
                _shadow(picture, thing, x, y, rng)
            links.append(_lay(picture, shown, thing, round(x), round(y), len(labels) + 1))
            labels.append(label)
        pixels = self._disturbed(picture, rng)
        return _scene(pixels, shown, labels, links, options.least_area)

    def _sides(self, rng: np.random.Generator) -> tuple[int, int]:
        """Width and height of a scene."""
        size, options = self.options.size, self.options
        shorter = round(size * rng.uniform(0.5, 1)) if rng.random() < options.oblong else size
        return (size, shorter) if rng.random() < 0.5 else (shorter, size)

    def _ground(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """(size, size, 3) uint8."""
        kind, options = rng.random(), self.options
        photographs = self.photographs
        if kind < options.photographs and photographs is not None:
            photo = photographs[int(rng.integers(len(photographs)))]
            whole = min(photo.shape[:2])
            side = int(rng.integers(size, whole + 1))
            top, left = (int(rng.integers(n - side + 1)) for n in photo.shape[:2])
            cut = photo[top : top + side, left : left + side]
            cut = cut[:, ::-1] if rng.random() < 0.5 else cut
            image = Image.fromarray(np.ascontiguousarray(cut))
            return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
        if kind < options.photographs + options.textured:
            return textures.texture(size, rng)
        return textures.plain(size, rng)

    def _thing(self, rng: np.random.Generator) -> tuple[Image.Image, str]:
        """One cut-out or shape as it is laid: RGBA, scaled, mirrored, turned."""
        options = self.options
        low, high = (share * options.size for share in options.scale)
        side = max(4, round(low * (high / low) ** rng.random()))
        if rng.random() < options.shapes:
            large = max(side, 8)
            alpha = Image.fromarray(textures.shape(large, rng))
            thing = Image.fromarray(self._filling(large, rng))
            thing.putalpha(alpha)
            label = ""
        else:
            group = self.cutouts.families[int(rng.integers(len(self.cutouts.families)))]
            number = group[int(rng.integers(len(group)))]
            thing = Image.fromarray(self.cutouts.pixels[number])
            label = self.cutouts.names[number]
            thing = thing.resize((side, side), Image.Resampling.BOX)
        if rng.random() < 0.5:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < options.turned:
            angle = rng.uniform(-180, 180) if rng.random() < 1 / 3 else rng.normal(0, 15)
            thing = thing.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        return thing, label

    def _filling(self, side: int, rng: np.random.Generator) -> np.ndarray:
        """A piece of a ground, as large as a shape."""
        size = self.options.size
        ground = self._ground(max(side, size), rng) if side > size else self._ground(size, rng)
        top, left = rng.integers(0, ground.shape[0] - side + 1, 2)
        return np.ascontiguousarray(ground[top : top + side, left : left + side])

    def _place(
        self,
        earlier: Sequence[tuple[float, float]],
        thing: Image.Image,
        room: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[float, float]:
        """Left and top: the middle of the thing lies within the picture, which is as large."""
        width, height = thing.size
        x, y = rng.uniform(0.05, 0.95, 2) * room - (width / 2, height / 2)
        if earlier and rng.random() < self.options.near:
            x, y = earlier[int(rng.integers(len(earlier)))] + rng.normal(0, 0.4, 2) * thing.size
            x = min(max(x, -width / 2), room[0] - width / 2)
            y = min(max(y, -height / 2), room[1] - height / 2)
        return float(x), float(y)

    def _disturbed(self, picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8."""
        options = self.options
        if rng.random() < options.light:
            for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                picture = kind(picture).enhance(float(rng.uniform(0.6, 1.4)))
        if rng.random() < options.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.2))))
        if rng.random() < options.noise:
            values = np.asarray(picture, np.float32)
            values = values + rng.standard_normal(values.shape, np.float32) * rng.uniform(2, 16)
            picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        if rng.random() < options.jpeg:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=int(rng.integers(30, 96)))
            picture = Image.open(file).convert("RGB")
        return np.array(picture)


def open_cutouts(path: Path | str, side: int = 128, aside: bool | None = None) -> Cutouts:
    """The cut-outs of a data set, squeezed to squares; a name is a caption, a class or a file's.

    Args:
        aside: True = those that are kept aside (``held_out.split``), False = the others,
            None = all.

    Raises:
        DataError: as ``open_data``; or none of them has transparency; or more than half of them
            are damaged.
    """
    found = open_data(path)
    names = [_name(found, i) for i in range(len(found))]
    chosen = range(len(found)) if aside is None else split(names)[aside]
    pixels, kept, lost = list[np.ndarray](), list[str](), list[str]()
    decoded = attempts(lambda data: squeezed_cut_out(data, side), found.raw(list(chosen)))
    for i, image in zip(chosen, decoded, strict=True):
        if image is None:
            lost.append(found.name(i))
        elif (image[..., 3] > 127).any() and (image[..., 3] < 128).any():
            pixels.append(image)
            kept.append(names[i])
    if not kept:
        which = {None: "", True: " that are kept aside", False: " to learn from"}[aside]
        raise DataError(f"{path}: no cut-outs{which}; expected pictures with transparency")
    return Cutouts(np.stack(pixels), tuple(kept), left_out(lost, len(chosen), found.where))


def open_grounds(
    paths: Iterable[Path | str], size: int, most: int = 2000, aside: bool = False
) -> Tensor | None:
    """(M, 3, size, size) uint8: photographs to compose upon, at most so many; None without paths.

    They stay in memory: 75 kB each at 158 pixels.

    Args:
        most: of all paths together, evenly from each.
        aside: those that training does not see (by their names), instead of those it does.

    Raises:
        DataError: as ``open_data``, or there are none on that side.
    """
    paths = tuple(paths)
    parts: list[Tensor] = []
    for path in paths:
        found = open_data(path)
        names = [found.name(i) for i in range(len(found))]
        numbers = torch.tensor(split(names, families=False)[aside])
        part = Part(found, numbers).spread(math.ceil(most / len(paths)))
        if not len(part):
            raise DataError(f"{path}: {len(found)} photographs, none on this side of the split")
        parts.append(part.hold(size)[0])
    return torch.cat(parts)[:most] if parts else None


def _name(found: Pictures, i: int) -> str:
    said = found.captions(i)
    if said:
        return said[0]
    if found.labels is not None and found.labels[i] >= 0:
        return found.classes[int(found.labels[i])].replace("_", " ")
    return Path(found.name(i)).stem


def _lay(
    picture: Image.Image, shown: np.ndarray, thing: Image.Image, x: int, y: int, number: int
) -> set[int]:
    """Lay a thing upon the picture and into ``shown``; returns the numbers it lies upon."""
    picture.paste(thing, (x, y), thing)
    solid = np.asarray(thing.getchannel("A")) > 127
    top, left = max(0, -y), max(0, -x)
    window = shown[max(0, y) : y + solid.shape[0], max(0, x) : x + solid.shape[1]]
    solid = solid[top : top + window.shape[0], left : left + window.shape[1]]
    below = {int(n) for n in np.unique(window[solid])} - {0}
    window[solid] = number
    return below


def _shadow(
    picture: Image.Image, thing: Image.Image, x: float, y: float, rng: np.random.Generator
) -> None:
    """Darken what lies behind a thing and a little aside."""
    soft = float(rng.uniform(0.5, 4))
    room = math.ceil(3 * soft)
    width, height = thing.size
    alpha = Image.new("L", (width + 2 * room, height + 2 * room))
    strength = rng.uniform(0.2, 0.7)
    table = [round(value * strength) for value in range(256)]
    alpha.paste(thing.getchannel("A").point(table), (room, room))
    alpha = alpha.filter(ImageFilter.GaussianBlur(soft))
    dx, dy = rng.uniform(-0.12, 0.12, 2) * thing.size
    picture.paste((0, 0, 0), (round(x + dx - room), round(y + dy - room)), alpha)


def _scene(
    pixels: np.ndarray,
    shown: np.ndarray,
    labels: Sequence[str],
    links: Sequence[set[int]],
    least: int,
) -> Scene:
    """Number anew what can be seen well enough; the largest stays in any case."""
    areas = np.bincount(shown.ravel(), minlength=len(labels) + 1)[1:]
    kept = [i for i, area in enumerate(areas) if area >= least] or [int(areas.argmax())]
    table = np.zeros(len(labels) + 1, np.uint8)
    table[[i + 1 for i in kept]] = np.arange(1, len(kept) + 1)
    group = list(range(len(labels)))
    for i, below in enumerate(links):
        for j in below:
            old, new = group[j - 1], group[i]
            group = [new if number == old else number for number in group]
    return Scene(
        torch.from_numpy(pixels).permute(2, 0, 1).contiguous(),
        torch.from_numpy(table[shown]),
        tuple(labels[i] for i in kept),
        tuple(group[i] for i in kept),
    )
