"""Layers that ask which row of their operation is quickest here (``ops.speeds``), shape by shape.

Give an ``nn.Linear`` or ``nn.Conv2d`` such a class and take it back at will: parameters, their
names, their memory and hooks are the same. What is small, traced, compiled or other than float32 on
a CPU takes PyTorch's way.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.ops.convolution import CONVOLUTIONS
from darkroom.ops.linear import OneDnnLinear, can_multiply, multiply_onednn
from darkroom.ops.speeds import LEAST, measurable, quickest, rounded

ROWS = 2048  # of a sample: from here on the time is proportional to them
SAMPLE, CHANNELS = 4096, 640  # the same: pixels, and channels in and out, of a convolution of 3x3
PIXELS = 128  # of a batch, above which no product was faster than a convolution
POINTS = 1024  # the same for kernels of 1x1
THIN = 32  # channels below which transforming them costs more than it saves
TILED = 1024  # pixels of a batch from which on Winograd's filtering may pay
GRADIENTS = {
    (False, False): "linear",
    (True, False): "linear, gradient of the input",
    (False, True): "linear, gradient of the weight",
    (True, True): "linear, both gradients",
}


class MeasuredLinear(OneDnnLinear):
    """A Linear by the quickest row, with gradients, too."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        weight, bias = self.weight, self.bias
        if input.numel() * self.out_features < LEAST or not measurable(input, weight, bias):
            return F.linear(input, weight, bias)
        graded = torch.is_grad_enabled()
        wanted = graded and input.requires_grad, graded and weight.requires_grad
        count = rounded(input.numel() // self.in_features, ROWS)
        shape = count, self.in_features, self.out_features
        rows = {
            "torch": lambda: _once(F.linear, input, weight, bias, wanted, count),
            "onednn": lambda: _once(multiply_onednn, input, weight, bias, wanted, count),
        }
        if can_multiply() and quickest(GRADIENTS[wanted], shape, rows) == "onednn":
            return super().forward(input)
        return F.linear(input, weight, bias)

    def _get_name(self) -> str:
        return "Linear"


class MeasuredConv2d(nn.Conv2d):
    """A Conv2d by the quickest row; where gradients are recorded, by PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H', W')."""
        weight, bias, stride, padding = self.weight, self.bias, self.stride, self.padding
        other = self.other_row(input)
        if (
            other is None
            or isinstance(padding, str)
            or not measurable(input, weight, bias)
            or _graded(input, weight, bias)
            or not can_multiply()
        ):
            return super().forward(input)
        if other == "winograd":
            operation, sample = "convolution 3x3", functools.cache(lambda: _sample(input, weight))
            channels = (min(count, CHANNELS) for count in weight.shape[:2])
            shape = rounded(_pixels(input, stride), SAMPLE), *channels
        else:
            operation, sample = "convolution", lambda: (input, weight)
            shape = (*input.shape, *weight.shape, *stride, *padding)

        def run(row: str) -> Tensor:
            return CONVOLUTIONS[row](*sample(), None, stride, padding)

        rows = {row: functools.partial(run, row) for row in ("torch", other)}
        if quickest(operation, shape, rows) == other:
            return CONVOLUTIONS[other](input, weight, bias, stride, padding)
        return super().forward(input)

    def other_row(self, x: Tensor) -> str | None:
        """Which row may be faster than PyTorch's, where the work is worth to be measured."""
        if self.groups != 1 or self.padding_mode != "zeros" or self.dilation != (1, 1):
            return None
        if x.ndim != 4:
            return None
        pixels = _pixels(x, self.stride)
        if pixels * self.weight.numel() < LEAST:
            return None
        if self.kernel_size == (3, 3) and self.stride == (1, 1) and pixels >= TILED:
            thin = min(self.weight.shape[:2]) < THIN
            return None if thin or not x.is_contiguous() else "winograd"
        apart = self.stride == self.kernel_size != (1, 1)  # each pixel is laid out once
        most = POINTS if self.kernel_size == (1, 1) else PIXELS
        return "product" if apart or pixels <= most else None

    def _get_name(self) -> str:
        return "Conv2d"


def _pixels(x: Tensor, stride: tuple[int, ...]) -> int:
    """Of the output, near enough."""
    return x.shape[0] * x.shape[2] * x.shape[3] // (stride[0] * stride[1])


def _sample(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Some channels of some rows of some pictures: from there on the time is proportional."""
    _, _, height, width = x.shape
    pictures = max(SAMPLE // (height * width), 1)
    part = x[:pictures, :CHANNELS, : max(SAMPLE // width, 1)]
    return part.contiguous(), weight[:CHANNELS, :CHANNELS].contiguous()


def _once(
    multiply: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    wanted: tuple[bool, bool],
    count: int,
) -> None:
    """One product of some rows, and its gradients where they are wanted."""
    x = x.detach().reshape(-1, x.shape[-1])[:count]
    if not any(wanted):
        with torch.no_grad():
            multiply(x, weight, bias)
        return
    x, weight = x.requires_grad_(wanted[0]), weight.detach().requires_grad_(wanted[1])
    given = [tensor for tensor in (x, weight) if tensor.requires_grad]
    y = multiply(x, weight, None if bias is None else bias.detach())
    torch.autograd.grad(y, given, y.detach())


def _graded(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
