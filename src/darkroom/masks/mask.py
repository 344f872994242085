"""The mask itself."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from darkroom import arrays
from darkroom.errors import DataError, ImageError
from darkroom.images import MAX_PIXELS, ImageLike, held, open_image, peek
from darkroom.masks.outlines import Polygon, fill, outlines
from darkroom.masks.regions import drop_small, find_regions
from darkroom.masks.run_lengths import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mask", "open_mask"]

SHOWN = 512  # pixels of a side, in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """Which pixels belong to something: (H, W) of bool, or "soft", of float32 in [0, 1].

    Arrays, tensors and pictures become that as ``open_mask`` says. ``np.asarray(mask)`` and
    ``torch.as_tensor(mask)`` give the values back.

    What changes one mask keeps its score, source and label; what combines two, or turns one
    inside out, drops them.

    Args:
        score: how sure what made it was: a predicted IoU, a confidence; None where unknown.
        source: what made it, from what: "emoji-sam: point 500,375".
        label: the name of its class, or the words it was asked for by.

    Raises:
        ArrayError: for another shape or type, or values outside of [0, 1]; it is a ValueError.
        ImageError: for a picture that cannot be read.
    """

    values: np.ndarray
    score: float | None = None
    source: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype != bool:
            values = _values(values)
        object.__setattr__(self, "values", values)

    @classmethod
    def from_tensor(cls, tensor: "Tensor") -> "Mask":
        """From (H, W), or with dimensions of 1 around; as ``Mask(tensor)``."""
        return cls(arrays.mask_values(tensor))

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
        return cls(arrays.numbers("the map of classes", classes) == index)

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
            runs = unpack(text) if isinstance(text, bytes) else [int(run) for run in text]
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
        return {"size": list(self.values.shape), "counts": pack(runs.tolist())}

    @classmethod
    def from_polygons(cls, polygons: Sequence[Polygon], size: tuple[int, int]) -> "Mask":
        """The pixels of ``size`` (height, width) whose centre lies in one of the polygons.

        Args:
            polygons: of rings (N, 2) of (x, y): an outline and its holes; pixel (0, 0) reaches
                from (0, 0) to (1, 1), as in COCO. What is outside of the picture is cut off.

        Raises:
            DataError: a ring is not (N, 2) numbers, or the size is too large.
        """
        height, width = size
        if height < 0 or width < 0 or height * width > MAX_PIXELS:
            raise DataError(
                f"polygons in a picture of {width}x{height}; at most {MAX_PIXELS} pixels"
            )
        for ring in (ring for polygon in polygons for ring in polygon):
            points = np.asarray(ring)
            if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
                raise DataError(f"a ring of shape {points.shape}; expected (N, 2) finite numbers")
        return cls(fill(polygons, size))

    def polygons(self, tolerance: float = 0.0, least: float = 0.99) -> list[Polygon]:
        """The outline of each region with its holes; a soft mask is cut at one half.

        Args:
            tolerance: 0 follows the edges of the pixels exactly; above it lines may pass this
                many pixels from them, so there are fewer points.
            least: the tolerance is halved until polygons and mask overlap by this IoU.
        """
        return outlines(self.binary().values, tolerance, least)

    def image(self) -> Image.Image:
        """A greyscale picture, white inside."""
        return Image.fromarray((self.values * np.float32(255)).round().astype(np.uint8))

    def to_image(self) -> Image.Image:
        """As ``image``: a mask can stand where a picture can."""
        return self.image()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """(H, W) of bool, or of float32 where it is soft, in memory of its own."""
        if copy is False:
            raise ValueError("a mask gives its values in a copy; leave copy=False out")
        return self.values.astype(self.values.dtype if dtype is None else dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """For ``torch.as_tensor`` and the like, as ``__array__``."""
        return self.__array__().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU

    def __repr__(self) -> str:
        said = [f"{self.width}x{self.height}", f"area={self.area:g}"]
        said += [f"score={self.score:.3f}"] if self.score is not None else []
        said += [repr(word) for word in (self.label, self.source) if word]
        return f"Mask({', '.join(said)})"

    def _repr_png_(self) -> bytes | None:
        """How a notebook shows it: white inside, at most ``SHOWN`` pixels a side."""
        if not self.values.size:
            return None
        shown, file = self.image(), io.BytesIO()
        shown.thumbnail((SHOWN, SHOWN))
        shown.save(file, "PNG")
        return file.getvalue()

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
        inside = self.values > 0 if self.soft else self.values
        columns, rows = (np.flatnonzero(inside.any(axis=axis)) for axis in (0, 1))
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

    def components(self) -> "list[Mask]":
        """Its connected regions (corners connect), the largest first; cut at one half."""
        regions = find_regions(self.binary().values)
        order = np.argsort(-regions.areas, kind="stable")
        numbers = np.arange(len(regions))
        return [replace(self, values=regions.where(numbers == i)) for i in order]

    def drop_islands(self, below: float) -> "Mask":
        """Without its regions of fewer than ``below`` pixels; if all are, the largest stays.

        Corners connect; a soft mask is cut at one half.
        """
        return replace(self, values=drop_small(self.binary().values, below))

    def fill_holes(self, largest: float | None = None) -> "Mask":
        """With the holes inside of it filled: what is outside, but not up to the picture's edge.

        A soft mask is cut at one half.

        Args:
            largest: leave those of more pixels; None fills all.
        """
        values = self.binary().values
        outside = find_regions(~values, corners=False)
        holes = ~outside.at_edge()
        if largest is not None:
            holes &= outside.areas <= largest
        return replace(self, values=values | outside.where(holes))

    def iou(self, other: "Mask") -> float:
        """Area of the intersection over that of the union; 0 where both are empty."""
        union = (self | other).area
        return (self & other).area / union if union else 0.0

    def _both(self, other: "Mask") -> tuple[np.ndarray, np.ndarray]:
        other = open_mask(other)
        if self.values.shape != other.values.shape:
            raise ValueError(
                f"masks of {self.values.shape} and {other.values.shape} cannot be combined"
            )
        return self.values, other.values


def open_mask(source: "Mask | ImageLike") -> Mask:
    """The mask in a picture, upright: see ``Mask.from_image``; or in an array or tensor.

    Of an array (H, W) True or 1 is inside: bool, floats of 0 to 1, uint8 up to 255, or whole
    numbers 0 and 1. One of uint8 with channels last is a picture.

    Raises:
        ImageError: as ``open_image``.
        ArrayError: an array that is no mask.
    """
    return source if isinstance(source, Mask) else Mask(_values(source))


def _values(source: Any) -> np.ndarray:
    """(H, W) of bool, or of float32 in [0, 1]."""
    if isinstance(source, Mask):
        return source.values
    if arrays.is_array(source) and not isinstance(source, arrays.Drawable | Image.Image):
        shape = tuple(getattr(source, "shape", ()))
        coloured = len(shape) == 3 and shape[2] in (3, 4) and "uint8" in str(source.dtype)
        if not coloured:
            return arrays.mask_values(source)
    return _drawn(held(source)).values


def _drawn(source: "ImageLike") -> Mask:
    picture = peek(source)
    if not picture.has_transparency_data:
        return Mask.from_image(open_image(source))
    try:
        return Mask.from_image(ImageOps.exif_transpose(picture))
    except Exception:
        open_image(source)  # says what is wrong
        raise ImageError("the mask cannot be read; save it again as a PNG file") from None


def _spread(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """Of each pixel and its eight neighbours the largest or the smallest."""
    for axis in (0, 1):
        near = np.moveaxis(values, axis, 0)
        found = near.copy()
        found[1:] = pick(found[1:], near[:-1])
        found[:-1] = pick(found[:-1], near[1:])
        values = np.moveaxis(found, 0, axis)
    return values
