"""Pixels to pictures, and pictures to the size that a network sees."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def grey_picture(values: NDArray[np.uint8]) -> Image.Image:
    """(H, W) as an RGB picture."""
    return Image.fromarray(values).convert("RGB")
