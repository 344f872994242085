"""Straight lines: the maps of M-LSD to line segments, and those to a picture."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.models.annotators.line_segments import LineSegments
from darkroom.vision.annotators.drawing import WHITE, Canvas, at_resolution, line, to_picture

MOST = 200  # lines in a picture


def mlsd(
    image: Image.Image,
    model: LineSegments,
    *,
    score: float = 0.1,
    length: float = 0.1,
    resolution: int = 512,
) -> Image.Image:
    """White straight lines on black.

    Args:
        score: how sure the network must be of a line, 0 to 1.
        length: how long a line must be, in pixels of the network's maps: half those it sees.
        resolution: of the shorter side of what the network sees; rounded to 64.

    Raises:
        ConfigError: ``score`` is outside of 0 to 1, or ``length`` negative.
    """
    if not isinstance(model, LineSegments):
        raise ModelMismatchError(
            "lines need a LineSegments network (mlsd_large_512_fp32.pth, mlsd_tiny), "
            f"not a {type(model).__name__}"
        )
    if not (0 <= score <= 1 and length >= 0):
        raise ConfigError(f"mlsd score={score:g}, length={length:g}: expected 0 to 1, and >= 0")
    pixels = at_resolution(image, resolution)
    like = next(model.parameters())
    with torch.no_grad():
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1)  # all pixels are there; scaled like the others
        maps = model((x.float() / 127.5 - 1).to(like)).float().cpu()
    return to_picture(draw(segments(maps, score, length), pixels.shape[:2]), image.size)


def segments(maps: Tensor, score: float, length: float) -> NDArray[np.float64]:
    """(1, 9, H, W) to lines (N, 4), surest first: x, y of both ends in pixels of the image.

    A line's middle is surer than its eight neighbours; at most 200 are looked at.
    """
    heat = maps[:, 0].sigmoid()
    peaks = heat * (F.max_pool2d(heat, 3, stride=1, padding=1) == heat)
    sure, places = peaks.flatten().topk(min(MOST, peaks.numel()))
    y, x = places // maps.shape[3], places % maps.shape[3]
    ends = maps[0, 1:5, y, x].T.double()  # (N, 4)
    long = (ends[:, :2] - ends[:, 2:]).square().sum(1).sqrt() > length
    lines = 2 * (torch.stack((x, y, x, y), 1) + ends)
    return lines[long & (sure > score)].numpy()


def draw(lines: NDArray[np.float64], size: tuple[int, ...]) -> Canvas:
    """Lines on black, (H, W, 3)."""
    canvas = np.zeros((*size, 3), np.uint8)
    for x0, y0, x1, y1 in lines.astype(int).tolist():
        line(canvas, (x0, y0), (x1, y1), WHITE)
    return canvas
