"""Tell XL other sizes than that of the picture (Podell et al., arXiv:2307.01952, section 2.2)."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation.feature import Feature, Run
from darkroom.generation.metadata import Params, UsedSizes
from darkroom.text.sizes import Sizes

Pair = tuple[int, int]


class SizeConditioning(Feature):
    """What XL is told of sizes; without this feature the picture's own size, uncropped.

    Args:
        original: (height, width) before the training picture was resized; None = the picture's.
        crop: (top, left) of where it was cropped.
        target: (height, width) after resizing; None = the picture's. The refiner is not told it.
        score: aesthetic, 0 to 10, which the refiner alone is told; None = 6.
        negative_original, negative_crop, negative_target: of what guidance moves away from; None =
            as above.
        negative_score: likewise; None = 2.5.

    Raises:
        ConfigError: numbers out of range.
        ModelMismatchError: at the run, a model that is told no size.
    """

    def __init__(
        self,
        original: Pair | None = None,
        crop: Pair = (0, 0),
        target: Pair | None = None,
        score: float | None = None,
        *,
        negative_original: Pair | None = None,
        negative_crop: Pair | None = None,
        negative_target: Pair | None = None,
        negative_score: float | None = None,
    ) -> None:
        self.used = UsedSizes(
            original=_pair("original", original, 1),
            crop=_pair("crop", crop, 0) or (0, 0),
            target=_pair("target", target, 1),
            score=_score("score", score),
            negative_original=_pair("negative_original", negative_original, 1),
            negative_crop=_pair("negative_crop", negative_crop, 0),
            negative_target=_pair("negative_target", negative_target, 1),
            negative_score=_score("negative_score", negative_score),
        )

    def prepare(self, run: Run) -> Run:
        if not getattr(run.model.text_encoder, "size_channels", 0):
            raise ModelMismatchError(
                f"{run.model.name or 'the model'} is told no sizes: SizeConditioning is for SDXL"
            )
        said = self.used
        negative = said.negative_crop
        options = {
            "sizes": Sizes(
                original=said.original, crop=said.crop, target=said.target, score=said.score
            ),
            "negative_sizes": Sizes(
                original=said.negative_original or said.original,
                crop=said.crop if negative is None else negative,
                target=said.negative_target or said.target,
                score=said.negative_score,
            ),
        }
        return replace(run, text_options={**run.text_options, **options}, encoded={})

    def describe(self) -> Mapping[str, Any]:
        return {"sizes": self.used}


def again(params: Params) -> list[Feature]:
    """The feature that a picture was drawn with, if it was."""
    said = params.sizes
    if said is None:
        return []
    return [SizeConditioning(**{name: getattr(said, name) for name in UsedSizes.__annotations__})]


def _pair(name: str, value: Pair | None, lowest: int) -> Pair | None:
    if value is None:
        return None
    if len(value) != 2 or not all(isinstance(n, int) and n >= lowest for n in value):
        raise ConfigError(f"{name} {value!r}: expected two whole numbers of pixels, height first")
    return value[0], value[1]


def _score(name: str, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and 0 <= value <= 10):
        raise ConfigError(f"{name} {value}: expected 0 to 10")
    return value
