"""oneDNN's products against PyTorch's: values, gradients, and when they step aside."""

import copy

import pytest
import torch
from torch import Tensor, nn

from darkroom.ops import linear
from darkroom.ops.linear import OneDnnLinear, can_multiply

pytestmark = pytest.mark.skipif(not can_multiply(), reason="a PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def always(monkeypatch) -> None:
    """However small a product is."""
    monkeypatch.setattr(linear, "LEAST", 0)


def twins(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    theirs = nn.Linear(24, 40, bias=bias)
    ours = copy.deepcopy(theirs)
    ours.__class__ = OneDnnLinear
    return ours, theirs


def called(monkeypatch) -> list[int]:
    calls, product = [], linear.product
    monkeypatch.setattr(linear, "product", lambda *a: (calls.append(1), product(*a))[1])
    return calls


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["rows", "tokens", "transposed"])
def test_values_and_gradients(monkeypatch, bias: bool, order: str) -> None:
    calls = called(monkeypatch)
    ours, theirs = twins(bias)
    g = torch.Generator().manual_seed(1)
    shape = {"rows": (7, 24), "tokens": (2, 5, 24), "transposed": (2, 24, 5)}[order]
    leaves = [torch.randn(shape, generator=g).requires_grad_()]
    leaves.append(leaves[0].detach().clone().requires_grad_())
    outputs: list[Tensor] = []
    for layer, leaf in zip((ours, theirs), leaves, strict=True):
        x = leaf.transpose(1, 2) if order == "transposed" else leaf
        outputs.append(layer(x))
        outputs[-1].sin().sum().backward()
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-5, atol=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)
    assert len(calls) == 3  # forward, to the input, to the weight


def test_only_the_gradients_that_are_wanted(monkeypatch) -> None:
    calls = called(monkeypatch)
    ours, _ = twins()
    ours.weight.requires_grad_(False)
    ours(torch.randn(3, 24, requires_grad=True)).sum().backward()
    assert len(calls) == 2
    assert ours.weight.grad is None
    assert ours.bias.grad.eq(3).all()


@pytest.mark.parametrize("case", ["half", "autocast", "meta", "small"])
def test_what_it_leaves_to_pytorch(monkeypatch, case: str) -> None:
    calls = called(monkeypatch)
    ours, theirs = twins()
    x = torch.randn(3, 24)
    if case == "half":
        ours, theirs, x = ours.bfloat16(), theirs.bfloat16(), x.bfloat16()
    elif case == "meta":
        ours, theirs, x = ours.to("meta"), theirs.to("meta"), x.to("meta")
    elif case == "small":
        monkeypatch.setattr(linear, "LEAST", 10**6)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        a, b = ours(x), theirs(x)
    assert a.dtype == b.dtype
    assert case == "meta" or torch.equal(a, b)
    assert not calls
