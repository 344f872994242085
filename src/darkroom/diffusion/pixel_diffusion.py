"""A diffusion model that works on pixels and takes no text: a network and its noise schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from darkroom.diffusion.prediction import Prediction
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class PixelDiffusion:
    """The parts of one unconditional or class-conditional checkpoint, such as google/ddpm-cat-256.

    Attributes:
        unet: called as ``unet(x, t)``, or ``unet(x, t, label)``.
        schedule: the noise levels it was trained on.
        prediction: what its output means.
        sampling: how the checkpoint's own scheduler configuration samples it.
        settings: defaults of the checkpoint, such as its size in pixels.
    """

    unet: torch.nn.Module
    schedule: NoiseSchedule
    prediction: Prediction
    sampling: SamplingConfig
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def denoise(
        self,
        x: Tensor,
        sigma: float,
        label: Tensor | None = None,
        timestep: float | None = None,
    ) -> Tensor:
        """The estimate of the clean image: (B, C, H, W), float32.

        Args:
            x: (B, C, H, W) ``clean + sigma * noise``.
            label: (B,) class numbers, for a network with classes.
            timestep: what to tell the network; None derives it from ``sigma``.
        """
        parameter = next(self.unet.parameters())
        timestep = self.schedule.timestep(sigma) if timestep is None else timestep
        t = torch.full((len(x),), timestep, dtype=torch.float32, device=parameter.device)
        x = x.float()
        scaled = self.prediction.network_input(x, sigma).to(parameter)
        output = self.unet(scaled, t) if label is None else self.unet(scaled, t, label)
        return self.prediction.denoised(x, output.to(x), sigma)
