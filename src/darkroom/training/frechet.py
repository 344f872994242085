"""How far two sets of features lie apart (Heusel et al., arXiv:1706.08500, equation 6)."""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features, in float64.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``. Its value for finite sets is biased
    upwards: compare only distances between sets of one size.

    Args:
        a: (N, D), at least two rows.
        b: (M, D), at least two rows.

    Raises:
        ValueError: for other shapes.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features of (N, D) and (M, D), N and M at least 2; got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    (mean_a, spread_a), (mean_b, spread_b) = _gaussian(a), _gaussian(b)
    # tr((AB)^(1/2)) = tr((A^(1/2) B A^(1/2))^(1/2)), whose argument is symmetric
    half = _root(spread_a)
    values = torch.linalg.eigvalsh(half @ spread_b @ half).clamp_min(0)
    gap = (mean_a - mean_b).square().sum()
    return float(gap + spread_a.trace() + spread_b.trace() - 2 * values.sqrt().sum())


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D)."""
    features = features.detach().double().cpu()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1)


def _root(matrix: Tensor) -> Tensor:
    """Square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
