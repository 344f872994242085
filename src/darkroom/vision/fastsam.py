"""Every object of a picture at once, by FastSAM; points and boxes then choose among them.

    segmenter = open_segmenter("FastSAM-s.pt")
    masks = list(segmenter.everything("cat.jpg"))
    encoded = segmenter.encode("cat.jpg")
    (mask,) = segmenter.masks(encoded, Prompt(points=((500, 375),), inside=(True,))).best()

Zhao et al., Fast Segment Anything (arXiv:2306.12156), section 3. Boxes and masks have been compared
with Ultralytics' 8.4.190. Shapes: M objects, best first, K prototypes, H W a picture's height and
width, h w those of what the network sees.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.arguments import shown
from darkroom.errors import ArgumentError
from darkroom.images import ImageLike, open_image
from darkroom.keywords import explained, instead
from darkroom.masks import Mask
from darkroom.models.fastsam.network import PROTOTYPE_STRIDE, FastSAM, mask_logits
from darkroom.vision.letterbox import Letterbox
from darkroom.vision.mask_filters import without_duplicates
from darkroom.vision.segment import Prompt, check_inside, prompts_of

if TYPE_CHECKING:
    from darkroom.vision.automatic_masks import Automatic

__all__ = ["ChosenMasks", "FastSegmenter", "Instances"]

BORDER = 20  # pixels of the picture: an edge of a box that is nearer to the border lies on it
WHOLE = 0.9  # a box that overlaps the picture more than so much is the picture


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects that the network found in a picture; their masks are made on demand."""

    fit: Letterbox
    found: Tensor  # (M, 4): left, top, right, bottom in what the network saw
    scores: Tensor  # (M,): 0 to 1
    classes: Tensor  # (M,): the most likely one; 0 where there is but one
    coefficients: Tensor  # (M, K)
    prototypes: Tensor  # (K, h / 4, w / 4)
    retina: bool = True

    def __len__(self) -> int:
        return len(self.found)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.fit.size

    @cached_property
    def cuts(self) -> Tensor:
        """(M, 4): the boxes in pixels of the picture; no mask reaches beyond its own."""
        return self.fit.back(self.found)

    @cached_property
    def boxes(self) -> Tensor:
        """(M, 4): the boxes as FastSAM tells them, drawn to the picture's border where it is near.

        Masks do not change by it.
        """
        height, width = self.size
        end = self.cuts.new_tensor((width, height))
        start, stop = self.cuts[:, :2], self.cuts[:, 2:]
        start = torch.where(start < BORDER, torch.zeros_like(start), start)
        stop = torch.where(stop > end - BORDER, end, stop)
        share = (stop - start).prod(dim=1, keepdim=True) / end.prod()
        whole = torch.cat((torch.zeros_like(end), end))
        return torch.where(share > WHOLE, whole, torch.cat((start, stop), dim=1))

    def values(self, index: int) -> np.ndarray:
        """One mask (H, W), bool.

        With ``retina`` its edges are as fine as the picture; else they are those at the network's
        resolution, each pixel enlarged.
        """
        if self.retina:
            return self._fine(index).cpu().numpy()
        above, left = self.fit.offset
        height, width = self.fit.scaled
        seen = self.plain(index)[above : above + height, left : left + width]
        made = F.interpolate(seen[None, None].to(torch.uint8), self.size, mode="nearest-exact")
        return made[0, 0].bool().cpu().numpy()

    def plain(self, index: int) -> Tensor:
        """One mask at the network's resolution (h, w), filling included: bool."""
        low = mask_logits(self.coefficients[index][None], self.prototypes)[None]
        full = F.interpolate(low, self.fit.seen, mode="bilinear")[0, 0] > 0
        rows, columns = _covered(self.found[index], self.fit.seen)
        cut = torch.zeros_like(full)
        cut[rows, columns] = full[rows, columns]
        return cut

    def _fine(self, index: int) -> Tensor:
        """(H, W), bool: only what lies in the box is computed."""
        full = torch.zeros(self.size, dtype=torch.bool, device=self.found.device)
        rows, columns = _covered(self.cuts[index], self.size)
        down, across = self._enlarging[0][rows], self._enlarging[1][columns]
        if not (len(down) and len(across)):
            return full
        near, beside = _needed(down), _needed(across)
        low = torch.tensordot(self.coefficients[index], self.prototypes[:, near, beside], 1)
        full[rows, columns] = down[:, near] @ low @ across[:, beside].T > 0
        return full

    @cached_property
    def _enlarging(self) -> tuple[Tensor, Tensor]:
        """(H, h / 4) and (W, w / 4): how rows and columns of the prototypes make the picture's.

        The filling is cut off at the least resolution, 1/4, 1/2 or all of the network's, at which
        it is whole pixels; both steps are bilinear, so linear along each axis.
        """
        starts, lengths = self.fit.offset, self.fit.scaled
        shared = math.gcd(PROTOTYPE_STRIDE, *starts, *lengths)
        times = PROTOTYPE_STRIDE // shared
        made: list[Tensor] = []
        for axis, low in enumerate(self.prototypes.shape[1:]):
            first, count = starts[axis] // shared, lengths[axis] // shared
            whole = torch.eye(low, device=self.found.device)[None]
            if times > 1:
                whole = F.interpolate(whole, low * times, mode="linear")
            cut = F.interpolate(whole[..., first : first + count], self.size[axis], mode="linear")
            made.append(cut[0].T.contiguous())
        return made[0], made[1]


