"""Measured layers and attention: every row gives what the plain one gives, and is reached."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.ops import attention, linear, measured, relative_attention, speeds
from darkroom.ops.attention import attend_measured, attend_reference
from darkroom.ops.convolution import CONVOLUTIONS
from darkroom.ops.linear import can_multiply
from darkroom.ops.measured import MeasuredConv2d, MeasuredLinear
from darkroom.ops.relative_attention import attend_relative_measured, attend_relative_reference

pytestmark = pytest.mark.skipif(not can_multiply(), reason="a PyTorch without oneDNN")


class Said(speeds.Speeds):
    """Takes the row that it is told to take, after running each of them."""

    def __init__(self, row: str) -> None:
        super().__init__()
        self.row, self.asked = row, []

    def quickest(self, operation, shape, rows) -> str:
        self.asked.append((operation, *shape))
        for run in rows.values():
            run()
        return self.row if self.row in rows else next(iter(rows))


@pytest.fixture
def said(monkeypatch):
    def say(row: str) -> Said:
        found = Said(row)
        monkeypatch.setattr(speeds, "here", lambda: found)
        for module in (speeds, measured, linear, attention, relative_attention):
            monkeypatch.setattr(module, "LEAST", 1)
        return found

    return say


@pytest.mark.parametrize("row", ["torch", "onednn"])
@pytest.mark.parametrize("frozen", ["", "weight", "input", "both"])
def test_linear(said, row: str, frozen: str) -> None:
    found = said(row)
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40), torch.randn(2, 5, 24)
    layer.weight.requires_grad_(frozen not in ("weight", "both"))
    results = []
    for kind in (nn.Linear, MeasuredLinear):
        layer.__class__ = kind
        layer.zero_grad()
        leaf = x.clone().requires_grad_(frozen not in ("input", "both"))
        y = layer(leaf)
        y.sin().sum().backward()
        results.append((y, leaf.grad, layer.weight.grad, layer.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    operation = {
        "": "linear, both gradients",
        "weight": "linear, gradient of the input",
        "input": "linear, gradient of the weight",
        "both": "linear",
    }[frozen]
    assert found.asked == [(operation, 8, 24, 40)]  # 10 rows share the figure of 8
    assert repr(layer) == repr(nn.Linear(24, 40))


def test_a_gradient_s_gradient(said) -> None:
    said("onednn")
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40), torch.randn(3, 24)
    results: list[Tensor] = []
    for kind in (nn.Linear, MeasuredLinear):
        layer.__class__ = kind
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(leaf).sin().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), layer.weight)
        results.append(second)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", ["torch", "product"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "bias"), [(3, 1, 1, True), (3, 2, 1, True), (1, 1, 0, False)]
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_convolution(said, row, kernel, stride, padding, bias, order) -> None:
    found = said(row)
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 10, kernel, stride, padding, bias=bias)
    x = torch.randn(2, 6, 8, 7).to(memory_format=order)
    expected = layer(x)
    layer.__class__ = MeasuredConv2d
    assert repr(layer).startswith("Conv2d(")
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert len(found.asked) == 1
    layer.weight.data = layer.weight.data.to(memory_format=order)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_patches_of_a_large_picture(said) -> None:
    """Squares that do not overlap are a product at any size; what is over is not seen."""
    found = said("product")
    layer, x = nn.Conv2d(3, 8, 4, stride=4, bias=False), torch.randn(2, 3, 90, 71)
    expected = layer(x)
    layer.__class__ = MeasuredConv2d
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert found.asked


@torch.no_grad()
def test_a_convolution_of_a_large_picture(said, monkeypatch) -> None:
    """By Winograd's filtering; measured on some rows and channels, which shapes share."""
    found = said("winograd")
    monkeypatch.setattr(measured, "TILED", 512)
    monkeypatch.setattr(measured, "THIN", 6)
    monkeypatch.setattr(measured, "SAMPLE", 512)
    monkeypatch.setattr(measured, "CHANNELS", 4)
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 10, 3, padding=1)
    layer.__class__ = MeasuredConv2d
    for x in (torch.randn(1, 6, 23, 24), torch.randn(3, 6, 31, 30)):
        exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        actual = layer(x)
        assert actual.is_contiguous()
        assert not torch.equal(actual, F.conv2d(x, layer.weight, layer.bias, padding=1))
        torch.testing.assert_close(actual.double(), exact, rtol=0, atol=1e-4)
    assert found.asked == [("convolution 3x3", 512, 4, 4)] * 2
    layer(torch.randn(1, 6, 23, 24).to(memory_format=torch.channels_last))
    layer(torch.randn(1, 6, 8, 8))
    assert [name for name, *_ in found.asked[2:]] == ["convolution"]  # a small one: a product


