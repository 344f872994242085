"""The noise that another program draws from a seed: on a GPU, varied, or from other seeds later."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.philox import CudaNoise
from darkroom.errors import ConfigError
from darkroom.generation.feature import Feature, Run
from darkroom.generation.metadata import Params, UsedNoise

ALIKE = 0.9995  # mean cosine from which A1111 mixes along the straight line


class SeedNoise(Feature):
    """Draw the noise of a run as A1111 draws it.

    Args:
        source: whose generator: torch's on the CPU, as without this feature, or on an NVIDIA GPU.
        variation: the seed of a second noise, counted up in a batch; None = none.
        strength: how much of it is in the first noise, 0 to 1, along the great circle (Shoemake,
            "Animating rotation with quaternion curves", 1985) of each column, as A1111 has it.
        later: added to the seed for the noise that samplers add at later steps; A1111's ENSD.

    Raises:
        ConfigError: an unknown source, or a number out of its range.
    """

    def __init__(
        self,
        source: Literal["cpu", "cuda"] = "cpu",
        variation: int | None = None,
        strength: float = 0.0,
        later: int = 0,
    ) -> None:
        if source not in ("cpu", "cuda"):
            raise ConfigError(f"noise source {source!r}: expected 'cpu' or 'cuda'")
        if not 0 <= strength <= 1:
            raise ConfigError(f"variation strength {strength}: expected 0 to 1")
        if variation is not None and not 0 <= variation < 2**64:
            raise ConfigError(f"variation seed {variation}: expected 0 to 2**64 - 1")
        self.used = UsedNoise(source=source, variation=variation, strength=strength, later=later)

    def prepare(self, run: Run) -> Run:
        used, shape = self.used, tuple(run.initial.shape[1:])
        noise = self._source(run.seeds, shape, run)
        initial = noise.fresh()
        if used.variation is not None and used.strength:
            seeds = tuple(used.variation + i for i in range(len(run.seeds)))
            other = self._source(seeds, shape, run).fresh()
            mixed = [_mixed(*pair, used.strength) for pair in zip(initial, other, strict=True)]
            initial = torch.stack(mixed)
        if used.later:
            noise = self._source(tuple(seed + used.later for seed in run.seeds), shape, run)
        return replace(run, initial=initial.to(run.initial), noise=noise)

    def _source(self, seeds: tuple[int, ...], shape: tuple[int, ...], run: Run) -> NoiseSource:
        kind = CudaNoise if self.used.source == "cuda" else NoiseSource
        return kind(tuple(seed % 2**64 for seed in seeds), shape, run.model.device)

    def describe(self) -> Mapping[str, Any]:
        return {"noise": self.used}


def again(params: Params) -> list[Feature]:
    """The noise of a picture, where it was another than a seed's own."""
    used = params.noise
    if used is None:
        return []
    source: Any = used.source
    return [SeedNoise(source, used.variation, used.strength, used.later)]


def _mixed(first: Tensor, second: Tensor, strength: float) -> Tensor:
    """(C, H, W) between two noises; the angle is that of each column, along H."""
    cosine = torch.cosine_similarity(first, second, dim=1, eps=0)[:, None]
    if cosine.mean() > ALIKE:
        return torch.lerp(first, second, strength)
    angle = torch.acos(cosine)
    parts = torch.sin((1 - strength) * angle) * first + torch.sin(strength * angle) * second
    return parts / torch.sin(angle)
