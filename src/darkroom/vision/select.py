"""From words to a mask: which of a segmenter's masks shows what a text says.

Each mask is cut out, on grey and on white, and the encoder says how well the cuts fit the text
beside other texts. Where none fits well enough, nothing is chosen.
Choosing among masks by CLIP is SAM's own way from text to mask (Kirillov et al., arXiv:2304.02643,
section 7.5, turned round) and FastSAM's (Zhao et al., arXiv:2306.12156, section 3.3).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom.arguments import items, number, shown, string
from darkroom.errors import ArgumentError, DarkroomError
from darkroom.images import ImageLike, labelled_grid, open_image
from darkroom.keywords import explained
from darkroom.masks import Mask, open_mask, overlay
from darkroom.vision.classify import label_vectors
from darkroom.vision.encoder import Encoder

TEMPLATES = ("{}", "the {}", "a photo of a {}")
AGAINST = (  # what else there is in pictures
    "plain background", "patterned background", "photographic background",
)  # fmt: skip
LEVELS = {"emoji-clip": 0.6}  # cosines at which it is as likely right as wrong, measured
GROUNDS = (128, 255)  # grey and white, around what is cut out
MARGIN = 0.15  # of the longer side, around it
SPECK = 0.05  # of the area of a mask: smaller parts that lie apart are dropped
LEAST = 16  # pixels of a mask: fewer show nothing
THRESHOLD = 0.5
SHOWN = 96  # pixels of a side, of the candidates' pictures


class Segmenter(Protocol):
    """What proposes masks: ``vision.segment.Segmenter``, ``vision.fastsam.FastSegmenter``."""

    @property
    def name(self) -> str: ...

    def everything(self, image: ImageLike) -> Iterable[Mask]: ...


@dataclass(frozen=True)
class Selection:
    """What was found for a text.

    Attributes:
        masks: all candidates, best first; ``score`` is how well each fits the text, 0 to 1.
        picked: those that were taken: the best one, or all above the threshold; none = abstained.
    """

    text: str
    masks: tuple[Mask, ...]
    picked: tuple[Mask, ...]
    threshold: float
    against: tuple[str, ...] = ()

    @cached_property
    def chosen(self) -> Mask | None:
        """What was taken, as one mask; None = nothing fits well enough."""
        if len(self.picked) < 2:
            return self.picked[0] if self.picked else None
        joined = reduce(lambda one, other: one | other, self.picked)
        first = self.picked[0]
        return replace(joined, score=first.score, source=first.source, label=first.label)

    @property
    def score(self) -> float:
        """Of the best candidate; 0 where there is none."""
        return (self.masks[0].score or 0.0) if self.masks else 0.0

    def why_not(self) -> str:
        """One line: why nothing was chosen."""
        if not self.masks:
            return f"{self.text!r}: the segmenter found nothing in the picture; give a mask"
        return (
            f"{self.text!r}: not found; the best of {len(self.masks)} candidates scores "
            f"{self.score:.2f}, the threshold is {self.threshold:.2f}: say it in other words, "
            "lower the threshold, or give a mask"
        )

    def picture(self, image: ImageLike) -> Image.Image:
        """The picture, dark where it was not chosen."""
        shown = open_image(image)
        return overlay(shown, [~self.chosen], [(0, 0, 0)], 0.8) if self.chosen else shown

    def candidates(self, image: ImageLike, count: int = 12) -> Image.Image:
        """The best candidates cut out, each with its score, best first.

        Raises:
            ValueError: there is no candidate.
        """
        if not self.masks:
            raise ValueError("no candidates to show")
        pixels = np.asarray(open_image(image))
        best = self.masks[:count]
        cells = [cut(pixels, mask, SHOWN) for mask in best]
        scores = [f"{i}: {mask.score:.2f}" for i, mask in enumerate(best, 1)]
        return labelled_grid(cells, min(len(cells), 6), titles=scores)

    def to_plain(self, count: int = 12) -> dict[str, Any]:
        """For JSON: the best candidates by score, area and box; what was chosen as RLE, too."""
        return {
            "text": self.text,
            "threshold": self.threshold,
            "against": list(self.against),
            "found": len(self.masks),
            "candidates": [
                {"score": mask.score, "area": mask.area, "box": mask.box, "source": mask.source}
                for mask in self.masks[:count]
            ],
            "picked": len(self.picked),
            "mask": self.chosen.rle() if self.chosen else None,
        }


class NotFoundError(DarkroomError):
    """No mask fits the text well enough; ``selection`` holds the candidates."""

    def __init__(self, selection: Selection, more: str = "") -> None:
        super().__init__(selection.why_not() + (f"; {more}" if more else ""))
        self.selection = selection


@explained
def select(
    segmenter: Segmenter,
    encoder: Encoder,
    image: ImageLike,
    text: str,
    *,
    threshold: float | None = None,
    against: Sequence[str] = (),
    every: bool = False,
) -> Selection:
    """The mask of what ``text`` names, among all that a segmenter finds in a picture.

    Args:
        text: a thing, with or without its article: "the dog", "red apple".
        threshold: the least score of what is chosen, 0 to 1; None = 0.5. Of the built-in encoder
            that was measured on composed scenes; of others it was not.
        against: other texts that could be meant, each as probable as ``text`` beforehand; what
            shows no thing is always among them.
        every: all that reach the threshold; else the best one alone.

    Raises:
        ValueError: no words, or a threshold outside of [0, 1].
        ImageError: the picture cannot be read.
    """
    _check(text, threshold)
    if not hasattr(segmenter, "everything"):
        raise ArgumentError(f"{shown(segmenter)} is no segmenter; say dr.open_segmenter(name)")
    _check_encoder(encoder)
    picture = open_image(image)
    masks = segmenter.everything(picture)
    return rank(
        encoder, picture, masks, text, threshold=threshold, against=against, every=every,
    )  # fmt: skip


def rank(
    encoder: Encoder,
    image: ImageLike,
    masks: Iterable[Mask],
    text: str,
    *,
    threshold: float | None = None,
    against: Sequence[str] = (),
    every: bool = False,
) -> Selection:
    """``select`` among masks that are there already. Args and errors as there."""
    _check(text, threshold)
    picture = open_image(image)
    masks = (open_mask(mask) for mask in masks)
    least = THRESHOLD if threshold is None else threshold
    others = _others(text, against)
    found = [whole(mask) for mask in masks if mask.binary().area >= LEAST]
    if not found:
        return Selection(text, (), (), least, others)
    scores = fitting(encoder, picture, found, text, others)
    order = scores.argsort(descending=True, stable=True).tolist()
    best = tuple(
        replace(
            found[i],
            score=scores[i].item(),
            label=text,
            source=f"{found[i].source or 'mask'}; {encoder.name or 'encoder'}: {text}",
        )
        for i in order
    )
    taken = [mask for mask in best if (mask.score or 0.0) >= least]
    return Selection(text, best, tuple(taken if every else taken[:1]), least, others)


def fitting(
    encoder: Encoder, picture: Image.Image, masks: Sequence[Mask], text: str, others: Sequence[str]
) -> Tensor:
    """(N,): the probability of ``text`` for each mask, if it or one of ``others`` is right.

    Where it is known which cosine speaks for nothing (``LEVELS``), that is one of the others.
    """
    words = label_vectors(encoder, [plain(one) for one in (text, *others)], TEMPLATES)
    cosines = looks(encoder, picture, masks) @ words.T
    if encoder.name in LEVELS:
        nothing = cosines.new_full((len(cosines), 1), LEVELS[encoder.name])
        cosines = torch.cat((cosines, nothing), dim=1)
    return (encoder.scale * cosines).softmax(-1)[:, 0]


def looks(encoder: Encoder, picture: Image.Image, masks: Sequence[Mask]) -> Tensor:
    """(N, E) unit vectors: the mean of what the encoder sees in both cuts of each mask."""
    pixels = np.asarray(picture)
    views = [
        encoder.encode_image([cut(pixels, mask, encoder.size, ground) for mask in masks])
        for ground in GROUNDS
    ]
    return F.normalize(views[0] + views[1], dim=-1)


def cut(pixels: np.ndarray, mask: Mask, size: int, ground: int = GROUNDS[0]) -> Image.Image:
    """What is in a mask, in a square of ``size`` pixels, alone on a grey.

    Args:
        pixels: (H, W, 3) uint8.
        ground: the grey, 0 to 255.

    Raises:
        ValueError: the mask is empty, or of another size.
    """
    if mask.box is None or mask.values.shape != pixels.shape[:2]:
        raise ValueError(
            f"a mask of {mask.width}x{mask.height} with {mask.area:g} pixels inside, for a picture "
            f"of {pixels.shape[1]}x{pixels.shape[0]}"
        )
    left, top, right, bottom = mask.box
    side = round(max(right - left, bottom - top) * (1 + 2 * MARGIN))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    square = np.full((side, side, 3), ground, np.uint8)
    inside = slice(max(y, 0), y + side), slice(max(x, 0), x + side)
    piece = np.where(mask.binary().values[inside][..., None], pixels[inside], np.uint8(ground))
    down, across = max(-y, 0), max(-x, 0)
    square[down : down + piece.shape[0], across : across + piece.shape[1]] = piece
    method = Image.Resampling.BICUBIC if side < size else Image.Resampling.BOX
    return Image.fromarray(square).resize((size, size), method)


def whole(mask: Mask) -> Mask:
    """Without specks that lie apart from it, of less than a twentieth of its area."""
    return mask.drop_islands(SPECK * mask.binary().area)


def plain(text: str) -> str:
    """Without the article before it: "the dog" -> "dog"."""
    words = text.strip().split()
    if len(words) > 1 and words[0].lower() in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words)


def _others(text: str, against: Sequence[str]) -> tuple[str, ...]:
    """What is compared beside ``text``, each once."""
    more = [string("against", one) for one in items("against", against, "a list of texts")]
    found = {plain(other): other for other in (*AGAINST, *more) if plain(other)}
    found.pop(plain(text), None)
    return tuple(found.values())


def _check_encoder(encoder: object) -> None:
    if not hasattr(encoder, "encode_text"):
        raise ArgumentError(f"{shown(encoder)} is no encoder; say dr.open_encoder(name)")


def _check(text: str, threshold: float | None) -> None:
    if not plain(string("text", text, "the name of a thing, such as 'the dog'")):
        raise ArgumentError("no words to select by; say what to look for, such as 'the dog'")
    if threshold is not None and not 0 <= number("threshold", threshold, "0 to 1") <= 1:
        raise ArgumentError(f"threshold {threshold}: expected 0 to 1")
