"""Activations that fetch little memory, or none, where no gradient is recorded.

A feed-forward's hidden layer is a network's largest: for SAM's 4,096 places of 3,072 channels it
has 50 MB, and to fetch as much again from the system costs more than to compute.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """GELU (Hendrycks & Gimpel, arXiv:1606.08415): x Φ(x), in the place of ``x``."""
    return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def quick_gelu(x: Tensor) -> Tensor:
    """Its approximation x sigmoid(1.702 x), from the same paper; ``x`` stays."""
    if x.requires_grad:
        return x * torch.sigmoid(1.702 * x)
    return (1.702 * x).sigmoid_().mul_(x)
