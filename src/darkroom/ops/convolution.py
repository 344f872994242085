"""Convolutions: PyTorch's, by a matrix product for small pictures, by Winograd's for others."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from darkroom.ops.linear import product
from darkroom.ops.winograd import convolve_winograd


class Convolve(Protocol):
    """x (B, C, H, W) with weight (O, C, h, w) and bias (O,) -> (B, O, H', W')."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> Tensor: ...


def convolve_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """PyTorch's (the default)."""
    return F.conv2d(x, weight, bias, stride, padding)


def convolve_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """One row of a matrix for each pixel, times the weight as it lies in memory, by oneDNN.

    PyTorch has the weight reordered at each call. Where it is larger than the picture that costs
    more than laying out the rows: 1,280 channels at 8x8 were measured 1.2 to 1.3 times as fast
    (two threads, Zen 4). float32 on a CPU, no gradient.
    """
    outputs, _, *kernel = weight.shape
    if any(padding):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    patches = x.unfold(2, kernel[0], stride[0]).unfold(
        3, kernel[1], stride[1]
    )  # (B, C, H', W', h, w)
    batch, _, height, width = patches.shape[:4]
    rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(batch * height * width, -1)
    y = product(rows, weight.reshape(outputs, -1), bias)  # (B H' W', O)
    return (
        y.view(batch, height * width, outputs)
        .transpose(1, 2)
        .reshape(batch, outputs, height, width)
    )


CONVOLUTIONS: dict[str, Convolve] = {
    "torch": convolve_torch,
    "product": convolve_product,
    "winograd": convolve_winograd,
}
