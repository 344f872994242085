"""Darkroom's one type for a mask: what segments is what inpaints, tracks and exports.

Shapes: H height, W width.
"""

from darkroom.masks.mask import Mask, open_mask
from darkroom.masks.outlines import Polygon, Ring
from darkroom.masks.showing import (
    Colour,
    colours,
    mark,
    overlay,
    show_all,
    show_candidates,
    show_mask,
)

__all__ = [
    "Colour",
    "Mask",
    "Polygon",
    "Ring",
    "colours",
    "mark",
    "open_mask",
    "overlay",
    "show_all",
    "show_candidates",
    "show_mask",
]
