"""What a run is asked for, checked and made plain."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from darkroom.arguments import items, shown, whole, wholes
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ArgumentError, ConfigError, ModelMismatchError
from darkroom.generation.feature import Feature, Layer
from darkroom.names import did_you_mean

MOST_SEEDS = 4096  # of one run


def check_model(model: object) -> None:
    """Refuse what is no whole model. Raises ArgumentError, ModelMismatchError."""
    if isinstance(model, LatentDiffusion):
        return
    if isinstance(model, str | os.PathLike):
        name = shown(os.fspath(model))
        raise ArgumentError(f"model {name}: a name; open it first: dr.load({name})")
    raise ModelMismatchError(
        f"a {type(model).__name__} alone draws no pictures: expected a whole latent-diffusion "
        "model, such as dr.load('emoji')"
    )


def check_features(features: Sequence[Feature]) -> None:
    """Refuse what is no feature, and features of which one run takes one alone."""
    for feature in features:
        if not isinstance(feature, Feature):
            kind = f", made by calling it: {feature.__name__}(...)" if _is_kind(feature) else ""
            raise ArgumentError(
                f"{shown(feature)} is no feature: expected Guidance(7.5), ImageToImage(photo), "
                f"...{kind}"
            )
    if sum(feature.layer is Layer.GUIDANCE for feature in features) > 1:
        raise ConfigError("two guidance features: give at most one")
    starting = [type(feature).__name__ for feature in features if feature.starts]
    if len(starting) > 1:
        raise ConfigError(
            f"{' and '.join(starting)} both say what the run starts from: give one of them, or "
            "leave the strength of the other one out"
        )


def _is_kind(feature: object) -> bool:
    return isinstance(feature, type) and issubclass(feature, Feature)


def known(kind: str, name: str | None, names: Sequence[str]) -> None:
    """Refuse a name that is not one of ``names``."""
    if name is not None and name not in names:
        hint = did_you_mean(name, names) if isinstance(name, str) else ""
        raise ArgumentError(f"{kind} {shown(name)}: expected one of {', '.join(names)}{hint}")


def seeds_of(seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds as Python's numbers."""
    asked = "a list of at least one, such as seeds=[7]"
    found = items("seeds", seeds, asked)
    if not found:
        raise ArgumentError(f"seeds {shown(seeds)}: expected {asked}")
    if len(found) > MOST_SEEDS:
        raise ArgumentError(f"{len(found):,} seeds: expected at most {MOST_SEEDS:,} in one run")
    limits = "a whole number from 0 to 2**64 - 1"
    numbers = tuple(whole("seed", seed, limits) for seed in found)
    for seed in numbers:
        if seed >= 2**64:
            raise ArgumentError(f"seed {seed}: expected {limits}")
    return numbers


def timesteps_of(timesteps: Sequence[int] | None) -> list[int] | None:
    """Numbers from a list, a tuple, an array or a tensor; whether they fit, the levels see."""
    if timesteps is None:
        return None
    asked = "a list that decreases, such as [999, 499]"
    plain = getattr(timesteps, "tolist", lambda: timesteps)()
    found = items("timesteps", plain, asked)
    return [
        whole("timesteps", int(t) if isinstance(t, float) and t.is_integer() else t, asked)
        for t in found
    ]


def options_of(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of the sampler, in a copy."""
    if options is not None and not isinstance(options, Mapping):
        expected = 'options of the sampler by name, such as {"eta": 1.0}'
        raise ArgumentError(f"options {shown(options)}: expected {expected}")
    return dict(options or {})


def size_of(
    model: LatentDiffusion, size: tuple[int, int] | None, features: Sequence[Feature]
) -> tuple[int, int]:
    """(height, width) of the run: what is asked for, or what features and model suggest."""
    factor = model.autoencoder.factor
    if size is None:
        size = _natural_size(features, factor, model.settings.get("size", (512, 512)))
    pair = "(height, width) in pixels, such as (512, 512)"
    sides = wholes("size", size, pair)
    if len(sides) != 2:
        raise ArgumentError(f"size {shown(size)}: expected {pair}")
    height, width = sides
    for side in sides:
        if side < factor or side % factor:
            near = max(round(side / factor), 1) * factor
            raise ArgumentError(
                f"size {width}x{height}: width and height must be multiples of {factor}, "
                f"such as {near}"
            )
    return height, width


def _natural_size(
    features: Sequence[Feature], factor: int, own: tuple[int, int]
) -> tuple[int, int]:
    """What the features ask for: first those around the final estimate, which put it to use."""
    for layer in sorted(Layer, reverse=True):
        asked = [feature for feature in features if feature.layer is layer]
        sizes = {found for each in asked if (found := each.natural_size(factor, own))}
        if len(sizes) > 1:
            found = " and ".join(f"{width}x{height}" for height, width in sorted(sizes))
            raise ConfigError(f"the pictures given are of {found}: say which size to draw")
        if sizes:
            return sizes.pop()
    return own


def noise_of(noise: Tensor, own: Tensor) -> Tensor:
    """The first noise that was given, where and as ``own`` is."""
    try:
        given = torch.as_tensor(noise)
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is None or given.shape != own.shape or not torch.isfinite(given).all():
        raise ArgumentError(
            f"noise {shown(noise)}: expected {tuple(own.shape)}, finite, of unit variance"
        )
    return given.to(own)
