"""How near a reconstruction is to its image. Shapes: images (B, C, H, W) in [0, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA, _RADIUS = 1.5, 5  # of the Gaussian window, in pixels
_C1, _C2 = 0.01**2, 0.03**2  # keep quotients of flat patches finite


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, (B,); infinite where they are equal."""
    return -10 * (a - b).square().mean((1, 2, 3)).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair, (B,), at most 1 (Wang et al., 2004, equation 13).

    Raises:
        ValueError: the images are smaller than the window of 11 pixels.
    """
    if min(a.shape[-2:]) < 2 * _RADIUS + 1:
        raise ValueError(
            f"images of {tuple(a.shape[-2:])} are smaller than the window of 11 pixels"
        )
    channels = a.shape[1]
    across = torch.arange(-_RADIUS, _RADIUS + 1, dtype=a.dtype, device=a.device)
    bell = (-0.5 * (across / _SIGMA) ** 2).exp()
    bell = (bell / bell.sum()).repeat(channels, 1, 1, 1)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, bell, groups=channels), bell.mT, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return (luminance * structure).mean((1, 2, 3))
