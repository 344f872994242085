"""Attention over a picture whose scores know how far apart two places are: the reference."""

from typing import Protocol

from torch import Tensor


class AttendRelative(Protocol):
    """Attention over the L = h * w places of a picture, with decomposed relative positions.

    q, k and v are (B, H, L, D); ``down`` (B, H, L, h) and ``across`` (B, H, L, w) are what is added
    to a query's scores by the row and by the column of the key. -> (B, H, L, D).
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, down: Tensor, across: Tensor) -> Tensor: ...


def attend_relative_reference(
    q: Tensor, k: Tensor, v: Tensor, down: Tensor, across: Tensor
) -> Tensor:
    """softmax(q kᵀ / √D + down + across) v, written out (Li et al., arXiv:2112.01526, eq. 4)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    grid = scores.unflatten(-1, (down.shape[-1], across.shape[-1]))  # (B, H, L, h, w)
    scores = (grid + down[..., :, None] + across[..., None, :]).flatten(-2)
    return scores.softmax(dim=-1) @ v


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / √D + bias) v: q, k and v (B, H, L, D), ``bias`` (H, L, L)."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias).softmax(dim=-1) @ v
