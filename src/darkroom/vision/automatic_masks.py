"""Masks of all there is in a picture: a grid of points, and of the answers those that are good.

The masks, and what they are filtered by, are those of segment-anything (Kirillov et al.,
arXiv:2304.02643, section 5 and appendix B). What is dropped by the model's own word is never
painted; what cannot be stable by its logits is never enlarged; what must wait for the others waits
as squeezed bits. So memory hardly grows with the points.

Shapes: H W height and width of the picture, h w of the logits.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.images import ImageLike, open_image
from darkroom.masks import Mask
from darkroom.masks.run_lengths import unpack
from darkroom.ops.enlarging import Enlarging
from darkroom.vision.mask_filters import (
    Box,
    crops,
    goes_on,
    grid,
    tidied,
    tight,
    without_duplicates,
)

if TYPE_CHECKING:
    from darkroom.vision.segment import Segmenter

__all__ = ["Automatic", "AutomaticMask", "automatic_masks"]

Form = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


@dataclass(frozen=True, kw_only=True)
class Automatic:
    """How to look for everything; the defaults are segment-anything's, meant for its ViT-H.

    Args:
        points_per_side: of the grid; 32 makes 1,024 prompts.
        points_per_batch: prompts that are decoded together.
        pred_iou: a mask is kept if the model thinks its IoU is above; 0 keeps all.
        stability: a mask is kept if its size at a stricter threshold is at least this share of
            that at a laxer one; 0 keeps all.
        offset: by how much those thresholds of logits lie above and below 0.
        nms: of masks of one crop whose boxes' IoU is above, the best stays.
        crop_layers: 0 = the picture alone; n = also 4, then 16 ... crops of it, n times.
        crop_nms: as ``nms`` between crops, where the mask of the smaller crop stays.
        crop_overlap: of the first layer's crops, over the shorter side of the picture.
        crop_downscale: by how much a layer has fewer points a side than the one before.
        min_area: pixels below which holes are filled and islands dropped; 0 = none.

    Raises:
        ValueError: a number out of its range, or a layer without points.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou: float = 0.88
    stability: float = 0.95
    offset: float = 1.0
    nms: float = 0.7
    crop_layers: int = 0
    crop_nms: float = 0.7
    crop_overlap: float = 512 / 1500
    crop_downscale: int = 1
    min_area: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("points_per_side", 1, 1024),
            ("points_per_batch", 1, 1024**2),
            ("pred_iou", 0, 1),
            ("stability", 0, 1),
            ("offset", 0, 1e9),
            ("nms", 0, 1),
            ("crop_layers", 0, 6),
            ("crop_nms", 0, 1),
            ("crop_overlap", 0, 0.99),
            ("crop_downscale", 1, 1024),
            ("min_area", 0, 2**62),
        ):
            value = getattr(self, name)
            if not low <= value <= high:  # NaN is neither
                raise ValueError(f"{name} of {value}; expected {low} to {high}")
        if not self.side(self.crop_layers):
            raise ValueError(
                f"layer {self.crop_layers} of the crops has no points: {self.points_per_side} a "
                f"side, divided by {self.crop_downscale}**{self.crop_layers}; use fewer layers"
            )

    def side(self, layer: int) -> int:
        """Points of a side in a crop of that layer."""
        return int(self.points_per_side / self.crop_downscale**layer)


@dataclass(frozen=True, eq=False)
class AutomaticMask:
    """One thing that was found.

    Args:
        mask: with the IoU that the model expects as its score.
        point: (x, y) that it was found from, in pixels of the picture.
        stability: its size at a stricter threshold over that at a laxer one.
        box: left, top, right, bottom, the last two the last pixels inside.
        crop: likewise, the last two just outside: the part of the picture that was looked at.
    """

    mask: Mask
    point: tuple[float, float]
    stability: float
    box: Box
    crop: Box

    def fields(self, form: Form = "binary_mask") -> dict[str, Any]:
        """What segment-anything's generator gives, by its names; boxes are x, y, width, height."""
        segmentation: Any = self.mask.values if form == "binary_mask" else self.mask.rle()
        if form == "uncompressed_rle":
            segmentation["counts"] = unpack(segmentation["counts"].encode())
        return {
            "segmentation": segmentation,
            "area": int(self.mask.area),
            "bbox": _sides(self.box),
            "predicted_iou": self.mask.score,
            "point_coords": [list(self.point)],
            "stability_score": self.stability,
            "crop_box": _sides(self.crop),
        }


