"""Pictures cut up by points, boxes and masks: encoded once, asked as often as wanted.

    segmenter = open_segmenter("sam_vit_b_01ec64.pth")
    encoded = segmenter.encode("truck.jpg")
    (mask,) = segmenter.masks(encoded, Prompt(points=((500, 375),), inside=(True,))).best()

Everything is a value: an encoded picture can be kept, and asked from several threads.

Shapes: P prompts of one object each, K candidates for each, H W a picture's height and width, h w
those of its features.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom import arrays
from darkroom.acceleration import hasten
from darkroom.arguments import items, shown, whole
from darkroom.errors import ArgumentError, ModelMismatchError
from darkroom.images import ImageLike, open_image
from darkroom.keywords import explained, instead
from darkroom.masks import Mask, open_mask
from darkroom.models.sam.network import Sam, enlarged
from darkroom.names import SEGMENT_MODEL
from darkroom.weights.load import load

if TYPE_CHECKING:
    from darkroom.vision.automatic_masks import Automatic
    from darkroom.vision.fastsam import FastSegmenter

__all__ = ["EncodedImage", "Masks", "Prompt", "Segmenter", "open_segmenter"]

SURE = 10.0  # a logit of what lies in a mask that is given as a prompt
AT_ONCE = 16  # prompts that are decoded together; each takes some 40 MB at full size


@explained
@dataclass(frozen=True)
class Prompt:
    """What points to one object: points, a box, an earlier answer, or several of these.

    Args:
        points: (x, y) in pixels of the picture, the top left corner being 0, 0.
        inside: of each point, whether it lies in the object; False = it lies in the background.
            None at all = they all lie in it.
        box: left, top, right, bottom, likewise.
        mask: (1, 4 h, 4 w) logits of an earlier answer, as ``Masks.low`` gives them, in a tensor
            or an array; or a ``Mask`` of the picture's size.

    Raises:
        ArgumentError: there is nothing in it, a number is none, or points and ``inside`` differ in
            number.
    """

    points: tuple[tuple[float, float], ...] = ()
    inside: tuple[bool, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Tensor | Mask | None = None

    def __post_init__(self) -> None:
        listed = items("points", self.points, "a list of (x, y), such as ((500, 375),)")
        if listed and all(isinstance(x, int | float) for x in listed):
            pair = ", ".join(f"{x:g}" for x in listed)
            raise ArgumentError(f"points ({pair}): expected a list of points, (({pair}),)")
        points = tuple(_numbers(point, 2, "a point is x and y") for point in listed)
        object.__setattr__(self, "points", points)  # arrays and lists become tuples
        sides = items("inside", self.inside, "True or False for each point")
        inside = tuple(_side(one) for one in sides) or (True,) * len(points)
        object.__setattr__(self, "inside", inside)
        if not self.points and self.box is None and self.mask is None:
            raise ArgumentError("an empty prompt; give points, a box or a mask")
        if len(self.points) != len(self.inside):
            raise ArgumentError(
                f"{len(self.points)} points and {len(self.inside)} words whether they are inside; "
                "give one for each"
            )
        if self.box is not None:
            box = _numbers(self.box, 4, "a box is left, top, right and bottom")
            object.__setattr__(self, "box", box)
            left, top, right, bottom = box
            if left >= right or top >= bottom:
                raise ArgumentError(
                    f"an empty box {_said(self.box)}; give left, top, right, bottom"
                )

        if self.mask is not None and not isinstance(self.mask, Tensor | Mask):
            object.__setattr__(self, "mask", _logits(self.mask))

    def __str__(self) -> str:
        """As one says it: "point 500,375, not 20,30, box 0,0,100,80"."""
        words = [
            f"{'point' if inside else 'not'} {_said(point)}"
            for point, inside in zip(self.points, self.inside, strict=True)
        ]
        words += [] if self.box is None else [f"box {_said(self.box)}"]
        words += [] if self.mask is None else ["mask"]
        return ", ".join(words)


@dataclass(frozen=True)
class EncodedImage:
    """A picture as a segmenter sees it."""

    features: Tensor  # (1, C, h, w)
    size: tuple[int, int]  # height and width of the picture
    scaled: tuple[int, int]  # when its longer side is the model's


@dataclass(frozen=True)
class Masks:
    """Answers to P prompts: K candidates for each, and how good the model thinks each is."""

    logits: Tensor  # (P, K, 4 h, 4 w), above 0 inside
    scores: Tensor  # (P, K), the IoU that it expects
    size: tuple[int, int]  # height and width of the picture
    scaled: tuple[int, int]  # when its longer side is the model's
    padded: int  # pixels of a side of what the model sees
    sources: tuple[str, ...]  # of each prompt: what the masks say they come from

    def __len__(self) -> int:
        return len(self.logits)

    def of(self, prompt: int) -> list[Mask]:
        """The candidates for one prompt in the picture's size, best first."""
        order = self.scores[prompt].argsort(descending=True, stable=True).tolist()
        return [self.mask(prompt, candidate) for candidate in order]

    def best(self) -> list[Mask]:
        """The best candidate for each prompt, in the picture's size."""
        return [self.mask(p, int(self.scores[p].argmax())) for p in range(len(self))]

    def mask(self, prompt: int, candidate: int) -> Mask:
        """One candidate, in the picture's size."""
        logits = self.full(prompt, candidate)
        score = float(self.scores[prompt, candidate])
        return Mask((logits > 0).cpu().numpy(), score=score, source=self.sources[prompt])

    def full(self, prompt: int, candidate: int) -> Tensor:
        """Logits (H, W) of one candidate in the picture's size."""
        low = self.logits[prompt, candidate][None, None].float()
        return enlarged(low, self.padded, self.scaled, self.size)[0, 0]

    def low(self, prompt: int, candidate: int | None = None) -> Tensor:
        """(1, 4 h, 4 w): what a ``Prompt`` takes as its mask; None = the best candidate."""
        chosen = int(self.scores[prompt].argmax()) if candidate is None else candidate
        return self.logits[prompt, chosen][None]