@torch.no_grad()
def test_convolutions_that_have_no_other_row(said) -> None:
    found = said("product")
    torch.manual_seed(0)
    x = torch.randn(1, 6, 8, 8)
    for layer in (
        nn.Conv2d(6, 6, 3, groups=2),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(6, 6, 3, padding="same"),
        nn.Conv2d(6, 6, 3, dilation=2),
    ):
        expected = layer(x)
        layer.__class__ = MeasuredConv2d
        assert torch.equal(layer(x), expected)
    layer = nn.Conv2d(6, 6, 1)
    layer.__class__ = MeasuredConv2d
    layer(torch.randn(1, 6, 64, 64))  # too large
    assert not found.asked


def test_a_convolution_in_training_is_the_plain_one(said) -> None:
    found = said("product")
    layer = nn.Conv2d(6, 6, 3)
    layer.__class__ = MeasuredConv2d
    layer(torch.randn(1, 6, 8, 8)).sum().backward()
    assert layer.weight.grad is not None
    assert not found.asked


@pytest.mark.parametrize("row", ["torch", "plain", "onednn"])
@pytest.mark.parametrize("others", [20, 200])
@torch.no_grad()
def test_attention(said, row: str, others: int) -> None:
    found = said(row)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 3, 8).transpose(1, 2) for n in (30, others, others))
    torch.testing.assert_close(
        attend_measured(q, k, v), attend_reference(q, k, v), rtol=1e-5, atol=1e-5
    )
    assert found.asked == [("attention", 3, 16, 16 if others == 20 else 128, 8)]


def test_attention_that_has_one_row_alone(said) -> None:
    found = said("onednn")
    torch.manual_seed(0)
    q = torch.randn(1, 2, 9, 8)
    torch.testing.assert_close(
        attend_measured(q, q, q, causal=True), attend_reference(q, q, q, causal=True)
    )
    q.requires_grad_()
    attend_measured(q, q, q).sum().backward()
    assert q.grad is not None
    assert not found.asked


@pytest.mark.parametrize("row", ["torch", "onednn"])
@torch.no_grad()
def test_relative_attention(said, row: str) -> None:
    found = said(row)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 30, 3, 8).transpose(1, 2) for _ in range(3))
    x = q, k, v, torch.randn(2, 3, 30, 5), torch.randn(2, 3, 30, 6)
    torch.testing.assert_close(
        attend_relative_measured(*x), attend_relative_reference(*x), rtol=1e-5, atol=1e-5
    )
    assert found.asked == [("relative attention", 3, 30, 30, 8)]


def test_relative_attention_in_training_is_the_plain_one(said) -> None:
    found = said("onednn")
    x = torch.randn(1, 2, 4, 8).requires_grad_()
    near = torch.ones(1, 2, 4, 2)
    attend_relative_measured(x, x, x, near, near).sum().backward()
    assert x.grad is not None
    assert not found.asked


@torch.no_grad()
def test_what_is_small_or_no_float32_is_not_measured(monkeypatch) -> None:
    found = Said("onednn")
    monkeypatch.setattr(speeds, "here", lambda: found)
    layer, conv = nn.Linear(8, 8), nn.Conv2d(8, 8, 1)
    layer.__class__, conv.__class__ = MeasuredLinear, MeasuredConv2d
    layer(torch.ones(2, 8))
    conv(torch.ones(1, 8, 2, 2))
    attend_measured(*(torch.ones(3, 1, 1, 4, 8)))
    for module in (speeds, measured, linear, attention):
        monkeypatch.setattr(module, "LEAST", 1)
    layer.half()(torch.ones(2, 8).half())
    conv.half()(torch.ones(1, 8, 2, 2).half())
    attend_measured(*(torch.ones(3, 1, 1, 4, 8).half()))
    torch.func.vmap(layer.float())(torch.ones(2, 3, 8))
    assert not found.asked


@pytest.mark.parametrize("name", ["torch", "product"])
def test_rows_of_a_convolution(name: str) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, 3, 5, 6), torch.randn(4, 3, 3, 2), torch.randn(4)
    for stride, padding in (((1, 1), (0, 0)), ((2, 1), (1, 0)), ((1, 2), (0, 1))):
        expected = F.conv2d(x, weight, bias, stride, padding)
        actual = CONVOLUTIONS[name](x, weight, bias, stride, padding)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