@dataclass(frozen=True, eq=False)
class ChosenMasks:
    """Answers to prompts: of each the masks, best first."""

    found: tuple[tuple[Mask, ...], ...]

    def __len__(self) -> int:
        return len(self.found)

    def of(self, prompt: int) -> list[Mask]:
        """The candidates for one prompt, best first."""
        return list(self.found[prompt])

    def best(self) -> list[Mask]:
        """The best candidate for each prompt; an empty one, of score 0, where nothing was there."""
        return [masks[0] for masks in self.found]

    @property
    def scores(self) -> list[list[float]]:
        """The network's confidence in each mask, as ``of`` orders them."""
        return [[mask.score or 0.0 for mask in masks] for masks in self.found]


@dataclass(frozen=True)
class FastSegmenter:
    """FastSAM, with how pictures are brought to it and what of its answer is kept.

    Args:
        longest: pixels of a picture's longer side when the network sees it, a multiple of 32;
            None = what the network was trained at.
        confidence: an object is kept if its score is above.
        overlap: of objects whose boxes' IoU is above, the best stays.
        most: so many objects at most.
        retina: masks as fine as the picture, not as what the network sees.
    """

    model: FastSAM
    name: str = "fastsam"
    longest: int | None = None
    confidence: float = 0.4
    overlap: float = 0.9
    most: int = 300
    retina: bool = True

    @explained
    @torch.no_grad()
    def encode(self, image: ImageLike) -> Instances:
        """Find the objects of a picture.

        Raises:
            ImageError: it cannot be read.
            ArgumentError: ``longest`` is no multiple of 32.
        """
        picture = open_image(image)
        fit = Letterbox.of((picture.height, picture.width), self.longest or self.model.config.size)
        parameter = next(self.model.parameters())
        pixels = fit.see(np.asarray(picture)).to(parameter.device, parameter.dtype) / 255
        boxes, scores, coefficients, prototypes = self.model.decode(self.model(pixels))
        best, classes = scores[0].max(dim=1)
        sure = (best > self.confidence).nonzero()[:, 0]
        kept = without_duplicates(
            boxes[0, sure].float().cpu().numpy(),
            best[sure].float().cpu().numpy(),
            self.overlap,
            self.most,
        )
        chosen = sure[torch.from_numpy(kept).to(sure.device)]
        return Instances(
            fit,
            boxes[0, chosen].float(),
            best[chosen].float(),
            classes[chosen],
            coefficients[0, chosen].float(),
            prototypes[0].float(),
            self.retina,
        )

    def everything(self, image: ImageLike, options: "Automatic | None" = None) -> Iterator[Mask]:
        """A mask of each object, surest first.

        Args:
            options: of these, only ``min_area`` concerns a network that asks no points: masks of
                fewer pixels are dropped.

        Raises:
            ImageError: the picture cannot be read.
        """
        encoded = self.encode(image)
        least = 1 if options is None else max(options.min_area, 1)
        for index in range(len(encoded)):
            values = encoded.values(index)
            if np.count_nonzero(values) >= least:
                yield self._mask(encoded, index, values, f"{self.name}: everything")

    @explained
    def masks(
        self, encoded: Instances, prompts: Prompt | Sequence[Prompt], candidates: int = 3
    ) -> ChosenMasks:
        """Choose among the objects that were found.

        Points: the best answer is all objects that hold a point of the inside, less those that hold
        one of the background; an object that holds both is taken only where no other holds the
        former. With background points alone it is everything else. After it come those objects
        one by one, surest first.

        A box: the objects whose mask overlaps it most, by IoU. With points, those first that hold
        every inside point and no other.

        Args:
            candidates: 1 = one mask for each prompt; 3 = up to three.

        Raises:
            ArgumentError: no prompts, a point or box outside of the picture, a mask as a prompt, or
                another number of candidates.
        """
        if not isinstance(encoded, Instances):
            raise ArgumentError(
                f"{shown(encoded)} is no encoded picture: say segmenter.encode(image) first"
            )
        prompts = prompts_of(prompts)
        if candidates not in (1, 3):
            raise ArgumentError(f"candidates = {candidates}; expected 1 or 3")
        answers: list[tuple[Mask, ...]] = []
        for prompt in prompts:
            check_inside(prompt, encoded.size)
            if prompt.mask is not None:
                raise ArgumentError("FastSAM takes points and boxes; a mask as a prompt needs SAM")
            found = self._by_points if prompt.box is None else self._by_box
            masks = list(found(encoded, prompt))[:candidates]
            empty = Mask(np.zeros(encoded.size, bool), 0.0, f"{self.name}: {prompt}")
            answers.append(tuple(masks) or (empty,))
        return ChosenMasks(tuple(answers))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(instead("a segmenter", name))

    def _by_points(self, encoded: Instances, prompt: Prompt) -> Iterator[Mask]:
        source = f"{self.name}: {prompt}"
        inside, outside = _sides(prompt)
        good, bad = _holding(encoded, inside), _holding(encoded, outside)
        if not inside:
            good = set(range(len(encoded))) - bad
        taken = sorted(good - bad or good)
        if not taken:
            return
        union = np.zeros(encoded.size, bool)
        for index in taken:
            union |= encoded.values(index)
        for index in bad - good:
            union &= ~encoded.values(index)
        yield Mask(union, float(encoded.scores[taken[0]]), source)
        if len(taken) > 1:
            for index in taken:
                yield self._mask(encoded, index, encoded.values(index), source)

    def _by_box(self, encoded: Instances, prompt: Prompt) -> Iterator[Mask]:
        assert prompt.box is not None
        left, top, right, bottom = (round(edge) for edge in prompt.box)
        inside, outside = _sides(prompt)
        ranked: list[tuple[bool, float, int]] = []
        area = (right - left) * (bottom - top)
        for index in range(len(encoded)):
            values = encoded.values(index)
            both = np.count_nonzero(values[top:bottom, left:right])
            overlap = both / max(area + np.count_nonzero(values) - both, 1)
            if overlap > 0:
                fits = all(_holds(values, [p]) for p in inside) and not _holds(values, outside)
                ranked.append((not fits, -overlap, index))
        for _, _, index in sorted(ranked):
            yield self._mask(encoded, index, encoded.values(index), f"{self.name}: {prompt}")

    def _mask(self, encoded: Instances, index: int, values: np.ndarray, source: str) -> Mask:
        label = f"class {int(encoded.classes[index])}" if self.model.config.classes > 1 else ""
        return Mask(values, float(encoded.scores[index]), source, label)