@dataclass(frozen=True)
class Segmenter:
    """Segment anything, with how pictures and coordinates are brought to it."""

    model: Sam
    name: str = "sam"

    @explained
    @torch.no_grad()
    def encode(self, image: ImageLike) -> EncodedImage:
        """What the model sees of a picture: the longer side scaled to its size, bilinear.

        Raises:
            ImageError: it cannot be read.
        """
        picture = open_image(image)
        size, longest = (picture.height, picture.width), self.model.config.size
        scale = longest / max(size)
        scaled = (max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5)))
        small = picture.resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].to(self.device)
        return EncodedImage(self.model.encode(self.model.normalised(pixels)), size, scaled)

    @explained
    @torch.no_grad()
    def masks(
        self, encoded: EncodedImage, prompts: Prompt | Sequence[Prompt], candidates: int = 3
    ) -> Masks:
        """Answer prompts, each on its own.

        Args:
            candidates: 1 = one mask for each, for prompts that leave no doubt (a box, several
                points); 3 = as many, for those that may mean a thing, its part or what holds it.

        Raises:
            ArgumentError: no prompts, a point or box outside of the picture, a mask of another
                shape, or another number of candidates.
        """
        if not isinstance(encoded, EncodedImage):
            raise ArgumentError(
                f"{shown(encoded)} is no encoded picture: say segmenter.encode(image) first"
            )
        prompts = prompts_of(prompts)
        for prompt in prompts:
            self._check(prompt, encoded)
        alike: dict[tuple[int, bool, bool], list[int]] = {}
        for index, prompt in enumerate(prompts):
            kind = (len(prompt.points), prompt.box is not None, prompt.mask is not None)
            alike.setdefault(kind, []).append(index)
        answers: dict[int, tuple[Tensor, Tensor]] = {}
        for indices in alike.values():
            for start in range(0, len(indices), AT_ONCE):
                some = indices[start : start + AT_ONCE]
                logits, scores = self._decode(encoded, [prompts[i] for i in some], candidates)
                answers |= {i: (logits[n], scores[n]) for n, i in enumerate(some)}
        found = [answers[index] for index in range(len(prompts))]
        return Masks(
            torch.stack([logits for logits, _ in found]),
            torch.stack([scores for _, scores in found]),
            encoded.size,
            encoded.scaled,
            self.model.config.size,
            tuple(f"{self.name}: {prompt}" for prompt in prompts),
        )

    def everything(self, image: ImageLike, options: "Automatic | None" = None) -> Iterator[Mask]:
        """Masks of all there is in a picture, found by a grid of points; see ``automatic_masks``.

        Raises:
            ImageError: it cannot be read.
        """
        from darkroom.vision.automatic_masks import automatic_masks

        for found in automatic_masks(self, image, options or self.automatic):
            yield found.mask

    @property
    def automatic(self) -> "Automatic":
        """How ``everything`` looks unless it is told: the defaults, or what fits a small model."""
        from darkroom.vision.automatic_masks import Automatic

        return Automatic(**EVERYTHING.get(self.name, {}))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def _decode(
        self, encoded: EncodedImage, prompts: Sequence[Prompt], candidates: int
    ) -> tuple[Tensor, Tensor]:
        """Of prompts that are made of the same things."""
        first = prompts[0]
        scale = [encoded.scaled[1] / encoded.size[1], encoded.scaled[0] / encoded.size[0]]

        def placed(values: Sequence[object], repeated: int = 1) -> Tensor:
            exact = torch.tensor(values, dtype=torch.float64) * torch.tensor(scale * repeated)
            return exact.float().to(self.device)

        given: dict[str, Tensor] = {}
        if first.points:
            given["points"] = placed([prompt.points for prompt in prompts])
            given["labels"] = torch.tensor([prompt.inside for prompt in prompts]).long()
            given["labels"] = given["labels"].to(self.device)
        if first.box is not None:
            given["boxes"] = placed([prompt.box for prompt in prompts], 2)
        masks = [self._low(prompt.mask, encoded) for prompt in prompts if prompt.mask is not None]
        if masks:
            given["masks"] = torch.stack(masks).to(encoded.features)
        return self.model.decode(encoded.features, **given, candidates=candidates)

    def _check(self, prompt: Prompt, encoded: EncodedImage) -> None:
        check_inside(prompt, encoded.size)
        low = 4 * self.model.config.grid
        if isinstance(prompt.mask, Mask):
            if prompt.mask.values.shape != encoded.size:
                height, width = encoded.size
                raise ArgumentError(
                    f"a prompt's mask of {prompt.mask.width}x{prompt.mask.height}, the picture is "
                    f"{width}x{height}: give a mask of the picture's size"
                )
            return
        if prompt.mask is not None and tuple(prompt.mask.shape) != (1, low, low):
            raise ArgumentError(
                f"a prompt's mask of shape {tuple(prompt.mask.shape)}, expected (1, {low}, {low}): "
                "the logits of an earlier answer (Masks.low)"
            )

    def _low(self, mask: Tensor | Mask, encoded: EncodedImage) -> Tensor:
        """(1, 4 h, 4 w) logits; of a mask what lies in it is above 0 by ``SURE``."""
        if isinstance(mask, Tensor):
            return mask
        side = 4 * self.model.config.grid
        height, width = (round(x * side / self.model.config.size) for x in encoded.scaled)
        inside = mask.tensor()[None, None]
        inside = F.interpolate(inside, (max(height, 1), max(width, 1)), mode="area")[0]
        return F.pad(2 * SURE * inside - SURE, (0, side - width, 0, side - height), value=-SURE)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(instead("a segmenter", name))


