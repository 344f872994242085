"""Winograd's filtering is the convolution, for all sizes, paddings and ways of working it off."""

import pytest
import torch
import torch.nn.functional as F

from darkroom.ops import winograd
from darkroom.ops.winograd import FILTER, INPUT, OUTPUT, convolve_winograd

SHAPES = [(1, 3, 4, 4, 5), (2, 3, 5, 6, 4), (1, 2, 13, 3, 7), (3, 5, 8, 17, 2), (1, 4, 30, 33, 6)]


def test_the_matrices_are_a_minimal_filtering() -> None:
    """Four outputs of three taps from six products, exactly."""
    a, g, b = (torch.tensor(m, dtype=torch.float64) for m in (OUTPUT, FILTER, INPUT))
    torch.manual_seed(0)
    taps, values = torch.randn(2, 3, dtype=torch.float64)[0], torch.randn(6, dtype=torch.float64)
    expected = torch.stack([taps @ values[i : i + 3] for i in range(4)])
    torch.testing.assert_close(a @ ((g @ taps) * (b @ values)), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(shape, padding, bias) -> None:
    batch, channels, height, width, outputs = shape
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    weight = torch.randn(outputs, channels, 3, 3, dtype=torch.float64)
    shift = torch.randn(outputs, dtype=torch.float64) if bias else None
    expected = F.conv2d(x, weight, shift, padding=padding)
    actual = convolve_winograd(x, weight, shift, (1, 1), padding)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pixels", [1, 20_000, 2**24])  # bytes: one row of tiles, some, all
@pytest.mark.parametrize("filters", [1, 2_000, 2**24])
@pytest.mark.parametrize("kept", [1, 2**26])
def test_strips_and_filters_at_a_time(pixels, filters, kept, monkeypatch) -> None:
    for name, value in (("PIXELS", pixels), ("FILTERS", filters), ("KEPT", kept)):
        monkeypatch.setattr(winograd, name, value)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 19, 22), torch.randn(7, 5, 3, 3)
    actual = convolve_winograd(x, weight, None, (1, 1), (1, 1))
    torch.testing.assert_close(actual, F.conv2d(x, weight, padding=1), rtol=0, atol=1e-4)


def test_errors_are_those_of_float32() -> None:
    """Some 2e-6 of the output's deviation; the sum written out has 3e-7 of it."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = convolve_winograd(x, weight, None, (1, 1), (1, 1)) - exact
    assert error.square().mean().sqrt() < 1e-5 * exact.std()
