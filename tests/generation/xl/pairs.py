"""XL base and refiner, as pipelines of diffusers and as we load them, and how to compare them."""

import math
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.weights.load import load
from weights import tiny

PROMPT, NEGATIVE, SCALE = "the cat on a red house", "blurry rain", 5.0


class Pair:
    """A pipeline of diffusers, and what we load from its folder."""

    def __init__(self, family: str, folder: Any, scheduler: Any = None) -> None:
        self.pipeline: Any = getattr(tiny, family)()
        if scheduler is not None:
            self.pipeline.scheduler = scheduler
        self.pipeline.set_progress_bar_config(disable=True)
        tiny.save(self.pipeline, folder)
        self.config = self.pipeline.scheduler.load_config(folder / "scheduler")
        model = load(folder, dtype="float32", device="cpu")
        assert isinstance(model, LatentDiffusion)
        self.model = model

    def schedule(self, kind: Any) -> None:
        """Set a scheduler up as people do."""
        self.pipeline.scheduler = kind.from_config(self.config)

    def image_to_image(self) -> Any:
        """diffusers' pipeline with a picture as its start, of the same parts."""
        if hasattr(self.pipeline, "text_encoder_2"):
            pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(**self.pipeline.components)
            said = self.pipeline.config
            names = ("requires_aesthetics_score", "force_zeros_for_empty_prompt")
            pipeline.register_to_config(**{name: said.get(name, False) for name in names})
        else:
            pipeline = diffusers.StableDiffusionImg2ImgPipeline(**self.pipeline.components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def noise(seed: int = 5, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def draws(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What diffusers' image-to-image draws from one generator: the posterior's noise, the first."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 4, 8, 8, generator=generator), torch.randn(
        1, 4, 8, 8, generator=generator
    )


def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((64, 64), Image.Resampling.BICUBIC)


def pixels(pictures: list) -> np.ndarray:
    return np.stack([np.asarray(getattr(p, "image", p)) for p in pictures]).astype(float) / 255


def check(ours: list, theirs: list) -> None:
    """Equal to 50 dB: a root mean square difference of 0.8 of 255 levels."""
    a, b = pixels(ours), pixels(theirs)
    assert b.std() > 0.05  # a flat picture would equal anything
    error = float(((a - b) ** 2).mean())
    found = math.inf if error == 0 else -10 * math.log10(error)
    print(f"PSNR {found:.1f} dB")  # noqa: T201 - pytest -rA shows it
    assert found > 50
