"""The Frechet distance against closed forms and scipy's matrix square root."""

import numpy as np
import pytest
import torch

from darkroom.training.frechet import frechet_distance


def normal(mean: torch.Tensor, root: torch.Tensor, n: int = 200) -> torch.Tensor:
    """A sample whose mean and covariance are exactly ``mean`` and ``root @ root.T``."""
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, len(mean), generator=g, dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.cholesky(torch.cov(x.T)).inverse()
    return x @ white.T @ root.T + mean


def test_closed_forms():
    zero, eye = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    a = normal(zero, eye)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, a + 2) == pytest.approx(12)  # only the means differ
    # spreads that commute: the sum of (s_a - s_b)^2
    b = normal(zero + 1, torch.diag(torch.tensor([2.0, 3.0, 0.5], dtype=torch.float64)), 300)
    assert frechet_distance(a, b) == pytest.approx(3 + 1 + 4 + 0.25)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


@pytest.mark.parametrize("rows", [400, 12])  # 12 rows of 20 features: singular covariances
def test_equals_scipys_square_root(rows: int):
    linalg = pytest.importorskip("scipy.linalg")
    g = torch.Generator().manual_seed(rows)
    a = torch.randn(rows, 20, generator=g, dtype=torch.float64)
    a = a @ torch.randn(20, 20, generator=g, dtype=torch.float64)
    b = 0.5 + torch.randn(rows, 20, generator=g, dtype=torch.float64)
    spread_a, spread_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    middle = linalg.sqrtm(spread_a @ spread_b).real
    expected = ((a - b).mean(0) ** 2).sum().item()
    expected += np.trace(spread_a + spread_b - 2 * middle)
    # scipy's root of a singular product is itself good to some 1e-6
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9 if rows > 20 else 1e-3)


@pytest.mark.parametrize("shapes", [((5, 3), (5, 4)), ((1, 3), (5, 3)), ((5, 3, 1), (5, 3, 1))])
def test_other_shapes_are_refused(shapes: tuple):
    with pytest.raises(ValueError, match="features of"):
        frechet_distance(*(torch.zeros(shape) for shape in shapes))
