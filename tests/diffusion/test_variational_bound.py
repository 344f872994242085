"""The bound on bits: against data whose entropy and best denoiser are known."""

import math

import pytest
import torch

from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.diffusion.variational_bound import reconstruction, variational_bound


def test_the_best_denoiser_of_coin_flips_needs_a_bit_each():
    """Pixels of -1 or 1: E[clean | x] = tanh(x / sigma^2); the entropy is one bit."""
    g = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 2, (50, 1, 16, 16), generator=g) * 2.0 - 1

    def bits(denoise):
        nats = variational_bound(denoise, clean, NoiseSchedule.linear(), 0.002, g, draws=200)
        return nats.mean().item() / (256 * math.log(2))

    best = bits(lambda x, sigma: (x / sigma**2).tanh())
    assert 0.99 < best < 1.05  # the surplus is that of 1,000 steps
    assert bits(lambda x, sigma: (x / sigma**2).tanh() * 0.9) > best + 0.1
    assert bits(lambda x, sigma: x.clamp(-1, 1)) > best + 0.1


@pytest.mark.parametrize("deviation", [0.001, 0.01, 0.3])
def test_the_256_values_have_probability_one(deviation):
    values = (torch.arange(256).double() / 127.5 - 1)[:, None, None, None]
    for mean in (-1.0, 0.11, 0.97):
        nats = reconstruction(values, torch.full_like(values, mean), deviation)
        assert torch.logsumexp(-nats, 0).item() == pytest.approx(0, abs=1e-6)