def prompts_of(prompts: object) -> list[Prompt]:
    """One or several prompts, as a list. Raises ArgumentError for anything else."""
    asked = "a Prompt, or a list of them, such as Prompt(points=((500, 375),))"
    found = [prompts] if isinstance(prompts, Prompt) else items("prompts", prompts, asked)
    if not found:
        raise ArgumentError("no prompts; give one or more")
    for prompt in found:
        if not isinstance(prompt, Prompt):
            raise ArgumentError(f"prompts {shown(prompt)}: expected {asked}")
    return found


def check_inside(prompt: Prompt, size: tuple[int, int]) -> None:
    """Raise ArgumentError for a point or a box outside of a picture of ``size`` (height, width)."""
    height, width = size
    for x, y in prompt.points:
        if not (0 <= x < width and 0 <= y < height):
            raise ArgumentError(
                f"point {_said((x, y))} lies outside of the picture, which is {width}x{height}"
            )
    if prompt.box is not None:
        left, top, right, bottom = prompt.box
        if left < 0 or top < 0 or right > width or bottom > height:
            raise ArgumentError(
                f"box {_said(prompt.box)} leaves the picture, which is {width}x{height}"
            )


@explained
def open_segmenter(
    name: str | os.PathLike[str] = SEGMENT_MODEL,
    device: str | None = None,
    *,
    accelerate: bool = True,
) -> "Segmenter | FastSegmenter":
    """Open SAM, MobileSAM or FastSAM: a built-in name, a folder, a .pth, .pt or .safetensors file.

    Args:
        device: None = CUDA where there is one, else the CPU.
        accelerate: what is quickest on this machine, equal within rounding, for inference alone.

    Raises:
        ModelNotFoundError: nothing is called that.
        ModelMismatchError: it is another kind of model.
        CheckpointError: the files cannot be used.
    """
    model = load(name, device=device, dtype="float32", accelerate=False)
    path = Path(os.fspath(name).rpartition(":")[2])  # hf:owner/name:file.pt
    short = path.stem if path.suffix in SUFFIXES else path.name
    from darkroom.models.fastsam.network import FastSAM

    if not isinstance(model, Sam | FastSAM):
        raise ModelMismatchError(
            f"{name}: a {type(model).__name__}, which does not segment by points and boxes; give "
            "emoji-sam, sam_vit_b, _l or _h, mobile_sam or FastSAM"
        )
    if accelerate:
        hasten(model, inference_alone=True)
    if isinstance(model, Sam):
        return Segmenter(model, short)
    from darkroom.vision.fastsam import FastSegmenter

    return FastSegmenter(model, short, confidence=CONFIDENCE.get(short, 0.4))


