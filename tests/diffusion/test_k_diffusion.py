"""Samplers equal k-diffusion's, of which ``vectors/k_diffusion.py`` stored what they make."""

import json
from pathlib import Path

import pytest
import torch

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.samplers import SAMPLERS
from vectors.k_diffusion import LEVELS, RUNS, Draws, denoiser, start

STORED = json.loads((Path(__file__).parents[1] / "vectors/k_diffusion.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_every_level(name):
    sampler, _, _ = name.partition(" ")
    levels = Levels.of(LEVELS)
    steps = list(SAMPLERS[sampler](denoiser, start(), levels, Draws(), **RUNS[name][2]))
    landed = [next(s.x for s in reversed(steps) if s.sigma == sigma) for sigma in LEVELS[1:]]
    wanted = torch.tensor(STORED[name], dtype=torch.float64)
    got = torch.stack([start(), *landed]).squeeze(1)
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-8)
