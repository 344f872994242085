"""What every pixel shows, in the 150 colours that ADE20K's classes are drawn in."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from darkroom.errors import ModelMismatchError
from darkroom.models.annotators.scene import Scene
from darkroom.vision.annotators.drawing import Canvas, at_resolution

ADE20K = (  # RGB in hexadecimal, class 0 (wall) first
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33"
    "ff06528fff8cccff04ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff"
    "08ffd607ffe0ffb8060aff47ff290a07ffffe0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ff"
    "eb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ffff470000ebff00adff1f00ff"
    "0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff000052ff00ff2900ffad"
    "0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa"
    "8500ff00ff5cb800ffff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3"
    "ffcc00ff008f00ffeb85ff00ff00ebf500ffff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff"
    "00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c00ff"
)
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, RGB


def seg(image: Image.Image, model: Scene, *, resolution: int = 512) -> Image.Image:
    """One flat colour for each class.

    Args:
        resolution: of the shorter side of what the network sees; rounded to 64.
    """
    drawn = Image.fromarray(colours(classes(at_resolution(image, resolution), model)))
    return drawn.resize(image.size, Image.Resampling.NEAREST)


def classes(pixels: Canvas, model: Scene) -> NDArray[np.int64]:
    """(H, W, 3), RGB, to the likeliest class of each pixel (H, W)."""
    if not isinstance(model, Scene):
        raise ModelMismatchError(
            f"seg needs a Scene network (upernet_global_small.pth), not a {type(model).__name__}"
        )
    normed = (torch.from_numpy(pixels.copy()).float() - torch.tensor(MEAN)) / torch.tensor(
        DEVIATION
    )
    with torch.no_grad():
        logits = model(normed.permute(2, 0, 1)[None].to(next(model.parameters()))).float()
    size = pixels.shape[:2]
    large = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return large[0].argmax(0).cpu().numpy()


def colours(classes: NDArray[np.integer]) -> Canvas:
    """(H, W) classes, 0 to 149, to (H, W, 3)."""
    palette = np.frombuffer(bytes.fromhex(ADE20K), np.uint8).reshape(-1, 3)
    return palette[classes]
