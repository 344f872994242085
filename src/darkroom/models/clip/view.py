"""How a picture is brought to an image tower."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

LONGEST = 32


@dataclass(frozen=True, kw_only=True)
class View:
    """Size and range of the pictures that a tower was trained on. The defaults are OpenAI's."""

    size: int = 224  # pixels, height and width
    fit: Literal["crop", "squash"] = "crop"  # the middle square, or all of it
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = "bicubic"
    half: Literal["even", "down"] = "even"  # where the middle lies between two pixels
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]
    deviation: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def square(self, picture: Image.Image) -> Image.Image:
        """``size`` x ``size`` pixels of a picture.

        With "crop" the shorter side is scaled to ``size``, the longer one in proportion, its
        fraction cut off; then the middle is taken. The numbers are those of OpenAI's and of
        open_clip's preprocessing, and with ``half="down"`` those of transformers'. Of a strip more
        than ``LONGEST`` times as long as wide the ends are cut off first, for the sake of memory.
        """
        if self.fit == "squash":
            return picture.resize((self.size, self.size), RESAMPLING[self.resample])
        width, height = picture.size
        shorter = min(width, height)
        if max(width, height) > LONGEST * shorter:
            left, top = (max(side - LONGEST * shorter, 0) // 2 for side in picture.size)
            picture = picture.crop((left, top, width - left, height - top))
            width, height = picture.size
        scaled = int(self.size * width / shorter), int(self.size * height / shorter)
        if scaled != picture.size:
            picture = picture.resize(scaled, RESAMPLING[self.resample])
        left, top = (self._middle(side - self.size) for side in scaled)
        return picture.crop((left, top, left + self.size, top + self.size))

    def _middle(self, spare: int) -> int:
        return round(spare / 2) if self.half == "even" else spare // 2

    def pixels(self, picture: Image.Image) -> Tensor:
        """(3, size, size) uint8 of a picture in RGB, or RGBA, whose alpha is dropped at the end."""
        square = self.square(picture).convert("RGB")
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], with mean and deviation taken out."""
        mean, deviation = (pixels.new_tensor(x)[:, None, None] for x in (self.mean, self.deviation))
        return (pixels - mean) / deviation
