"""Embeddings of timesteps and sizes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(t: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of a timestep: (B,) -> (B, channels), cosines first.

    Vaswani et al., arXiv:1706.03762, section 3.5; always float32.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class Embedder(nn.Module):
    """Two linear layers around a SiLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_channels, out_channels)
        self.linear2 = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(x)))
