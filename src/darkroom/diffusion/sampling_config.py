"""How a checkpoint wants to be sampled: what its ``scheduler_config.json`` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.prediction import Prediction
from darkroom.diffusion.rounded import SHAPES, edm_levels, rounded_levels
from darkroom.diffusion.sampler_options import prediction, sampler_options
from darkroom.diffusion.schedule import (
    BETAS,
    SMALLEST_ALPHA_BAR,
    NoiseSchedule,
    without_last_signal,
)
from darkroom.diffusion.spacing import SPACINGS, karras_sigmas
from darkroom.errors import ConfigError
from darkroom.sampling.classes import EDM_EULER, TRAINED, SchedulerClass
from darkroom.sampling.settings import SHAPES as SHAPE_KEYS
from darkroom.sampling.settings import check, known, scheduler_classes
from darkroom.sampling.table import TABLE


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What a scheduler configuration says, and the levels that follow from it.

    Attributes:
        sampler: one of ``SAMPLERS``: the checkpoint's own.
        settings: what the file says, by diffusers' names; silence means the class's default.
        rounded: visit the published implementations' grids, with their rounding of timesteps;
            False visits the textbook forms in ``SPACINGS``, with fractional timesteps.
        edm: the network is preconditioned as Karras et al., arXiv:2206.00364 have it: its levels
            are sigmas from ``sigma_min`` to ``sigma_max``, and it is told log(sigma) / 4.
    """

    sampler: str = "ddim"
    settings: Mapping[str, Any] = field(default_factory=dict)
    rounded: bool = True
    edm: bool = False

    def __post_init__(self) -> None:
        known("sampler", self.sampler, TABLE)
        check(self.settings)
        object.__setattr__(self, "settings", dict(self.settings))

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> Self:
        """Read the content of a ``scheduler_config.json``; keys that begin with _ say nothing.

        Raises:
            ConfigError: for a class, a key or a value that Darkroom does not know.
        """
        if "_class_name" not in config:
            raise ConfigError("a scheduler configuration needs a _class_name")
        settings = {key: value for key, value in config.items() if not key.startswith("_")}
        name = known("scheduler _class_name", config["_class_name"], scheduler_classes())
        sampler = config.get("_darkroom_sampler") or _sampler(name, settings)
        edm = any(row.edm is not None and row.edm.name == name for row in TABLE.values())
        rounded = not config.get("_darkroom_unrounded", False)
        return cls(sampler=sampler, settings=settings, rounded=rounded, edm=edm)

    def to_diffusers(self) -> dict[str, Any]:
        """The content of a ``scheduler_config.json`` that says the same."""
        scheduler = self._class(self.sampler)
        config = {"_class_name": scheduler.name, "_diffusers_version": "0.36.0", **self.settings}
        for key in ("algorithm_type", "solver_order"):
            if scheduler.name == "DPMSolverMultistepScheduler":
                config.setdefault(
                    key, TABLE[self.sampler].settings.get(key, scheduler.defaults[key])
                )
        if _sampler(scheduler.name, config) != self.sampler:
            config["_darkroom_sampler"] = self.sampler
        return config if self.rounded else config | {"_darkroom_unrounded": True}

    def for_stable_diffusion(self) -> Self:
        """As diffusers' StableDiffusionPipeline (1.x, 2.x) reads outdated files.

        It sets ``steps_offset`` to 1 and switches ``clip_sample`` off, whatever the file says.
        """
        read = self._read()
        changed = {"steps_offset": 1} if read.get("steps_offset", 1) != 1 else {}
        changed |= {"clip_sample": False} if read.get("clip_sample") else {}
        return replace(self, settings={**self.settings, **changed})

    def schedule(self, sampler: str | None = None) -> NoiseSchedule:
        """The noise levels the network was trained on (as ``sampler`` sees them)."""
        read = self._read(sampler)
        if self.edm:
            table = _edm_sigmas(read, int(read["num_train_timesteps"]), read["sigma_schedule"])
            return NoiseSchedule(tuple(table[::-1].tolist()), continuous=True)
        betas = read["trained_betas"]
        if betas is None:
            betas = BETAS[read["beta_schedule"]](
                read["beta_start"], read["beta_end"], int(read["num_train_timesteps"])
            )
        continuous = (
            read.get("timestep_type") == "continuous" and read["prediction_type"] == "v_prediction"
        )
        if not read.get("rescale_betas_zero_snr"):
            return replace(NoiseSchedule.from_betas(betas), continuous=continuous)
        alpha_bar = torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float32), 0)
        # the DDPM family computes with alpha-bar = 0 itself, the others with 2**-24
        exact = self._class(sampler).grid == "ddim"
        floor = 2.0**-40 if exact else SMALLEST_ALPHA_BAR
        schedule = NoiseSchedule.from_alpha_bar(without_last_signal(alpha_bar), floor)
        return replace(schedule, continuous=continuous)

    def prediction(self) -> Prediction:
        """What the network's output means."""
        return prediction(self._read())

    def spacing(self, sampler: str | None = None) -> str:
        """The spacing that ``sampler`` visits for this checkpoint."""
        read = self._read(sampler)
        if self.edm:
            return read["sigma_schedule"]
        if read.get("use_lu_lambdas") and not read["use_karras_sigmas"]:
            return "exponential"
        shaped = [spacing for key, spacing in SHAPE_KEYS.items() if read.get(key)]
        return shaped[0] if shaped else read["timestep_spacing"]

    def levels(
        self,
        steps: int | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> Levels:
        """The levels to visit.

        Args:
            steps: at least 1, at most the number of training timesteps; None is as many as
                ``timesteps``.
            sampler: None takes the checkpoint's own. Naming one alone keeps the checkpoint's
                spacing where its configuration names one, as diffusers' ``from_config`` does.
            spacing: one of ``SPACINGS``; None is the same as ``self.spacing(sampler)``.
            timesteps: the training timesteps to visit, decreasing, instead of a spacing.

        Raises:
            ValueError: for an unknown name, or a number of steps that cannot be spaced.
        """
        sampler = known("sampler", sampler or self.sampler, TABLE, ValueError)
        own = self.spacing(sampler)
        if spacing is not None and timesteps is not None:
            raise ValueError("timesteps are a spacing of their own: give no other beside them")
        spacing = known("spacing", spacing or own, SPACINGS, ValueError)
        schedule, read = self.schedule(sampler), self._read(sampler)
        if timesteps is not None:
            timesteps = _checked(timesteps, steps, schedule)
            steps = len(timesteps)
        if not isinstance(steps, int) or not 1 <= steps <= len(schedule):
            raise ValueError(f"steps must be a whole number from 1 to {len(schedule)}, got {steps}")
        if self.edm:
            if TABLE[sampler].distilled:
                raise ValueError(
                    f"{sampler} needs timesteps, this checkpoint's levels are sigmas: choose "
                    "another sampler"
                )
            shaped = _edm_sigmas(read, steps, spacing) if spacing in SHAPES else None
            sigmas = SPACINGS[spacing](schedule, steps)[:-1] if shaped is None else shaped
            ends_on_last = self._class(sampler).ends_on_last
            return edm_levels(read, sampler, schedule, np.array(sigmas), ends_on_last)
        if not self.rounded:
            sigmas = (
                SPACINGS[spacing](schedule, steps)
                if timesteps is None
                else (*map(schedule.sigma, timesteps), 0.0)
            )
            levels = replace(Levels.of(sigmas, schedule), order=TABLE[sampler].calls)
            return levels.warmed_up() if sampler == "pndm" else levels
        # LCM and TCD have a grid of their own, whatever spacing their configuration names
        grid = None if TABLE[sampler].distilled and spacing == own else spacing
        return rounded_levels(read, sampler, schedule, steps, grid, timesteps)

    def options(self, sampler: str | None = None) -> dict[str, Any]:
        """The keyword arguments with which ``sampler`` runs for this checkpoint."""
        sampler = known("sampler", sampler or self.sampler, TABLE, ValueError)
        return sampler_options(sampler, self._read(sampler))

    def _class(self, sampler: str | None = None) -> SchedulerClass:
        row = TABLE[sampler or self.sampler]
        return (row.edm or EDM_EULER) if self.edm else row.scheduler

    def _read(self, sampler: str | None = None) -> dict[str, Any]:
        """Every setting that ``sampler`` reads, defaults filled in."""
        row, scheduler = TABLE[sampler or self.sampler], self._class(sampler)
        defaults = {**(row.scheduler.defaults if self.edm else {}), **scheduler.defaults}
        own = self._class().defaults
        # how the network was trained is read through the checkpoint's own class
        trained = {key: own[key] for key in _TRAINED_KEYS if key in own}
        heard = {*defaults, *trained}
        said = {
            key: value for key, value in self.settings.items() if value is not None and key in heard
        }
        return {**defaults, **row.settings, **trained, **said, **scheduler.fixed}


_TRAINED_KEYS = (*TRAINED, "timestep_type")


def _sampler(name: str, settings: Mapping[str, Any]) -> str:
    """The sampler that a class is with these settings: the row that asks for the most of them."""
    found = {
        sampler: len(row.when)
        for sampler, row in TABLE.items()
        if row.when is not None
        and name in (row.scheduler.name, row.edm.name if row.edm else None)
        and all(settings.get(key) in values for key, values in row.when.items())
    }
    return max(found, key=found.__getitem__)


def _edm_sigmas(read: Mapping[str, Any], steps: int, spacing: str) -> np.ndarray:
    high, low = float(read["sigma_max"]), float(read["sigma_min"])
    if spacing == "karras":
        return karras_sigmas(high, low, steps, read["rho"])
    return SHAPES[spacing](high, low, steps)


def _checked(
    timesteps: Sequence[float], steps: int | None, schedule: NoiseSchedule
) -> tuple[float, ...]:
    """Explicit timesteps, if the schedule has them."""
    if schedule.continuous:
        raise ValueError("this checkpoint has no timesteps, its levels are sigmas: give a spacing")
    if isinstance(timesteps, str) or not len(timesteps):
        raise ValueError("timesteps: expected at least one, such as 999,749,499,249")
    last = len(schedule) - 1
    for timestep in timesteps:
        whole = not isinstance(timestep, bool) and isinstance(timestep, int | float | np.number)
        if not whole or timestep != int(timestep) or not 0 <= timestep <= last:
            raise ValueError(f"timestep {timestep!r}: expected a whole number from 0 to {last}")
    for before, after in pairwise(timesteps):
        if after >= before:
            raise ValueError(
                f"timesteps must decrease, but {after:g} comes after {before:g}: sort them, each "
                "once"
            )
    if steps is not None and steps != len(timesteps):
        raise ValueError(
            f"{len(timesteps)} timesteps are {len(timesteps)} steps, but {steps} were asked for: "
            "leave the steps out"
        )
    return tuple(map(float, timesteps))
