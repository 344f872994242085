"""What a sampler is and what it yields."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource

Denoise = Callable[[Tensor, float], Tensor]  # (x, sigma) -> estimate of the clean image


@dataclass(frozen=True)
class Step:
    """What is known after one call of the network.

    Attributes:
        index: counts the calls, from 0.
        sigma: the level that ``x`` is at now.
        x: (B, C, H, W) the sample.
        denoised: the estimate of the clean image that this call gave: the preview.
    """

    index: int
    sigma: float
    x: Tensor
    denoised: Tensor


class Sampler(Protocol):
    """From noise to image along a list of levels.

    A sampler is a generator that yields one Step per network call, so progress bars, previews
    and cancelling are the caller's for-loop, not callbacks.
    """

    def __call__(
        self, denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, **options: object
    ) -> Iterator[Step]: ...


SAMPLERS: dict[str, Sampler] = {}


def sampler(function: Callable[..., Iterator[Step]]) -> Sampler:
    """List a sampler under its name.

    What is listed checks its options at the call and keeps the state in float32 (or float64, if
    ``x`` is), whatever the network computes in.
    """
    parameters = inspect.signature(function).parameters.values()
    hints = get_type_hints(function)
    allowed = {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}

    @wraps(function)
    def start(
        denoise: Denoise, x: Tensor, levels: Levels, noise: NoiseSource, **options: object
    ) -> Iterator[Step]:
        for name, value in options.items():
            if name not in allowed:
                valid = ", ".join(allowed) or "none"
                raise ValueError(
                    f"sampler {function.__name__} has no option {name!r}; it has: {valid}"
                )
            if wanted := _unlike(value, allowed[name]):
                raise ValueError(
                    f"option {name} of sampler {function.__name__} must be {wanted}, got {value!r}"
                )
        x = x.to(torch.promote_types(x.dtype, torch.float32))

        def estimate(x: Tensor, sigma: float) -> Tensor:
            return denoise(x, sigma).to(x.device, x.dtype)

        return function(estimate, x, levels, noise, **options)

    SAMPLERS[function.__name__] = start
    return start


def _unlike(value: Any, hint: object) -> str | None:
    """What an option with this annotation must be, if ``value`` is not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else f"one of {', '.join(get_args(hint))}"
    if hint is bool:
        return None if isinstance(value, bool) else "True or False"
    if hint is int:
        return None if number and value >= 1 and value == int(value) else "a whole number from 1"
    if hint is float:
        return None if number and 0 <= value < float("inf") else "a number from 0"
    return None
