"""Sizes that Stable Diffusion XL is told beside the text (Podell et al., arXiv:2307.01952)."""

from dataclasses import dataclass

SCORE, NEGATIVE_SCORE = 6.0, 2.5  # aesthetic, of 10: what the refiner is told when nothing is said


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """One side's numbers, in pixels, as (height, width) and (top, left).

    Attributes:
        original: of the picture before it was resized for training; a small one asks for the look
            of an enlarged picture. None = the size that is drawn.
        crop: where the training picture was cropped; (0, 0) asks for a centred subject.
        target: after resizing. None = the size that is drawn. The refiner is not told it.
        score: of the refiner alone, 0 to 10, in place of the target. None = 6, or 2.5 for what
            guidance moves away from.
    """

    original: tuple[int, int] | None = None
    crop: tuple[int, int] = (0, 0)
    target: tuple[int, int] | None = None
    score: float | None = None

    def numbers(self, size: tuple[int, int], *, scored: bool, negative: bool) -> list[float]:
        """What the network is told: six numbers; five where the last is a score."""
        told = [*(self.original or size), *self.crop]
        if not scored:
            return [*told, *(self.target or size)]
        usual = NEGATIVE_SCORE if negative else SCORE
        return [*told, usual if self.score is None else self.score]
