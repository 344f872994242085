"""Attention over a picture whose scores know how far apart two places are."""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.ops import speeds
from darkroom.ops.linear import LEAST, can_multiply, product


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


def attend_relative_torch(q: Tensor, k: Tensor, v: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """PyTorch's fused kernel, to which the positions are a mask (the default).

    On a CPU only a part of the mask is there at a time: of 12 heads over 64x64 places 17 of 805 MB,
    which was measured 1.35 times as fast as all of it; of 25 windows of 14x14, 1.3 times. Where a
    gradient is recorded: the reference.
    """
    (batch, heads, length, _), others = q.shape, k.shape[2]
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, down, across)):
        return attend_relative_reference(q, k, v, down, across)
    rows = max(LEAST_ROWS, ROWS * torch.get_num_threads())
    many = max(SCORES // (others * min(rows, length)), 1)  # heads
    if q.device.type != "cpu":
        rows, many = length, batch * heads
    attended = q.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)
    for b, h, some in _parts(batch, heads, length, many, rows):
        part = b, h, some
        mask = (down[part][..., :, None] + across[part][..., None, :]).flatten(-2)
        attended[part] = F.scaled_dot_product_attention(q[part], k[b, h], v[b, h], mask)
    return attended


def _parts(
    batch: int, heads: int, length: int, many: int, rows: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Batches, heads and queries to take together: at most ``many`` heads, ``rows`` queries."""
    whole = max(many // heads, 1)
    for b in range(0, batch, whole):
        for h in range(0, heads, many):
            for some in range(0, length, rows):
                yield slice(b, b + whole), slice(h, h + many), slice(some, some + rows)


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / √D + bias) v: q, k and v (B, H, L, D), ``bias`` (H, L, L)."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, bias)):
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, bias[None])


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


def attend_relative_measured(
    q: Tensor, k: Tensor, v: Tensor, down: Tensor, across: Tensor
) -> Tensor:
    """The row that is quickest on this machine (``ops.speeds``) for some heads of this shape."""
    x = q, k, v, down, across
    (_, heads, length, width), others = q.shape, k.shape[2]
    trained = torch.is_grad_enabled() and any(y.requires_grad for y in x)
    if trained or q.numel() * others < speeds.LEAST or not speeds.measurable(*x):
        return attend_relative_torch(*x)
    if not can_multiply():
        return attend_relative_torch(*x)
    rows, some = min(length, LEAST_ROWS), heads if length < LEAST_ROWS else 1
    q1, down1, across1 = (y[:1, :some, :rows] for y in (q, down, across))
    k1, v1 = k[:1, :some], v[:1, :some]
    ways = {
        name: lambda name=name: RELATIVE[name](q1, k1, v1, down1, across1)
        for name in ("torch", "onednn")
    }
    with torch.no_grad():
        row = speeds.quickest("relative attention", (some, rows, others, width), ways)
    return RELATIVE[row](*x)


SCORES = 2**20  # numbers at a time: 4 MB
ROWS = 256  # queries that the fused kernel gives to one thread
LEAST_ROWS = 4 * ROWS  # with fewer than three times as many it takes them by 64 and is slower
RELATIVE: dict[str, AttendRelative] = {
    "reference": attend_relative_reference,
    "torch": attend_relative_torch,
    "onednn": attend_relative_onednn,
    "measured": attend_relative_measured,
}
