"""Activations in place against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.ops.activation import gelu, quick_gelu


def quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@pytest.mark.parametrize(("ours", "theirs"), [(gelu, F.gelu), (quick_gelu, quick)])
def test_same_numbers(ours, theirs) -> None:
    x = torch.linspace(-8, 8, 999).view(3, -1)
    torch.testing.assert_close(ours(x.clone()), theirs(x))


@pytest.mark.parametrize(("ours", "theirs"), [(gelu, F.gelu), (quick_gelu, quick)])
def test_same_gradients(ours, theirs) -> None:
    """What is trained is not written over."""
    x = torch.linspace(-8, 8, 99).requires_grad_()
    (expected,) = torch.autograd.grad(theirs(x).square().sum(), x)
    (got,) = torch.autograd.grad(ours(x).square().sum(), x)
    torch.testing.assert_close(got, expected)


def test_gelu_is_in_place() -> None:
    x = torch.randn(5)
    assert gelu(x) is x
