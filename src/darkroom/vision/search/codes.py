"""Unit vectors as bytes, with a bound on what that costs: a search reads the bytes first.

A vector v is turned by a fixed orthogonal matrix, which spreads what lies in few of its numbers
over all, and rounded: Rv = step * code + rest. Then for any query q = R^T (b * d + r),

    |v . q - step * b * (code . d)| <= |rest| |q| + |step * code| |r|.
"""

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 127  # of a code, up or down
SLACK = 1e-5  # float32's own rounding in a product of 4096 numbers or fewer


@dataclass(frozen=True, eq=False)
class Codes:
    """N vectors of D numbers."""

    values: Tensor  # (N, D) int8
    steps: Tensor  # (N,) float32: what one is worth
    errors: Tensor  # (N,) float32: the length of what rounding took away

    def __len__(self) -> int:
        return len(self.values)

    def part(self, rows: slice | Tensor) -> "Codes":
        """Some of them."""
        return Codes(self.values[rows], self.steps[rows], self.errors[rows])


def rotation(width: int) -> Tensor:
    """(D, D) float32, orthogonal: random signs, then the cosine transform. The same everywhere."""
    k = torch.arange(width, dtype=torch.float64)
    cosines = torch.cos(math.pi / width * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / width)
    cosines[0] /= math.sqrt(2)
    draw = random.Random(0)  # Python promises its numbers; torch does not
    signs = torch.tensor([1.0 if draw.random() < 0.5 else -1.0 for _ in range(width)])
    return (cosines * signs).float()


def encode(vectors: Tensor, turn: Tensor) -> Codes:
    """Vectors (N, D), as they are, to codes; ``turn`` is ``rotation(D)``."""
    turned = vectors.float() @ turn.T
    steps = turned.abs().amax(1).clamp_min(1e-20) / MOST
    values = (turned / steps[:, None]).round()
    errors = torch.linalg.vector_norm(turned - values * steps[:, None], dim=1)
    return Codes(values.to(torch.int8), steps, errors)


def unit(vectors: Tensor) -> Tensor:
    """float16 has rounded their lengths: float32, of length one again."""
    return F.normalize(vectors.float(), dim=-1)


def products(left: Codes, right: Codes) -> Tensor:
    """(M, N) float32: about the dot products of M and N vectors, see ``margin``."""
    whole = integer_products(left.values, right.values)
    return whole.float().mul_(right.steps).mul_(left.steps[:, None])


def margin(left: Codes, right: Codes) -> float:
    """How far ``products`` of vectors of length one are from the truth, at most."""
    if not len(left) or not len(right):
        return SLACK
    a, b = left.errors.amax().item(), right.errors.amax().item()
    return a + (1 + a) * b + SLACK


def integer_products(left: Tensor, right: Tensor) -> Tensor:
    """(M, D) and (N, D) int8 -> (M, N) int32, exact.

    By the processor's byte instructions where torch has them and they do not overflow (older ones
    do); else in float32, 1,024 numbers at a time, which is exact as well.
    """
    if _bytes_are_exact(left.shape[1]):
        return torch.ops.aten._int_mm(left, right.T)
    found = torch.zeros(len(left), len(right), dtype=torch.int32)
    for i in range(0, left.shape[1], 1024):  # 1024 * 127^2 < 2^24
        for j in range(0, len(right), 1 << 16):
            part = left[:, i : i + 1024].float() @ right[j : j + (1 << 16), i : i + 1024].float().T
            found[:, j : j + (1 << 16)] += part.int()
    return found


def _bytes_are_exact(width: int) -> bool:
    """Ask with the largest numbers there are; takes microseconds."""
    most = torch.full((1, width), MOST, dtype=torch.int8)
    try:
        found = torch.ops.aten._int_mm(most, torch.cat([most, -most]).T)
    except (AttributeError, RuntimeError):
        return False
    return found.tolist() == [[width * MOST**2, -width * MOST**2]]