# small models are less sure of themselves, and their logits are less steep: measured on scenes
# of what their training did not see (benchmarks/segmenting/emoji_segmenters.py)
EVERYTHING: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "emoji-sam": {
            "points_per_side": 16,
            "pred_iou": 0.4,
            "stability": 0.6,
            "offset": 0.3,
            "nms": 0.5,
        }
    }
)
CONFIDENCE = MappingProxyType({"emoji-fastsam": 0.2})
SUFFIXES = (".pth", ".pt", ".safetensors", ".bin")


def _side(value: object) -> bool:
    """Whether a point lies inside: True, False, 1 or 0."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    expected = "True for a point in the object, False for one in the background"
    if whole("inside", value, expected) > 1:
        raise ArgumentError(f"inside {shown(value)}: expected {expected}")
    return bool(value)


def _logits(mask: object) -> Tensor | Mask:
    """What is no tensor: an array of logits, or a picture of a mask."""
    if arrays.is_array(mask) and not isinstance(mask, arrays.Drawable):
        values = arrays.numbers("a prompt's mask", mask)
        if values.dtype.kind == "f":
            return torch.from_numpy(np.array(values, np.float32))
    return open_mask(mask)  # pyright: ignore[reportArgumentType]


def _numbers(values: Iterable[float], count: int, what: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ArgumentError(f"{what}, got {values!r:.60}")
    return numbers


def _said(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
