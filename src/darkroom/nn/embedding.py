"""Embeddings of timesteps and sizes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(
    t: Tensor,
    channels: int,
    max_period: float = 10_000.0,
    shift: int = 0,
    sines_first: bool = False,
) -> Tensor:
    """Sinusoidal features of a timestep: (B,) -> (B, channels), cosines first.

    Vaswani et al., arXiv:1706.03762, section 3.5; always float32. With ``shift`` 1 the last
    frequency is 1 / max_period exactly, with 0 it is one step short of it.
    """
    half = channels // 2
    steps = torch.arange(half, device=t.device) / (half - shift)
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * steps)
    parts = (angles.sin(), angles.cos()) if sines_first else (angles.cos(), angles.sin())
    return torch.cat(parts, dim=-1)


class Embedder(nn.Module):
    """Two linear layers around a SiLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_channels, out_channels)
        self.linear2 = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(x)))
