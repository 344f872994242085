"""The noise levels one generation visits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

from torch import Tensor

from darkroom.diffusion.schedule import NoiseSchedule

RUNGE_KUTTA = 12  # calls of PNDM's own warm-up


@dataclass(frozen=True, kw_only=True)
class Levels:
    """What a sampler walks down, from the noisiest level to none.

    Attributes:
        sigmas: one per visited level and a closing 0.0. Decreasing; PNDM names its second
            level twice, once per network call.
        timesteps: what the network is told at each level but the last.
        steps: how many steps were asked for.
        schedule: for levels that are not in the table.
        initial_scale: pure noise starts as ``initial_scale * unit noise``.
        order: network calls per level (2 for Heun, DPM2 and their like; the last level always has
            one).
        stride: DDIM and PNDM land this many timesteps further down, whatever level comes next.
            None: they land on the next level.
        final: where the last step really lands. Stable Diffusion's own DDIM and PNDM stop at
            timestep 0 (sigma 0.029) and hand over what they have as the clean image.
        preserving: a level that is taken for another one keeps the variance-preserving sample
            ``x / sqrt(1 + sigma**2)`` (the DDPM family); else it keeps ``x`` (k-diffusion).
        warm_up: how many calls PNDM takes before it is a linear multistep method: 2 for Stable
            Diffusion's form, 12 for the paper's three Runge-Kutta steps.
        skipped: sigmas that image-to-image left out at the start. LMS, PNDM and the order rules
            of DPM-Solver and UniPC look back at them, as diffusers' do.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    steps: int
    schedule: NoiseSchedule | None = None
    initial_scale: float = 1.0
    order: int = 1
    stride: int | None = None
    final: float = 0.0
    preserving: bool = True
    warm_up: int = 0
    skipped: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.sigmas) < 2 or self.sigmas[-1] != 0:
            raise ValueError(f"levels need a sigma and a closing 0.0, got {self.sigmas[-2:]}")
        if len(self.timesteps) != len(self.sigmas) - 1:
            raise ValueError(
                f"{len(self.sigmas)} sigmas need {len(self.sigmas) - 1} timesteps, "
                f"got {len(self.timesteps)}"
            )
        if not all(a >= b for a, b in pairwise(self.sigmas)):
            raise ValueError("sigmas must decrease")

    @classmethod
    def of(cls, sigmas: Sequence[float], schedule: NoiseSchedule | None = None) -> Self:
        """Any decreasing sigmas that end with 0.0; timesteps from ``schedule``, unrounded."""
        sigmas = tuple(float(sigma) for sigma in sigmas)
        timesteps = tuple(schedule.told(s) if schedule else 0.0 for s in sigmas[:-1])
        start = (sigmas[0] ** 2 + 1) ** 0.5
        return cls(
            sigmas=sigmas,
            timesteps=timesteps,
            steps=len(timesteps),
            schedule=schedule,
            initial_scale=start,
        )

    @property
    def calls(self) -> int:
        """How many times the network is called, and how many Steps a sampler yields."""
        return self.order * (len(self.timesteps) - 1) + 1

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(from, to) of each step: ``to`` is where it really lands."""
        return [(sigma, self.landing(i)) for i, sigma in enumerate(self.sigmas[:-1])]

    def landing(self, i: int) -> float:
        """Where step ``i`` really lands; differs from ``sigmas[i + 1]`` as told above."""
        if self.stride is None or self.schedule is None:
            return self.final if i == len(self.timesteps) - 1 else self.sigmas[i + 1]
        timestep = int(self.timesteps[i]) - self.stride
        return self.schedule.sigmas[timestep] if timestep >= 0 else self.final

    def above(self, i: int) -> float:
        """The level one step above level ``i``."""
        if self.stride is not None and self.schedule is not None:
            timestep = int(self.timesteps[i]) + self.stride
            return self.schedule.sigmas[min(timestep, len(self.schedule) - 1)]
        return next(s for s in (*self.sigmas[i::-1], *self.skipped[::-1]) if s > self.sigmas[i])

    def renamed(self, i: int, x: Tensor) -> Tensor:
        """``x`` as step ``i`` left it, as a sample of level ``sigmas[i + 1]``."""
        return renamed(x, self.landing(i), self.sigmas[i + 1]) if self.preserving else x

    def timestep(self, sigma: float) -> float:
        """What the network is told at ``sigma``: the table first, else the schedule."""
        if sigma in self.sigmas[:-1]:
            return self.timesteps[self.sigmas.index(sigma)]
        if self.schedule is None:
            raise ValueError(f"no timestep for sigma {sigma}: give Levels a schedule")
        return self.schedule.told(sigma)

    def skip(self, done: int) -> Self:
        """Without the first ``done`` levels: how image-to-image starts, exactly as diffusers.

        ``skip(n).fresh()`` starts the sampler's textbook form there instead.

        Raises:
            ValueError: if no level is left.
        """
        if not 0 <= done < len(self.timesteps):
            raise ValueError(f"cannot skip {done} of {len(self.timesteps)} levels: none is left")
        if done and self.warm_up == RUNGE_KUTTA:
            raise ValueError(
                "PNDM with its Runge-Kutta warm-up cannot start midway: set skip_prk_steps, "
                "or choose another sampler"
            )
        return replace(
            self,
            sigmas=self.sigmas[done:],
            timesteps=self.timesteps[done:],
            skipped=self.skipped + self.sigmas[:done],
        )

    def strength(self, strength: float) -> Self:
        """The last ``strength`` of the steps (0 to 1), counted as diffusers' pipelines count.

        PNDM with its Runge-Kutta warm-up starts there with Stable Diffusion's warm-up: diffusers
        would take the levels for those at the top.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {strength}")
        kept = min(int(self.steps * strength), self.steps)
        if kept == 0:
            raise ValueError(
                f"strength {strength} of {self.steps} steps leaves none: give a strength of at "
                f"least {1 / self.steps:.3g}, or at least {math.ceil(1 / strength)} steps"
            )
        done = self.steps - kept
        if done and self.warm_up == RUNGE_KUTTA:
            return self._without_runge_kutta().skip(done).fresh().warmed_up()
        return self.skip(done)

    def _without_runge_kutta(self) -> Self:
        """The levels between which the three steps of four calls went."""
        return replace(
            self,
            sigmas=self.sigmas[:RUNGE_KUTTA:4] + self.sigmas[RUNGE_KUTTA:],
            timesteps=self.timesteps[:RUNGE_KUTTA:4] + self.timesteps[RUNGE_KUTTA:],
            warm_up=0,
        )

    def fresh(self) -> Self:
        """The same levels without a past."""
        first = 1 if self.sigmas[0] == self.sigmas[1] else 0
        return replace(
            self,
            sigmas=self.sigmas[first:],
            timesteps=self.timesteps[first:],
            warm_up=0,
            skipped=(),
        )

    def warmed_up(self) -> Self:
        """With the second level named twice: PNDM's first step takes two calls."""
        if len(self.timesteps) < 2 or self.warm_up:
            return self
        (first, second, *rest), (t1, t2, *later) = self.sigmas, self.timesteps
        return replace(
            self, sigmas=(first, second, second, *rest), timesteps=(t1, t2, t2, *later), warm_up=2
        )


def renamed(x: Tensor, landed: float, name: float) -> Tensor:
    """``x`` at ``landed``, taken for a sample of level ``name``: x / sqrt(1 + sigma^2) stays."""
    return x if landed == name else x * ((1 + name**2) / (1 + landed**2)) ** 0.5
