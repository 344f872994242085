"""Attention over a picture whose scores know how far apart two places are."""

from typing import Protocol

import torch
from torch import Tensor

from darkroom.ops.linear import LEAST, product


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


def attend_relative_onednn(q: Tensor, k: Tensor, v: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """By oneDNN's products, some rows of scores at a time, which stay in the cache.

    The reference writes all scores to memory four times over: measured on one thread of an EPYC
    (Zen 5), this was 5.6 times as fast for 4 heads of 64 channels over 64x64 places, 2.6 times for
    12 heads over 25 windows of 14x14. Small, trained or other than float32 on a CPU: the reference.
    """
    (batch, heads, length, width), others = q.shape, k.shape[2]
    trained = any(x.requires_grad for x in (q, k, v, down, across))
    small = length * others * width < LEAST
    if small or trained or q.device.type != "cpu" or q.dtype != torch.float32:
        return attend_relative_reference(q, k, v, down, across)
    q = q * width**-0.5
    attended = q.new_empty(batch, length, heads, v.shape[-1])
    rows = max(SCORES // others, 1)
    for b in range(batch):
        for h in range(heads):
            queries, keys, values = q[b, h].contiguous(), k[b, h].contiguous(), v[b, h].t()
            values = values.contiguous()
            for some in range(0, length, rows):
                part = slice(some, some + rows)
                scores = product(queries[part], keys)
                grid = scores.unflatten(-1, (down.shape[-1], across.shape[-1]))
                grid += down[b, h, part, :, None]
                grid += across[b, h, part, None, :]
                attended[b, part, h] = product(torch.softmax(scores, -1, out=scores), values)
    return attended.transpose(1, 2)


SCORES = 2**20  # numbers at a time: 4 MB
RELATIVE: dict[str, AttendRelative] = {
    "reference": attend_relative_reference,
    "onednn": attend_relative_onednn,
}
