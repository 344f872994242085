"""Painting a part of a picture anew."""

from darkroom.generation.inpaint.canvas import pad_canvas
from darkroom.generation.inpaint.feature import Inpaint

__all__ = ["Inpaint", "pad_canvas"]
