"""How the network of a single file was trained, by what the file, its metadata and its name say."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.errors import CheckpointError, ConfigError
from darkroom.models.autoencoder import SDXL_AUTOENCODER, AutoencoderConfig
from darkroom.models.unet import UNetConfig
from darkroom.weights import families
from darkroom.weights.catalog import Known

# Tensors by which a file says how it was trained. All programs look for them in this order.
LATENT_MEAN, LATENT_DEVIATION = "edm_mean", "edm_std"  # (1, C, 1, 1): Playground v2.5
HIGHEST, LOWEST = "edm_vpred.sigma_max", "edm_vpred.sigma_min"  # CosXL
VELOCITY, ZERO_TERMINAL_SNR = "v_pred", "ztsnr"  # of no size: NoobAI, Illustrious
MARKS = frozenset({LATENT_MEAN, LATENT_DEVIATION, HIGHEST, LOWEST, VELOCITY, ZERO_TERMINAL_SNR})


@dataclass(frozen=True)
class Trained:
    """What a file, its metadata and the catalogue say about how its network was trained."""

    path: Path
    family: str
    state: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    own: Mapping[str, Any]
    known: Known | None

    def sampling(self, unet: UNetConfig, prediction: str | None) -> SamplingConfig:
        """The scheduler of the family, for this network.

        Raises:
            CheckpointError: an SD 2 file that does not say what it predicts.
        """
        if "scheduler" in self.own:
            try:
                return families.predicting(
                    SamplingConfig.from_diffusers(self.own["scheduler"]), prediction
                )
            except ConfigError as error:
                raise CheckpointError(f"{self.path}: {error}") from None
        config = self.edm() or self.discrete()
        name = prediction
        if name is None and not config["_class_name"].startswith("EDM"):
            name = self.prediction(unet)
        return families.predicting(SamplingConfig.from_diffusers(config), name)

    def edm(self) -> dict[str, Any]:
        """The scheduler of a network with continuous levels, preconditioned; {} where it is none.

        Karras et al., arXiv:2206.00364.

        Raises:
            CheckpointError: the levels that the file tells are none.
        """
        if LATENT_MEAN in self.state and LATENT_DEVIATION in self.state:
            return {**families.PLAYGROUND}
        if HIGHEST not in self.state:
            return {}
        levels = {"sigma_max": self._level(HIGHEST)}
        levels |= {"sigma_min": self._level(LOWEST)} if LOWEST in self.state else {}
        config = {**families.COSXL, **levels}
        if not 0 < config["sigma_min"] < config["sigma_max"] < 1e6:
            raise CheckpointError(
                f"{self.path}: EDM levels from {config['sigma_min']:g} to "
                f"{config['sigma_max']:g}: expected two rising numbers above 0"
            )
        return config

    def _level(self, name: str) -> float:
        found = self.state[name]
        if found.numel() != 1:
            raise CheckpointError(f"{self.path}: {name} has {found.numel()} numbers, expected one")
        return round(float(found), 6)  # 0.002 as it was before it became float32

    def discrete(self) -> dict[str, Any]:
        """The family's scheduler, with the levels that the file brings."""
        turbo = self.known is not None and self.known.settings.get("steps") == 1
        config = {**(families.TURBO if turbo else families.SCHEDULERS[self.family])}
        if ZERO_TERMINAL_SNR in self.state:
            config["rescale_betas_zero_snr"] = True
        betas = self.betas()
        if betas is not None:
            config["trained_betas"] = betas
        return config

    def prediction(self, unet: UNetConfig) -> str:
        """Noise or velocity, by the file, then the catalogue, then the family."""
        spec = self.metadata.get("modelspec.prediction_type", "")
        if VELOCITY in self.state or spec.startswith("v"):
            return "velocity"
        if spec:
            return "noise"
        if self.known is not None and self.known.prediction:
            return self.known.prediction
        if self.family == "sd2" and unet.in_channels == 4:
            raise CheckpointError(
                f"{self.path}: a Stable Diffusion 2 file does not say what it predicts; pass "
                'prediction="velocity" (2.0 and 2.1 at 768 pixels) or prediction="noise" '
                "(the -base models at 512 pixels, sd-turbo)"
            )
        return "noise"

    def betas(self) -> list[float] | None:
        """The schedule, where the file brings another one than the family's."""
        found = self.state.get("alphas_cumprod")
        if found is None or found.ndim != 1 or len(found) < 2:
            return None
        alpha_bar = found.double()
        sigmas = torch.tensor(NoiseSchedule.scaled_linear().sigmas, dtype=torch.float64)
        usual = 1 / (sigmas.square() + 1)
        if len(usual) == len(alpha_bar) and torch.allclose(usual, alpha_bar, rtol=2e-2, atol=1e-4):
            return None
        before = torch.cat((torch.ones(1, dtype=torch.float64), alpha_bar[:-1]))
        return (1 - alpha_bar / before).clamp(0, 0.999).tolist()

    def settings(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Size, guidance and steps, where they differ from the family's."""
        own = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in self.own.get("settings", {}).items()
        }
        velocity = sampling.settings.get("prediction_type") == "v_prediction"
        large = {"size": (768, 768)} if self.family == "sd2" and velocity else {}
        return {**large, **(self.known.settings if self.known else {}), **own}

    def autoencoder(self, config: AutoencoderConfig) -> AutoencoderConfig:
        """The config with scale, mean and deviation of the latents, which shapes do not tell.

        Raises:
            CheckpointError: mean or deviation are not one number for each channel.
        """
        if "scheduler" in self.own:  # our own file, which says all
            return config
        if LATENT_MEAN in self.state and LATENT_DEVIATION in self.state:
            mean, deviation = (
                tuple(self.state[name].flatten().tolist())
                for name in (LATENT_MEAN, LATENT_DEVIATION)
            )
            try:
                return replace(
                    config, scale=families.PLAYGROUND_SCALE, mean=mean, deviation=deviation
                )
            except ValueError as error:
                raise CheckpointError(
                    f"{self.path}: {LATENT_MEAN}, {LATENT_DEVIATION}: {error}"
                ) from None
        if "configs" in self.own:
            return config
        if self.family.startswith("sdxl"):
            return replace(config, scale=SDXL_AUTOENCODER.scale)
        found = self.state.get("scale_factor")
        if found is not None and found.numel() == 1:
            return replace(config, scale=round(float(found), 6))
        return config


def marks(sampling: SamplingConfig, config: AutoencoderConfig, family: str) -> dict[str, Tensor]:
    """The tensors by which other programs know how a network was trained; the inverse of the above.

    Stable Diffusion 1.x and 2.x have none.
    """
    said = sampling.settings
    velocity = said.get("prediction_type") == "v_prediction"
    if sampling.edm:
        if velocity:
            low, *_, high = sampling.schedule().sigmas
            return {HIGHEST: torch.tensor(high), LOWEST: torch.tensor(low)}
        mean = config.mean or (0.0,) * config.latent_channels
        deviation = config.deviation or (1.0,) * config.latent_channels
        pairs = ((LATENT_MEAN, mean), (LATENT_DEVIATION, deviation))
        return {name: torch.tensor(values)[None, :, None, None] for name, values in pairs}
    if not family.startswith("sdxl"):
        return {}
    found = {VELOCITY: torch.empty(0)} if velocity else {}
    if said.get("rescale_betas_zero_snr"):
        found[ZERO_TERMINAL_SNR] = torch.empty(0)
    return found
