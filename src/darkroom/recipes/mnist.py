"""Diffusion on MNIST: as the book prints it, or as it is meant.

"correct" (the default) is ``pixel_diffusion``; "book" is ``mnist_book``, whose docstring lists what
the other one does otherwise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from darkroom.recipes import mnist_book, pixel_diffusion
from darkroom.training.fit import FitStep


@dataclass(frozen=True, kw_only=True)
class Config(pixel_diffusion.Config):
    """``recipe = "mnist"``."""

    mode: Literal["book", "correct"] = "correct"


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step."""
    recipe = mnist_book if config.mode == "book" else pixel_diffusion
    return recipe.train(config)
