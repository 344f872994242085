"""How a checkpoint wants to be sampled: what its ``scheduler_config.json`` says."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.prediction import Prediction
from darkroom.diffusion.rounded import rounded_levels
from darkroom.diffusion.sampler_options import prediction, sampler_options
from darkroom.diffusion.schedule import (
    BETAS,
    SMALLEST_ALPHA_BAR,
    NoiseSchedule,
    without_last_signal,
)
from darkroom.diffusion.scheduler_classes import CLASSES, check, known
from darkroom.diffusion.spacing import SPACINGS
from darkroom.errors import ConfigError

# How a network was trained: read through the checkpoint's own class, whoever samples it.
TRAINED_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What a scheduler configuration says, and the levels that follow from it.

    Attributes:
        sampler: one of ``SAMPLERS``: the checkpoint's own.
        settings: what the file says, by diffusers' names; silence means the class's default.
        rounded: visit the published implementations' grids, with their rounding of timesteps;
            False visits the textbook forms in ``SPACINGS``, with fractional timesteps.
    """

    sampler: str = "ddim"
    settings: Mapping[str, Any] = field(default_factory=dict)
    rounded: bool = True

    def __post_init__(self) -> None:
        known("sampler", self.sampler, CLASSES)
        for key, value in self.settings.items():
            check(key, value)
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
        name = config["_class_name"]
        known("scheduler _class_name", name, {row.name for row in CLASSES.values()})
        sampler = next(sampler for sampler, row in CLASSES.items() if row.name == name)
        if sampler == "dpmpp_2m" and "sde" in str(settings.get("algorithm_type")):
            sampler = "dpmpp_3m_sde" if settings.get("solver_order") == 3 else "dpmpp_2m_sde"
        rounded = not config.get("_darkroom_unrounded", False)
        return cls(sampler=sampler, settings=settings, rounded=rounded)

    def to_diffusers(self) -> dict[str, Any]:
        """The content of a ``scheduler_config.json`` that says the same."""
        row = CLASSES[self.sampler]
        config = {"_class_name": row.name, "_diffusers_version": "0.36.0", **self.settings}
        for key in ("algorithm_type", "solver_order"):
            if row.name == "DPMSolverMultistepScheduler":
                config.setdefault(key, row.defaults[key])
        return config if self.rounded else config | {"_darkroom_unrounded": True}

    def for_stable_diffusion(self) -> Self:
        """As diffusers' StableDiffusionPipeline (1.x, 2.x) reads outdated files.

        It sets ``steps_offset`` to 1 and switches ``clip_sample`` off, whatever the file says.
        """
        read = self._read()
        changed = {"steps_offset": 1} if read["steps_offset"] != 1 else {}
        changed |= {"clip_sample": False} if read.get("clip_sample") else {}
        return replace(self, settings={**self.settings, **changed})

    def schedule(self, sampler: str | None = None) -> NoiseSchedule:
        """The noise levels the network was trained on (as ``sampler`` sees them)."""
        read = self._read(sampler)
        betas = read["trained_betas"]
        if betas is None:
            betas = BETAS[read["beta_schedule"]](
                read["beta_start"], read["beta_end"], int(read["num_train_timesteps"])
            )
        if not read.get("rescale_betas_zero_snr"):
            return NoiseSchedule.from_betas(betas)
        alpha_bar = torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float32), 0)
        # the DDPM family computes with alpha-bar = 0 itself, the others with 2**-24
        exact = CLASSES[sampler or self.sampler].grid == "ddim"
        floor = 2.0**-40 if exact else SMALLEST_ALPHA_BAR
        return NoiseSchedule.from_alpha_bar(without_last_signal(alpha_bar), floor)

    def prediction(self) -> Prediction:
        """What the network's output means."""
        return prediction(self._read())

    def spacing(self, sampler: str | None = None) -> str:
        """The spacing that ``sampler`` visits for this checkpoint."""
        read = self._read(sampler)
        if read.get("use_karras_sigmas"):
            return "karras"
        if read.get("use_exponential_sigmas") or read.get("use_lu_lambdas"):
            return "exponential"
        return read["timestep_spacing"]

    def levels(self, steps: int, sampler: str | None = None, spacing: str | None = None) -> Levels:
        """The levels to visit.

        Args:
            steps: at least 1, at most the number of training timesteps.
            sampler: None takes the checkpoint's own. Naming one alone keeps the checkpoint's
                spacing where its configuration names one, as diffusers' ``from_config`` does.
            spacing: one of ``SPACINGS``; None is the same as ``self.spacing(sampler)``.

        Raises:
            ValueError: for an unknown name, or a number of steps that cannot be spaced.
        """
        sampler = known("sampler", sampler or self.sampler, CLASSES, ValueError)
        own = self.spacing(sampler)
        spacing = known("spacing", spacing or own, SPACINGS, ValueError)
        schedule = self.schedule(sampler)
        if not isinstance(steps, int) or not 1 <= steps <= len(schedule):
            raise ValueError(f"steps must be a whole number from 1 to {len(schedule)}, got {steps}")
        if not self.rounded:
            levels = Levels.of(SPACINGS[spacing](schedule, steps), schedule)
            levels = replace(levels, order=2 if sampler == "heun" else 1)
            return levels.warmed_up() if sampler == "pndm" else levels
        # LCM has a grid of its own, whatever spacing its configuration names
        grid = None if sampler == "lcm" and spacing == own else spacing
        return rounded_levels(self._read(sampler), sampler, schedule, steps, grid)

    def options(self, sampler: str | None = None) -> dict[str, Any]:
        """The keyword arguments with which ``sampler`` runs for this checkpoint."""
        sampler = known("sampler", sampler or self.sampler, CLASSES, ValueError)
        return sampler_options(sampler, self._read(sampler))

    def _read(self, sampler: str | None = None) -> dict[str, Any]:
        """Every setting that ``sampler`` reads, defaults filled in."""
        sampler = sampler or self.sampler
        own, defaults = CLASSES[self.sampler].defaults, CLASSES[sampler].defaults
        trained = {key: own[key] for key in TRAINED_KEYS}
        said = {key: value for key, value in self.settings.items() if value is not None}
        return {**defaults, **trained, **{key: said[key] for key in said if key in defaults}}
