"""Darkroom's one type for a mask: what segments is what inpaints, tracks and exports.

Shapes: H height, W width.
"""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from darkroom.errors import DataError, ImageError
from darkroom.images import MAX_PIXELS, ImageLike, open_image, peek

if TYPE_CHECKING:
    from torch import Tensor

Colour = tuple[int, int, int]

__all__ = ["Colour", "Mask", "colours", "open_mask", "overlay"]


@dataclass(frozen=True, eq=False)
class Mask:
    """Which pixels belong to something: (H, W) of bool, or "soft", of float32 in [0, 1].

    What changes one mask keeps its score, source and label; what combines two, or turns one
    inside out, drops them.

    Args:
        score: how sure what made it was: a predicted IoU, a confidence; None where unknown.
        source: what made it, from what: "emoji-sam: point 500,375".
        label: the name of its class, or the words it was asked for by.

    Raises:
        ValueError: for another shape or type, or values outside of [0, 1].
    """

    values: np.ndarray
    score: float | None = None
    source: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2:
            raise ValueError(f"a mask is (H, W), got shape {values.shape}")
        if values.dtype.kind == "f":
            values = values.astype(np.float32, copy=False)
            if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
                raise ValueError("a soft mask lies in [0, 1]; use a threshold for logits")
        elif values.dtype.kind != "b":
            raise ValueError(f"a mask is bool or float, got {values.dtype}; compare it with 0")
        object.__setattr__(self, "values", values)

    @classmethod
    def from_tensor(cls, tensor: "Tensor") -> "Mask":
        """From (H, W), or with leading dimensions of 1; bool or float."""
        plain = tensor.detach().cpu()
        while plain.ndim > 2 and len(plain) == 1:
            plain = plain[0]
        return cls((plain.float() if plain.is_floating_point() else plain).numpy())

    @classmethod
    def from_image(cls, picture: Image.Image) -> "Mask":
        """White is inside, black outside, grey soft.

        Where any of the picture is transparent, its opacity counts instead: what is opaque is
        inside, whatever its colour.
        """
        if picture.mode == "1" and not picture.has_transparency_data:
            return cls(np.array(picture))
        if picture.has_transparency_data:
            alpha = picture.convert("RGBA").getchannel("A")
            picture = alpha if alpha.getextrema() != (255, 255) else picture.convert("RGB")
        values = np.asarray(picture.convert("L"))
        if np.isin(values, (0, 255)).all():
            return cls(values > 0)
        return cls(values.astype(np.float32) / 255)

    @classmethod
    def from_classes(cls, classes: "np.ndarray | Tensor", index: int) -> "Mask":
        """The pixels of class ``index`` in a map (H, W) of class numbers."""
        return cls(np.asarray(classes) == index)

    @classmethod
    def from_rle(cls, rle: Mapping[str, Any]) -> "Mask":
        """From COCO's run lengths: ``{"size": [H, W], "counts": text, bytes or list}``.

        Raises:
            DataError: the runs are damaged, or do not fill the size.
        """
        try:
            height, width = (int(length) for length in rle["size"])
            counts = rle["counts"]
            text = counts.encode() if isinstance(counts, str) else counts
            runs = _runs(text) if isinstance(text, bytes) else [int(run) for run in text]
        except (KeyError, TypeError, ValueError, UnicodeEncodeError) as error:
            raise DataError(f"not COCO run lengths ({error!r}); expected size and counts") from None
        if height < 0 or width < 0 or height * width > MAX_PIXELS:
            raise DataError(f"run lengths of size {height}x{width}; at most {MAX_PIXELS} pixels")
        if any(run < 0 for run in runs) or sum(runs) != height * width:
            raise DataError(f"run lengths that do not fill their size {height}x{width}")
        inside = np.arange(len(runs)) % 2 == 1
        return cls(np.repeat(inside, runs).reshape(width, height).T)

    def rle(self) -> dict[str, Any]:
        """COCO's compressed run lengths, ready for JSON; a soft mask is cut at one half."""
        flat = self.binary().values.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=False)) if flat.size else np.array([], int)
        runs = np.diff(edges, prepend=0, append=flat.size)  # the first run is of zeros
        return {"size": list(self.values.shape), "counts": _text(runs.tolist())}

    def image(self) -> Image.Image:
        """A greyscale picture, white inside."""
        return Image.fromarray((self.values * np.float32(255)).round().astype(np.uint8))

    def tensor(self) -> "Tensor":
        """(H, W) float32 in [0, 1], in memory of its own."""
        import torch

        return torch.from_numpy(self.values.astype(np.float32))

    @property
    def height(self) -> int:
        """In pixels."""
        return self.values.shape[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.values.shape[1]

    @property
    def soft(self) -> bool:
        """Whether pixels may belong in part."""
        return self.values.dtype != bool

    @property
    def area(self) -> float:
        """Pixels inside; of a soft mask the sum of its values."""
        return float(self.values.sum(dtype=np.float64))

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom) of all that is above 0, the last two just outside, as PIL's.

        None for an empty mask.
        """
        columns, rows = (np.flatnonzero((self.values > 0).any(axis=axis)) for axis in (0, 1))
        if not len(rows):
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def binary(self, threshold: float = 0.5) -> "Mask":
        """Inside is what lies above ``threshold``."""
        return replace(self, values=self.values > threshold) if self.soft else self

    def __or__(self, other: "Mask") -> "Mask":
        """Union; of soft masks the larger value."""
        return Mask(np.maximum(*self._both(other)))

    def __and__(self, other: "Mask") -> "Mask":
        """Intersection; of soft masks the smaller value."""
        return Mask(np.minimum(*self._both(other)))

    def __sub__(self, other: "Mask") -> "Mask":
        """What of it is not in the other."""
        return self & ~other

    def __invert__(self) -> "Mask":
        """What is outside."""
        return Mask(1 - self.values if self.soft else ~self.values)

    def grow(self, pixels: int) -> "Mask":
        """Larger by ``pixels`` in every direction, corners too; below 0 smaller.

        What lies beyond the picture's edges counts as what lies at them.
        """
        values = self.values
        for _ in range(abs(pixels)):
            values = _spread(values, np.maximum if pixels > 0 else np.minimum)
        return replace(self, values=values)

    def feather(self, pixels: int, outwards: bool = False) -> "Mask":
        """Soft at its edge: over ``pixels`` pixels it falls evenly to 0.

        Args:
            outwards: it falls on the outside, the mask itself stays; else on the inside, and what
                was outside stays so.

        Raises:
            ValueError: fewer than 0 pixels.
        """
        if pixels < 0:
            raise ValueError(f"feather of {pixels} pixels: expected 0 or more")
        if pixels == 0:
            return self
        inside = self.values.astype(np.float32)
        spread = np.maximum if outwards else np.minimum
        total = values = inside
        for _ in range(pixels):
            values = _spread(values, spread)
            total = total + values
        return replace(self, values=(total / np.float32(pixels + 1)).clip(0, 1))

    def iou(self, other: "Mask") -> float:
        """Area of the intersection over that of the union; 0 where both are empty."""
        union = (self | other).area
        return (self & other).area / union if union else 0.0

    def _both(self, other: "Mask") -> tuple[np.ndarray, np.ndarray]:
        if self.values.shape != other.values.shape:
            raise ValueError(
                f"masks of {self.values.shape} and {other.values.shape} cannot be combined"
            )
        return self.values, other.values


def open_mask(source: "Mask | ImageLike") -> Mask:
    """The mask in a picture, upright: see ``Mask.from_image``.

    Raises:
        ImageError: as ``open_image``.
    """
    if isinstance(source, Mask):
        return source
    picture = peek(source)
    if not picture.has_transparency_data:
        return Mask.from_image(open_image(source))
    try:
        return Mask.from_image(ImageOps.exif_transpose(picture))
    except Exception:
        open_image(source)  # says what is wrong
        raise ImageError("the mask cannot be read; save it again as a PNG file") from None


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
        share = (alpha * mask.values)[..., None]
        pixels = pixels * (1 - share) + np.array(tint, np.float32) * share
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def colours(count: int) -> list[Colour]:
    """Colours far apart: hues a golden section further each time."""
    turns = (i * 0.618034 % 1 for i in range(count))
    bright = (colorsys.hsv_to_rgb(turn, 0.75, 1.0) for turn in turns)
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in bright]


def _spread(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """Of each pixel and its eight neighbours the largest or the smallest."""
    for axis in (0, 1):
        near = np.moveaxis(values, axis, 0)
        found = near.copy()
        found[1:] = pick(found[1:], near[:-1])
        found[:-1] = pick(found[:-1], near[1:])
        values = np.moveaxis(found, 0, axis)
    return values


def _text(runs: Sequence[int]) -> str:
    """COCO's packing: from the fourth on, a run's difference to the last but one of its kind.

    Numbers go in groups of five bits, lowest first; bit 5 says that more follow, bit 4 of the
    last one is the sign; 48 makes each printable.
    """
    text = []
    for i, run in enumerate(runs):
        rest, more = run - runs[i - 2] if i > 2 else run, True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return "".join(text)


def _runs(text: bytes) -> list[int]:
    """The inverse of ``_text``.

    Raises:
        ValueError: the text is cut off, or has other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        if not 48 <= byte < 112 or shift > 60:
            raise ValueError(f"{chr(byte)!r} in the counts")
        value |= (byte - 48 & 31) << shift
        shift += 5
        if byte - 48 & 32:
            continue
        if byte - 48 & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the counts are cut off")
    return runs
