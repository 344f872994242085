"""Logits in a picture's size, by parts, against two interpolations of the whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.models.sam.network import enlarged
from darkroom.ops import enlarging
from darkroom.ops.enlarging import Enlarging

CASES = [  # logits, padded, scaled, size
    (16, 64, (43, 64), (120, 180)),
    (16, 64, (64, 40), (50, 31)),
    (24, 48, (48, 48), (48, 48)),
    (16, 16, (16, 16), (5, 7)),
    (16, 64, (1, 64), (1, 200)),
]


def logits(low: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.randn(1, 1, 5, 5, generator=g), (low, low), mode="bicubic")
    return smooth[0, 0] * 3


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize(("low", "padded", "scaled", "size"), CASES)
def test_equals_interpolation(monkeypatch, low, padded, scaled, size, multiply: bool) -> None:
    monkeypatch.setattr(enlarging, "BAND", 7)
    if not multiply:
        monkeypatch.setattr(enlarging, "can_multiply", lambda: False)
    x = logits(low)
    whole = enlarged(x[None, None], padded, scaled, size)[0, 0]
    found = Enlarging.between((low, low), padded, scaled, size)
    everything = torch.cat(list(found.bands(x, (0, 0, size[1], size[0]))))
    torch.testing.assert_close(everything, whole, rtol=1e-5, atol=1e-5)
    for above in (-1.0, 0.0, 2.0, 5.0):
        inside = whole > above
        fewest, most = found.counts(x, above)
        assert fewest <= inside.sum() <= most
        window = found.window(x, above)
        if window is None:
            assert not inside.any()
            continue
        left, top, right, bottom = window
        outside = inside.clone()
        outside[top:bottom, left:right] = False
        assert not outside.any()
        part = torch.cat([torch.zeros(0, right - left), *found.bands(x, window)])
        torch.testing.assert_close(part, whole[top:bottom, left:right], rtol=1e-5, atol=1e-5)
    assert found.window(x, 1e9) is None


def test_counts_are_close_for_large_shapes() -> None:
    low, size = 64, (400, 400)
    middle = torch.arange(low) - low / 2
    x = 20 - (middle[:, None] ** 2 + middle**2).sqrt()  # a disc
    found = Enlarging.between((low, low), 256, (256, 256), size)
    exact = (enlarged(x[None, None], 256, (256, 256), size) > 0).sum()
    fewest, most = found.counts(x, 0.0)
    assert 0.8 * exact < fewest < exact < most < 1.2 * exact
