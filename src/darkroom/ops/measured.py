"""Layers that ask which row of their operation is quickest here (``ops.speeds``), shape by shape.

Give an ``nn.Linear`` or ``nn.Conv2d`` such a class and take it back at will: parameters, their
names, their memory and hooks are the same. What is small, traced, compiled or other than float32 on
a CPU takes PyTorch's way.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.ops.convolution import convolve_product
from darkroom.ops.linear import OneDnnLinear, can_multiply, multiply_onednn
from darkroom.ops.speeds import LEAST, measurable, quickest, rounded

ROWS = 2048  # of a sample: from here on the time is proportional to them
PIXELS = 128  # of a batch, above which no product was faster than a convolution
POINTS = 1024  # the same for kernels of 1x1
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
        if (
            not isinstance(padding, str)
            and self.has_choice(input)
            and measurable(input, weight, bias)
            and not _graded(input, weight, bias)
        ):
            shape = (*input.shape, *weight.shape, *stride, *padding)

            def product() -> Tensor:
                return convolve_product(input, weight, bias, stride, padding)

            rows = {"torch": lambda: super(MeasuredConv2d, self).forward(input), "product": product}
            if can_multiply() and quickest("convolution", shape, rows) == "product":
                return product()
        return super().forward(input)

    def has_choice(self, x: Tensor) -> bool:
        """Whether a product could be faster, and is worth to be measured."""
        if self.groups != 1 or self.padding_mode != "zeros" or self.dilation != (1, 1):
            return False
        if x.ndim != 4:
            return False
        pixels = x.shape[0] * x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        tiled = self.stride == self.kernel_size != (1, 1)  # each pixel is laid out once
        most = POINTS if self.kernel_size == (1, 1) else PIXELS
        return (tiled or pixels <= most) and pixels * self.weight.numel() >= LEAST

    def _get_name(self) -> str:
        return "Conv2d"


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
