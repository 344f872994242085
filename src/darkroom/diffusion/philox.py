"""The noise that torch draws on an NVIDIA GPU, drawn on any machine.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and the
Box-Muller transform, as cuRAND counts: the seed is the key, each number has a counter of its own.
True up to the threads that a GPU runs at once: at least 40,960 numbers, on large GPUs 150,000.
"""

import math

import numpy as np
import torch
from torch import Tensor

from darkroom.diffusion.noise import NoiseSource

_FACTORS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEPS = 0x9E3779B9, 0xBB67AE85  # of the key, from round to round
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


class CudaNoise(NoiseSource):
    """As ``NoiseSource``, with the numbers of torch's CUDA generator."""

    def __init__(
        self,
        seeds: tuple[int, ...],
        shape: tuple[int, ...],
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(seeds, shape, device)
        self.seeds, self.draw = tuple(seeds), 0

    def fresh(self) -> Tensor:
        """The next (B, *shape) draw, float32."""
        count = math.prod(self.shape)
        draws = [normal(seed, self.draw, count).reshape(self.shape) for seed in self.seeds]
        self.draw += 1
        return torch.from_numpy(np.stack(draws)).to(self.device)


def normal(seed: int, draw: int, count: int) -> np.ndarray:
    """(count,) float32 numbers of unit deviation: those of the draw of this index, from 0."""
    first, second = _philox(seed, draw, count)
    radius = np.sqrt(-2 * np.log((first + 0.5) * 2.0**-32))
    return (radius * np.sin((second + 0.5) * (2.0**-31 * math.pi))).astype(np.float32)


def _philox(seed: int, draw: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first two of the four 32-bit words for each of ``count`` counters."""
    a, b = np.full(count, draw, np.uint64), np.zeros(count, np.uint64)
    c, d = np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)
    keys = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for step in range(_ROUNDS):
        left, right = (
            np.uint64((key + step * more) & 0xFFFFFFFF)
            for key, more in zip(keys, _STEPS, strict=True)
        )
        one, two = a * _FACTORS[0], c * _FACTORS[1]
        a, b, c, d = (two >> _HALF) ^ b ^ left, two & _LOW, (one >> _HALF) ^ d ^ right, one & _LOW
    return a, b