Point = tuple[float, float]


def _sides(prompt: Prompt) -> tuple[list[Point], list[Point]]:
    """The points inside of the object, and those of the background."""
    pairs = list(zip(prompt.points, prompt.inside, strict=True))
    return [point for point, side in pairs if side], [point for point, side in pairs if not side]


def _holding(encoded: Instances, points: Sequence[Point]) -> set[int]:
    """The objects that hold any of the points; only masks whose boxes are near are made."""
    found: set[int] = set()
    for index, (left, top, right, bottom) in enumerate(encoded.cuts.tolist()):
        reach = max(encoded.size) / max(encoded.fit.seen) + 1  # of a coarse mask
        near = [
            (x, y)
            for x, y in points
            if left - reach < x < right + reach and top - reach < y < bottom + reach
        ]
        if near and _holds(encoded.values(index), near):
            found.add(index)
    return found


def _holds(values: np.ndarray, points: Sequence[Point]) -> bool:
    """Whether a mask holds any of the points."""
    return any(values[int(y), int(x)] for x, y in points)


def _covered(box: Tensor, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns from a box's first edge on, before its second one."""
    left, top, right, bottom = box.tolist()
    pairs = ((top, bottom, size[0]), (left, right, size[1]))
    rows, columns = (
        slice(*(min(max(math.ceil(edge), 0), length) for edge in (start, max(start, end))))
        for start, end, length in pairs
    )
    return rows, columns


def _needed(weights: Tensor) -> slice:
    """The columns of (N, n) that are not all 0."""
    used = weights.any(dim=0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1)
