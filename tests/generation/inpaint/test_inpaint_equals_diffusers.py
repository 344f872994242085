"""Both kinds of inpainting equal to diffusers' pipelines: random weights, the same noise.

The mask is a disc that no grid fits. The pictures are compared whole (``harmonise``), before
ours would be put into the original.
"""

import diffusers
import numpy as np
import pytest
import torch

from cases import quick
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.generation.generate import develop
from darkroom.generation.guidance import Guidance
from darkroom.generation.inpaint import Inpaint
from darkroom.masks import Mask
from darkroom.weights.load import load
from generation.xl.pairs import NEGATIVE, PROMPT, check, photo
from weights import tiny

SCALE = 7.5
PIPELINES = {
    "sd1": diffusers.StableDiffusionInpaintPipeline,
    "sd2": diffusers.StableDiffusionInpaintPipeline,
    "sdxl": diffusers.StableDiffusionXLInpaintPipeline,
}
SCHEDULERS = {
    "pndm": diffusers.PNDMScheduler,
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}


class Pair:
    """diffusers' inpainting pipeline of a model, and what we load from its folder."""

    def __init__(self, family: str, channels: int, folder) -> None:
        whole = getattr(tiny, family)(in_channels=channels)
        if family == "sd1":
            whole.scheduler.register_to_config(clip_sample=False)  # as SD 1.5 says
        tiny.save(whole, folder)
        self.config = whole.scheduler.load_config(folder / "scheduler")
        extra = {} if family == "sdxl" else {"requires_safety_checker": False}
        self.pipeline = PIPELINES[family](**whole.components, **extra)
        self.pipeline.set_progress_bar_config(disable=True)
        model = load(folder, dtype="float32", device="cpu")
        assert isinstance(model, LatentDiffusion)
        self.model, self.channels = model, channels

    def theirs(self, scheduler, strength: float, seed: int = 9, **options) -> list:
        self.pipeline.scheduler = scheduler.from_config(self.config)
        return self.pipeline(
            PROMPT, image=photo(), mask_image=disc().image(), strength=strength,
            negative_prompt=NEGATIVE, num_inference_steps=8, guidance_scale=SCALE,
            generator=torch.Generator().manual_seed(seed), height=64, width=64, **options,
        ).images  # fmt: skip

    def ours(self, sampler: str, strength: float, seed: int = 9) -> list:
        """diffusers draws from one generator: the picture's posterior, the first noise, masked."""
        generator = torch.Generator().manual_seed(seed)
        encodes = self.channels == 4 or strength < 1
        draws = [torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2 + encodes)]
        posterior = draws.pop(0) if encodes else None
        inpaint = Inpaint(
            photo(), disc(), strength, harmonise=True, noise=posterior, masked_noise=draws[1]
        )
        guidance = Guidance(SCALE, negative=NEGATIVE)
        return develop(
            self.model, PROMPT, guidance, inpaint, steps=8, size=(64, 64), sampler=sampler,
            noise=draws[0],
        )  # fmt: skip


@pytest.fixture(
    scope="module", params=quick(["sd1 9", "sdxl 4"], ["sd1 9", "sd2 9", "sdxl 4", "sdxl 9"])
)
def pair(request, tmp_path_factory) -> Pair:
    family, channels = request.param.split()
    return Pair(family, int(channels), tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Pair:
    return Pair("sd1", 4, tmp_path_factory.mktemp("model") / "model")


def disc() -> Mask:
    rows, columns = np.mgrid[:64, :64]
    return Mask((columns - 35) ** 2 + (rows - 27) ** 2 <= 19**2)


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_strengths(pair, strength) -> None:
    check(pair.ours("euler", strength), pair.theirs(SCHEDULERS["euler"], strength))


@pytest.mark.parametrize("sampler", quick(["euler", "dpmpp_2m", "pndm"], SCHEDULERS))
def test_samplers(held, sampler) -> None:
    """Of the blend; what is told to an inpainting network is the same for all."""
    for strength in (1.0, 0.8):
        check(held.ours(sampler, strength), held.theirs(SCHEDULERS[sampler], strength))
