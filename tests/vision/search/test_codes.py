import pytest
import torch
import torch.nn.functional as F

from darkroom.vision.search import codes


def vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """As CLIP's are: one number far larger than the others."""
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    drawn[:, 3] = 12
    return F.normalize(drawn, dim=1)


@pytest.mark.parametrize("width", [1, 8, 77, 512, 1024])
def test_the_rotation_keeps_lengths_and_products(width):
    turn = codes.rotation(width)
    assert torch.allclose(turn @ turn.T, torch.eye(width), atol=1e-5)
    assert torch.equal(turn, codes.rotation(width))


@pytest.mark.parametrize("width", [8, 512])
def test_products_are_within_the_margin(width):
    turn = codes.rotation(width)
    a, b = vectors(5, width), vectors(2000, width, 1)
    left, right = codes.encode(a, turn), codes.encode(b, turn)
    off = (codes.products(left, right) - a @ b.T).abs().max()
    most = codes.margin(left, right)
    assert off <= most
    assert most < 0.025
    assert codes.margin(left, right.part(slice(0, 0))) > 0


def test_nothing_at_all_has_a_code():
    coded = codes.encode(torch.zeros(2, 16), codes.rotation(16))
    assert not coded.values.any()
    assert not coded.errors.any()


@pytest.mark.parametrize("shape", [(1, 40, 512), (3, 70_000, 40), (2, 5, 2500)])
@pytest.mark.parametrize("exact", [True, False])
def test_whole_numbers_multiply_exactly(shape, exact, monkeypatch):
    m, n, width = shape
    if not exact:  # a processor whose byte instructions overflow
        monkeypatch.setattr(codes, "_bytes_are_exact", lambda width: False)
    g = torch.Generator().manual_seed(0)
    a = torch.randint(-127, 128, (m, width), generator=g, dtype=torch.int8)
    b = torch.randint(-127, 128, (n, width), generator=g, dtype=torch.int8)
    a[0], b[0] = 127, -127
    assert torch.equal(codes.integer_products(a, b).double(), a.double() @ b.double().T)


@pytest.mark.parametrize("kind", ["exact", "overflowing", "missing"])
def test_byte_products_are_tried_before_they_are_trusted(kind, monkeypatch):
    """Processors without byte instructions that are exact are told from the others."""

    def multiply(a, b):
        if kind == "missing":
            raise RuntimeError("not for this processor")
        whole = a.int() @ b.int()
        return whole if kind == "exact" else whole.clamp(-(2**15), 2**15 - 1)

    monkeypatch.setattr(torch.ops.aten, "_int_mm", multiply)
    assert codes._bytes_are_exact(512) == (kind == "exact")
