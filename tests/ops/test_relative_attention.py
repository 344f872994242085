"""Faster attention with relative positions against the reference."""

import pytest
import torch
from torch import Tensor

from darkroom.ops import relative_attention
from darkroom.ops.linear import can_multiply
from darkroom.ops.relative_attention import (
    RELATIVE,
    attend_biased,
    attend_relative_onednn,
    attend_relative_reference,
    attend_relative_torch,
)


def inputs(rows: int = 5, columns: int = 6) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    length = rows * columns
    q, k, v = (torch.randn(2, length, 3, 8, generator=g).transpose(1, 2) for _ in range(3))
    down = torch.randn(2, 3, length, rows, generator=g)
    return q, k, v, down, torch.randn(2, 3, length, columns, generator=g)


@pytest.mark.skipif(not can_multiply(), reason="a PyTorch without oneDNN")
@pytest.mark.parametrize(("scores", "rows"), [(1, 1), (100, 7), (2000, 30), (10**6, 10**6)])
def test_every_row_is_the_reference(monkeypatch, scores: int, rows: int) -> None:
    monkeypatch.setattr(relative_attention, "LEAST", 0)
    monkeypatch.setattr(relative_attention, "SCORES", scores)  # in one step or many
    monkeypatch.setattr(relative_attention, "ROWS", 1)
    monkeypatch.setattr(relative_attention, "LEAST_ROWS", rows)
    x = inputs()
    before = [y.clone() for y in x]
    for row in RELATIVE.values():
        torch.testing.assert_close(row(*x), attend_relative_reference(*x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(y, z) for y, z in zip(x, before, strict=True))


@pytest.mark.parametrize("trained", range(5))
def test_gradients_are_the_references(trained: int) -> None:
    """Of each of the inputs alone: the fused kernel has none to its mask."""
    x = inputs()
    x[trained].requires_grad_()
    expected, got = (
        torch.autograd.grad(row(*x).square().sum(), x[trained])[0]
        for row in (attend_relative_reference, attend_relative_torch)
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("trained", [False, True])
def test_one_bias_for_all_pictures(trained: bool) -> None:
    q, k, v, _, _ = inputs()
    bias = torch.randn(3, 30, 30, generator=torch.Generator().manual_seed(1))
    expected = (q @ k.mT / 8**0.5 + bias).softmax(-1) @ v
    bias.requires_grad_(trained)
    torch.testing.assert_close(
        attend_biased(q, k, v, bias).detach(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("case", ["half", "trained", "small"])
def test_what_it_leaves_to_the_reference(monkeypatch, case: str) -> None:
    monkeypatch.setattr(relative_attention, "LEAST", 10**9 if case == "small" else 0)
    monkeypatch.setattr(relative_attention, "product", None)  # it would fail
    x = inputs()
    if case == "half":
        x = tuple(y.bfloat16() for y in x)
    elif case == "trained":
        x[3].requires_grad_()
    assert torch.equal(attend_relative_onednn(*x), attend_relative_reference(*x))
