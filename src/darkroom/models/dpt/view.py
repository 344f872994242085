"""How a picture is brought to a depth network."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class View:
    """Size and range of the pictures that a network was trained on."""

    size: tuple[int, int] = (384, 384)  # (height, width) in pixels
    keep_aspect: bool = False  # both sides scale as the one does that has less to change
    multiple: int = 1  # of both sides, after scaling
    resample: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of red, green and blue in [0, 1]
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a picture of these sides gets."""
        scales = [wanted / side for wanted, side in zip(self.size, (height, width), strict=True)]
        if self.keep_aspect:
            scales = [min(reversed(scales), key=lambda scale: abs(1 - scale))] * 2
        return self._whole(scales[0] * height), self._whole(scales[1] * width)

    def _whole(self, length: float) -> int:
        nearest = round(length / self.multiple) * self.multiple
        return nearest or math.ceil(length / self.multiple) * self.multiple

    def pixels(self, picture: Image.Image) -> Tensor:
        """(1, 3, H, W) float32, resized, with mean and deviation taken out.

        The numbers are those of transformers' ``DPTImageProcessor`` on Pillow.
        """
        height, width = self.sides(picture.height, picture.width)
        small = picture.convert("RGB").resize((width, height), RESAMPLING[self.resample])
        values = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
        mean, deviation = (torch.tensor(x)[:, None, None] for x in (self.mean, self.deviation))
        return (values - mean) / deviation


@torch.no_grad()
def told(network: Any, picture: Image.Image) -> Tensor:
    """What a depth network tells of a picture: (H, W) float32 on the CPU, larger is nearer.

    Args:
        network: called with pixels; its ``config.view`` makes them. H and W are its own.
    """
    weight = next(network.parameters())
    return network(network.config.view.pixels(picture).to(weight))[0].float().cpu()
