"""Faster attention with relative positions against the reference."""

import pytest
import torch
from torch import Tensor

from darkroom.ops import relative_attention
from darkroom.ops.linear import can_multiply
from darkroom.ops.relative_attention import (
    RELATIVE,
    attend_relative_onednn,
    attend_relative_reference,
)


def inputs(rows: int = 5, columns: int = 6) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    length = rows * columns
    q, k, v = (torch.randn(2, length, 3, 8, generator=g).transpose(1, 2) for _ in range(3))
    down = torch.randn(2, 3, length, rows, generator=g)
    return q, k, v, down, torch.randn(2, 3, length, columns, generator=g)


@pytest.mark.skipif(not can_multiply(), reason="a PyTorch without oneDNN")
@pytest.mark.parametrize("scores", [1, 100, 10**6])
def test_every_row_is_the_reference(monkeypatch, scores: int) -> None:
    monkeypatch.setattr(relative_attention, "LEAST", 0)
    monkeypatch.setattr(relative_attention, "SCORES", scores)  # in one step or many
    x = inputs()
    before = [y.clone() for y in x]
    for row in RELATIVE.values():
        torch.testing.assert_close(row(*x), attend_relative_reference(*x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(y, z) for y, z in zip(x, before, strict=True))


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
