"""Models from one form to another, and several into one, in little memory."""

from darkroom.weights.convert.converting import convert
from darkroom.weights.convert.merging import Recipe, merge
from darkroom.weights.convert.writing import Step

__all__ = ["Recipe", "Step", "convert", "merge"]
