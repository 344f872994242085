"""What an image costs a diffusion model, at most (Ho et al., arXiv:2006.11239, section 3).

The terms in our convention, with SNR = 1 / sigma^2 (Kingma et al., arXiv:2107.00630, equation 14):
a step costs ``(SNR(t - 1) - SNR(t)) |clean - denoised|^2 / 2`` nats.
"""

import torch
from torch import Tensor

from darkroom.diffusion.samplers.step import Denoise
from darkroom.diffusion.schedule import NoiseSchedule


def variational_bound(
    denoise: Denoise,
    clean: Tensor,
    schedule: NoiseSchedule,
    deviation: float,
    generator: torch.Generator,
    draws: int = 20,
) -> Tensor:
    """An unbiased estimate of the bound on -log p(clean), in nats: (B,).

    The timesteps are drawn with probabilities proportional to ``SNR(t - 1) / SNR(t) - 1``, one from
    each of ``draws`` equal parts, and are the same for all of the batch.

    Args:
        clean: (B, C, H, W), multiples of 2 / 255 in [-1, 1].
        deviation: of the Gaussian whose mass gives each pixel value its probability in the end.
    """

    def noised(sigma: float) -> Tensor:
        noise = torch.randn(clean.shape, generator=generator)
        return clean + sigma * noise.to(clean)

    sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)
    signal = 1 / (1 + sigmas[-1] ** 2)  # what is left at the last timestep
    prior = 0.5 * (signal * clean.square() - signal - torch.log1p(-signal))
    total = prior.flatten(1).sum(1).double()
    snr = sigmas**-2
    chances = snr[:-1] / snr[1:] - 1
    chances = chances / chances.sum()
    u = (torch.arange(draws) + torch.rand(draws, generator=generator)) / draws
    for i in torch.searchsorted(chances.cumsum(0), u.double()).clamp_max(len(chances) - 1).tolist():
        sigma = float(sigmas[i + 1])
        error = (clean - denoise(noised(sigma), sigma)).flatten(1).square().sum(1).double()
        total = total + 0.5 * (snr[i] - snr[i + 1]) * error / (chances[i] * draws)
    first = float(sigmas[0])
    return total + reconstruction(clean, denoise(noised(first), first), deviation)


def reconstruction(clean: Tensor, denoised: Tensor, deviation: float) -> Tensor:
    """-log of the probabilities of the pixel values, in nats: (B,) (equation 13)."""
    clean, denoised = clean.double(), denoised.double()
    gap, half = (clean - denoised).abs(), 1 / 255
    inner = torch.special.log_ndtr((half - gap) / deviation)
    outer = torch.special.log_ndtr((-half - gap) / deviation)
    between = inner + torch.log1p(-(outer - inner).exp())
    # the outermost values take all that lies beyond them
    beyond = torch.special.log_ndtr((half - (clean - denoised) * clean.sign()) / deviation)
    return -torch.where(clean.abs() > 0.999, beyond, between).flatten(1).sum(1)
