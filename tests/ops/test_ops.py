"""Every row of an operation against its reference: values, gradients, memory formats, dtypes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.ops import attention
from darkroom.ops.attention import BACKENDS, attend_plain, attend_reference, attend_torch
from darkroom.ops.normalization import GROUP_NORM_SILU, group_norm_silu_reference


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.fixture(autouse=True)
def no_product_is_too_small(monkeypatch) -> None:
    monkeypatch.setattr(attention, "LEAST", 0)
    monkeypatch.setattr(attention, "SCORES", 100)  # a few rows at a time


SHAPES = {
    "self": ((2, 3, 24, 8), (2, 3, 24, 8)),
    "text": ((2, 3, 40, 8), (2, 3, 7, 8)),
    "one-head": ((1, 1, 64, 32), (1, 1, 64, 32)),
    "long-text": ((1, 2, 9, 4), (1, 2, 200, 4)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_attention(backend: str, shapes: str) -> None:
    q, k = tensors(*SHAPES[shapes])
    v = tensors(SHAPES[shapes][1], seed=1)[0]
    expected = attend_reference(q, k, v)
    assert torch.allclose(BACKENDS[backend](q, k, v), expected, atol=1e-5)
    if q.shape == k.shape:
        causal = attend_reference(q, k, v, causal=True)
        assert torch.allclose(BACKENDS[backend](q, k, v, causal=True), causal, atol=1e-5)
        assert not torch.allclose(causal, expected, atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_attention(backend: str, causal: bool) -> None:
    def gradients(attend) -> list[Tensor]:
        leaves = [x.requires_grad_() for x in tensors(*[(2, 3, 12, 8)] * 3)]
        (attend(*leaves, causal).sin().sum()).backward()
        return [leaf.grad for leaf in leaves]

    pairs = zip(gradients(BACKENDS[backend]), gradients(attend_reference), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def test_the_reference_is_softmax_of_the_scaled_products() -> None:
    q, k, v = tensors((1, 1, 2, 4), (1, 1, 3, 4), (1, 1, 3, 4))
    row = [sum(float(a * b) for a, b in zip(q[0, 0, 1], key, strict=True)) / 2 for key in k[0, 0]]
    weights = torch.tensor(row).exp() / torch.tensor(row).exp().sum()
    assert torch.allclose(attend_reference(q, k, v)[0, 0, 1], weights @ v[0, 0], atol=1e-5)
    first = attend_reference(k, k, v, causal=True)[0, 0, 0]
    assert torch.allclose(first, v[0, 0, 0])  # the first position sees itself alone


def test_plain_attention_does_not_change_what_it_was_given() -> None:
    q, k, v = tensors((1, 2, 9, 4), (1, 2, 7, 4), (1, 2, 7, 4))
    before = q.clone()
    attend_plain(q, k, v)
    assert torch.equal(q, before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_in_half_precision(backend: str, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in tensors((1, 2, 30, 8), (1, 2, 7, 8), (1, 2, 7, 8)))
    actual = BACKENDS[backend](q, k, v)
    assert actual.dtype == dtype
    assert torch.allclose(
        actual.float(), attend_reference(q.float(), k.float(), v.float()), atol=0.03
    )


NORMS = {"map": (2, 12, 5, 7), "tokens": (2, 8, 9), "one-group": (1, 6, 4, 4)}


@pytest.mark.parametrize("row", GROUP_NORM_SILU)
@pytest.mark.parametrize("shape", NORMS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_group_norm_silu(row: str, shape: str, order: torch.memory_format) -> None:
    size = NORMS[shape]
    x, weight, bias = tensors(size, (size[1],), (size[1],))
    if x.ndim == 4:
        x = x.contiguous(memory_format=order)
    groups = 1 if shape == "one-group" else 4
    before = x.clone()
    actual = GROUP_NORM_SILU[row](x, weight, bias, groups, 1e-5)
    assert torch.allclose(actual, F.silu(F.group_norm(x, groups, weight, bias)), atol=1e-5)
    assert torch.equal(x, before)  # it works in place on its own result alone
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    GROUP_NORM_SILU[row](*leaves, groups, 1e-5).sin().sum().backward()
    wanted = [t.clone().requires_grad_() for t in (x, weight, bias)]
    group_norm_silu_reference(*wanted, groups, 1e-5).sin().sum().backward()
    for a, b in zip(leaves, wanted, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-4)


@pytest.mark.parametrize("width", [1, 8, 15, 16, 17])
def test_narrow_heads_are_padded_without_a_trace(width):
    g = torch.Generator().manual_seed(width)
    ours = [torch.randn(2, 3, 20, width, generator=g).requires_grad_() for _ in range(3)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    a, b = attend_torch(*ours), attend_reference(*theirs)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    (a * a).sum().backward()
    (b * b).sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