def automatic_masks(
    segmenter: "Segmenter", image: ImageLike, options: Automatic = Automatic()
) -> Iterator[AutomaticMask]:
    """Look for everything in a picture.

    Which masks are duplicates is known when all points were asked, so the first comes then; the
    pixels of each are made when it is taken.

    Yields:
        Masks, the best first (with several crops those of small crops first, with ``min_area``
        those that it did not change).

    Raises:
        ImageError: the picture cannot be read.
    """
    picture = open_image(image)
    size = (picture.height, picture.width)
    found: list[_Candidate] = []
    parts = crops(size, options.crop_layers, options.crop_overlap)
    for layer, crop in parts:
        found += _best(_in_crop(segmenter, picture, layer, crop, options), options.nms)
    if len(parts) > 1:
        found = _best(found, options.crop_nms, [1 / c.crop_area for c in found])
    if options.min_area:
        tidy = [c.tidied(size, options.min_area) for c in found]
        found = _best(
            [candidate for candidate, _ in tidy],
            max(options.nms, options.crop_nms),
            [0.0 if changed else 1.0 for _, changed in tidy],
        )
    for candidate in found:
        yield candidate.finished(size, segmenter.name)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A mask before duplicates are dropped: its box, and the bits in it."""

    box: Box
    bits: bytes  # of the box, row by row, eight to a byte, squeezed
    iou: float
    stability: float
    point: tuple[float, float]
    crop: Box

    @classmethod
    def of(cls, values: np.ndarray, corner: tuple[int, int], **others: Any) -> "_Candidate":
        """From pixels (H', W') whose first is at ``corner``, x and y."""
        box = tight(values)
        if box is None:
            left, top = others["crop"][:2]
            return cls((left, top, left, top), _squeezed(np.zeros(1, bool)), **others)
        left, top, right, bottom = box
        x, y = corner
        bits = _squeezed(values[top : bottom + 1, left : right + 1])
        return cls((left + x, top + y, right + x, bottom + y), bits, **others)

    @property
    def crop_area(self) -> int:
        left, top, right, bottom = self.crop
        return (right - left) * (bottom - top)

    def values(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool."""
        left, top, right, bottom = self.box
        height, width = bottom + 1 - top, right + 1 - left
        values = np.zeros(size, bool)
        packed = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        inside = np.unpackbits(packed, count=height * width).view(bool)
        values[top : bottom + 1, left : right + 1] = inside.reshape(height, width)
        return values

    def tidied(self, size: tuple[int, int], least: int) -> tuple["_Candidate", bool]:
        """Without small holes and islands, and whether there were any."""
        values, changed = tidied(self.values(size), least)
        if not changed:
            return self, False
        others = {"iou": self.iou, "stability": self.stability, "point": self.point}
        return _Candidate.of(values, (0, 0), crop=self.crop, **others), True

    def finished(self, size: tuple[int, int], name: str) -> AutomaticMask:
        source = f"{name}: point {self.point[0]:g},{self.point[1]:g}"
        mask = Mask(self.values(size), score=self.iou, source=source)
        return AutomaticMask(mask, self.point, self.stability, self.box, self.crop)


def _best(
    found: list[_Candidate], overlap: float, scores: list[float] | None = None
) -> list[_Candidate]:
    """Without duplicates, those of the highest scores first; None = the IoU expected."""
    boxes = np.array([c.box for c in found], np.float32).reshape(-1, 4)
    scores = [c.iou for c in found] if scores is None else scores
    return [found[i] for i in without_duplicates(boxes, np.array(scores), overlap)]


@torch.no_grad()
def _in_crop(
    segmenter: "Segmenter", picture: Image.Image, layer: int, crop: Box, options: Automatic
) -> list[_Candidate]:
    """The good masks of one crop, duplicates among them."""
    model, size = segmenter.model, (picture.height, picture.width)
    encoded = segmenter.encode(picture.crop(crop))
    height, width = encoded.size
    unit = grid(options.side(layer))
    points = unit * (width, height)  # in pixels of the crop
    seen = points * (encoded.scaled[1] / width, encoded.scaled[0] / height)  # as the model sees it
    features = encoded.features + model.prompt_encoder.dense()
    places = model.prompt_encoder.places()
    low = 4 * model.config.grid
    enlarging = Enlarging.between((low, low), model.config.size, encoded.scaled, encoded.size)
    least = options.pred_iou if options.pred_iou > 0 else -np.inf
    found: list[_Candidate] = []
    for start in range(0, len(points), options.points_per_batch):
        some = torch.from_numpy(seen[start : start + options.points_per_batch])
        prompts = model.prompt_encoder.tokens(
            some[:, None].to(features), torch.ones(len(some), 1, device=features.device)
        )
        answers = model.mask_decoder.above(features, places, prompts, slice(1, None), least)
        for p, ious, logits in answers:
            x, y = points[start + p]
            for iou, one in zip(ious.tolist(), logits.float().cpu(), strict=True):
                enough = _stable(one, enlarging, options)
                if enough is None:
                    continue
                stability, corner, values = enough
                candidate = _Candidate.of(
                    values,
                    (corner[0] + crop[0], corner[1] + crop[1]),
                    iou=iou,
                    stability=stability,
                    point=(float(x) + crop[0], float(y) + crop[1]),
                    crop=crop,
                )
                if not goes_on(candidate.box, crop, size):
                    found.append(candidate)
    return found


def _stable(
    logits: Tensor, enlarging: Enlarging, options: Automatic
) -> tuple[float, tuple[int, int], np.ndarray] | None:
    """Stability, corner (x, y) and pixels of a mask, cut to where it may be; None = not stable."""
    offset, least = options.offset, np.float32(options.stability)
    window = enlarging.window(logits, -offset)
    if window is None:
        return None if least > 0 else (float("nan"), (0, 0), np.zeros((1, 1), bool))
    if least > 0:
        strict, lax = enlarging.counts(logits, offset)[1], enlarging.counts(logits, -offset)[0]
        if strict < least * lax:  # at most, and at least
            return None
    left, top, right, bottom = window
    values = np.zeros((bottom - top, right - left), bool)
    strict = lax = row = 0
    for band in enlarging.bands(logits, window):
        numbers = band.numpy()
        strict += np.count_nonzero(numbers > offset)
        lax += np.count_nonzero(numbers > -offset)
        np.greater(numbers, 0, out=values[row : row + len(numbers)])
        row += len(numbers)
    stability = np.float32(strict) / np.float32(lax) if lax else np.float32("nan")
    if least > 0 and not stability >= least:
        return None
    return float(stability), (left, top), values


def _squeezed(values: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(values).tobytes(), level=1)


def _sides(box: Box) -> list[int]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]
