"""A complete small model with random weights: every part the real one, 16x16 latents for 64x64.

from generation import small
model = small.model()
"""

import functools

import torch

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.unet import UNet, UNetConfig
from darkroom.text.encoder import PromptEncoder, Tower
from darkroom.text.tokenizer import Tokenizer

UNET = UNetConfig(
    channels=(16, 32), heads=(2, 2), depth=(1, 1), blocks=1, text_channels=24, groups=8
)
AUTOENCODER = AutoencoderConfig(channels=(16, 16, 32), blocks=1, groups=8, scale=0.5)
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "skip_prk_steps": True,
}


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.built_in()


def model(seed: int = 0, unet: UNetConfig = UNET, **fields: object) -> LatentDiffusion:
    """Weights from ``seed``; ``fields`` replace those of the model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = TextConfig(channels=24, layers=2, heads=2, hidden=48)
        tower = ClipTextModel(words)
        parts = UNet(unet), Autoencoder(AUTOENCODER)
    encoder = PromptEncoder([Tower(tower, tokenizer())])
    for part in (*parts, encoder):
        part.eval().requires_grad_(False)
    sampling = SamplingConfig(sampler="euler", settings=SCHEDULE)
    values = {
        "unet": parts[0],
        "autoencoder": parts[1],
        "text_encoder": encoder,
        "schedule": sampling.schedule(),
        "prediction": sampling.prediction(),
        "sampling": sampling,
        "name": "small",
        "settings": {"size": (64, 64), "steps": 4},
    }
    return LatentDiffusion(**{**values, **fields})
