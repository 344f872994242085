"""A second model that takes a run over at some step: XL's refiner, or any other of its kind."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from darkroom.arguments import number
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation.feature import Feature, Run
from darkroom.generation.fingerprint import fingerprint
from darkroom.generation.metadata import Params, UsedRefiner


class Refiner(Feature):
    """Let another model take the last steps (Podell et al., arXiv:2307.01952, section 2.5).

    The noisy latents change hands: the sampler starts anew at the level that was reached, as with
    diffusers' ``denoising_end`` and ``denoising_start``. Prompt, guidance and what works on
    estimates hold for both models; LoRAs, controls and further input channels for the first alone.
    To refine a finished picture, draw with the refiner and ``ImageToImage(picture, 0.3)``.

    Args:
        model: whose latents are those of the run's model, such as ``load("sdxl-refiner")``.
        start: the fraction of the way through the trained noise levels at which it takes over, as
            in diffusers: the steps whose timestep is below (1 - start) * 1000 are its.

    Raises:
        ConfigError: a start that is not between 0 and 1; at the run: it leaves one model no step.
        ModelMismatchError: the model cannot go on with the latents of the run's.
    """

    def __init__(self, model: LatentDiffusion, start: float = 0.8) -> None:
        if not isinstance(model, LatentDiffusion):
            raise ModelMismatchError(
                f"a {type(model).__name__} refines nothing: expected a whole latent-diffusion model"
            )
        start = number("refiner start", start, "between 0 and 1; 0.8 is usual")
        if not 0 < start < 1:
            raise ConfigError(f"refiner start {start}: expected between 0 and 1; 0.8 is usual")
        self.model, self.start = model, float(start)

    def hand_over(self, run: Run) -> Run:
        _check(run.model, self.model)
        trained = len(run.model.schedule)
        cutoff = round(trained - self.start * trained)
        done = sum(timestep >= cutoff for timestep in run.levels.timesteps)
        steps = len(run.levels.timesteps)
        if done in (0, steps):
            idle = "the refiner" if done else "the model before it"
            raise ConfigError(
                f"refiner start {self.start:g} leaves {idle} no step of {steps}: "
                f"{'lower' if done else 'raise'} it, or take more steps"
            )
        try:
            levels = run.levels.skip(done)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return replace(
            run, model=self.model, levels=levels, concat=None, encoded={}, while_encoding=()
        )

    def describe(self) -> Mapping[str, Any]:
        model = self.model
        return {
            "refiner": UsedRefiner(
                name=model.name, start=self.start, fingerprint=fingerprint(model)
            )
        }


def again(params: Params, model: LatentDiffusion | None, *, exact: bool = True) -> list[Feature]:
    """The refiner of a picture.

    Raises:
        ConfigError: it had one, and none is given.
        ModelMismatchError: it was another one, and ``exact`` is asked for.
    """
    used = params.refiner
    if used is None:
        return []
    if model is None:
        raise ConfigError(f"the picture was refined by {used.name!r}: give that model too")
    if exact and used.fingerprint and (found := fingerprint(model)) != used.fingerprint:
        raise ModelMismatchError(
            f"the picture was refined by {used.name!r} (fingerprint {used.fingerprint}), this "
            f"refiner has {found}: load that model, or pass exact=False for another picture"
        )
    return [Refiner(model, used.start)]


def _check(first: LatentDiffusion, second: LatentDiffusion) -> None:
    said = f"refiner {second.name or 'model'}"
    for what, a, b in (
        ("latent channels", first.autoencoder.channels, second.autoencoder.channels),
        ("pixels a latent", first.autoencoder.factor, second.autoencoder.factor),
    ):
        if a != b:
            raise ModelMismatchError(
                f"{said} has {b} {what}, {first.name or 'the model'} {a}: expected one of the "
                "same latents"
            )
    taken = getattr(getattr(second.unet, "config", None), "in_channels", None)
    if taken not in (None, second.autoencoder.channels):
        raise ModelMismatchError(
            f"{said} takes {taken} input channels: expected a plain text-to-image model"
        )
    if first.schedule != second.schedule:
        raise ModelMismatchError(
            f"{said} was trained on other noise levels than {first.name or 'the model'}: expected "
            "the same schedule"
        )
