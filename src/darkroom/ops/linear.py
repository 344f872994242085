"""Linear layers by another library's matrix products.

PyTorch multiplies float32 matrices with MKL, which leaves half of an AMD processor's AVX-512
unused; oneDNN does not. Measured on an EPYC (Zen 5), one thread, 384 to 4,096 rows of 96 to 2,048
channels: 227 to 272 GFLOP/s forward and to the input, 147 to 245 to the weight, where MKL has 95
to 119.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 2**20  # multiplications below which finding the kernel costs more than it gains


def can_multiply() -> bool:
    """Whether this PyTorch has oneDNN's products."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class OneDnnLinear(nn.Linear):
    """A Linear whose products, and those of its gradients, are oneDNN's: float32 on a CPU.

    Anything else, half precision among it, takes PyTorch's way. Give an ``nn.Linear`` this class
    and take it back at will: parameters, their names and hooks are the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        weight = self.weight
        if (
            input.dtype is not torch.float32
            or weight.dtype is not torch.float32
            or input.device.type != "cpu"
            or input.numel() * weight.shape[0] < LEAST
            or torch.is_autocast_enabled("cpu")
        ):
            return F.linear(input, weight, self.bias)
        rows = input.reshape(-1, input.shape[-1])
        return multiply_onednn(rows, weight, self.bias).view(*input.shape[:-1], -1)


def multiply_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X wᵀ + b of (N, in), (out, in), (out,), with gradients: float32 on a CPU."""
    return _Product.apply(x, weight, bias)  # pyright: ignore[reportReturnType]


class _Product(torch.autograd.Function):
    """y = x wᵀ + b for rows x (N, in), w (out, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        to_input, to_weight, to_bias = ctx.needs_input_grad
        # a gradient that is itself to be differentiated goes PyTorch's way
        multiply = F.linear if torch.is_grad_enabled() else product
        return (
            multiply(gradient, weight.t()) if to_input else None,
            multiply(gradient.t(), x.t()) if to_weight else None,
            gradient.sum(0) if ctx.biased and to_bias else None,
        )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One product x wᵀ + b of (N, in), (out, in), (out,), float32 on a CPU; no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
