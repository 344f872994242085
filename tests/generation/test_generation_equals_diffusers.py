"""Pictures equal to diffusers' pipelines: the same random weights, the same initial noise.

``PSNR`` is over pixels in [0, 1]; 50 dB is a root mean square difference of 0.8 of 255 levels.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from cases import quick
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.generation.generate import develop
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.weights.load import load
from weights import tiny

SCHEDULERS = {
    "pndm": diffusers.PNDMScheduler,
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
PROMPT, NEGATIVE, STEPS, SCALE = "the cat on a red house", "blurry rain", 6, 7.5


class Pair:
    """A pipeline of diffusers, and what we load from its folder."""

    def __init__(self, family: str, folder: Path) -> None:
        self.pipeline: Any = getattr(tiny, family)()
        self.pipeline.set_progress_bar_config(disable=True)
        if family == "sd1":
            self.pipeline.scheduler.register_to_config(clip_sample=False)  # as SD 1.5 says
        tiny.save(self.pipeline, folder)
        # read again: in memory, from_config would leave out what the constructor was not told
        self.config = self.pipeline.scheduler.load_config(folder / "scheduler")
        model = load(folder, dtype="float32", device="cpu")
        assert isinstance(model, LatentDiffusion)
        self.model = model

    def schedule(self, sampler: str | None = None) -> None:
        """Set a scheduler up as people do; None is the checkpoint's own."""
        kind = SCHEDULERS[sampler] if sampler else getattr(diffusers, self.config["_class_name"])
        self.pipeline.scheduler = kind.from_config(self.config)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory) -> Pair:
    return Pair("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def sd2(tmp_path_factory) -> Pair:
    return Pair("sd2", tmp_path_factory.mktemp("sd2"))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> Pair:
    return Pair("sdxl", tmp_path_factory.mktemp("sdxl"))


def noise(seed: int = 5, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def pixels(pictures: list) -> np.ndarray:
    return np.stack([np.asarray(getattr(p, "image", p)) for p in pictures]).astype(float) / 255


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    error = float(((ours - theirs) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def check(ours: list, theirs: list) -> None:
    assert pixels(theirs).std() > 0.05  # a flat picture would equal anything
    found = psnr(pixels(ours), pixels(theirs))
    print(f"PSNR {found:.1f} dB")  # noqa: T201 - pytest -rA shows it
    assert found > 50


def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((64, 64), Image.Resampling.BICUBIC)


CASES = [*itertools.product(("sd1", "sd2", "sdxl"), SCHEDULERS)]


@pytest.mark.parametrize(
    ("family", "sampler"),
    quick([c for c in CASES if c[0] == "sd1" or c[1] in ("euler", "dpmpp_2m")], CASES),
)
def test_text_to_image(request, family, sampler) -> None:
    pair: Pair = request.getfixturevalue(family)
    pair.schedule(sampler)
    theirs = pair.pipeline(
        [PROMPT] * 2,
        negative_prompt=[NEGATIVE] * 2,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        latents=noise(),
        height=64,
        width=64,
    ).images
    guidance = Guidance(SCALE, negative=NEGATIVE)
    ours = develop(
        pair.model, PROMPT, guidance, seeds=[0, 1], steps=STEPS, size=(64, 64), sampler=sampler,
        noise=noise(),
    )  # fmt: skip
    check(ours, theirs)


@pytest.mark.parametrize("sampler", quick(["ddim", "euler", "pndm"], SCHEDULERS))
def test_image_to_image(sd1, sampler) -> None:
    sd1.schedule(sampler)
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**sd1.pipeline.components)
    pipeline.set_progress_bar_config(disable=True)
    # diffusers draws the posterior's noise first, then the first noise, from one generator
    generator = torch.Generator().manual_seed(9)
    posterior = torch.randn(1, 4, 8, 8, generator=generator)
    first = torch.randn(1, 4, 8, 8, generator=generator)
    theirs = pipeline(
        PROMPT,
        image=photo(),
        strength=0.6,
        negative_prompt=NEGATIVE,
        num_inference_steps=10,
        guidance_scale=SCALE,
        generator=torch.Generator().manual_seed(9),
    ).images
    ours = develop(
        sd1.model, PROMPT, Guidance(SCALE, negative=NEGATIVE),
        ImageToImage(photo(), 0.6, noise=posterior), steps=10, sampler=sampler, noise=first,
    )  # fmt: skip
    check(ours, theirs)


def test_a_size_that_does_not_halve_evenly(sd1) -> None:
    """9 x 13 latents, 5 x 7, 3 x 4, 2 x 2: diffusers resizes to the skip on the way up."""
    sd1.schedule()
    first = torch.randn(1, 4, 9, 13, generator=torch.Generator().manual_seed(1))
    theirs = sd1.pipeline(
        PROMPT, num_inference_steps=3, guidance_scale=SCALE, latents=first, height=72, width=104
    ).images
    ours = develop(sd1.model, PROMPT, Guidance(SCALE), steps=3, size=(72, 104), noise=first)
    check(ours, theirs)


def test_no_negative_prompt_and_rescale(sd2, sdxl) -> None:
    """XL compares with zeros then; rescaling is in the network's output."""
    for pair in (sd2, sdxl):
        pair.schedule()
        theirs = pair.pipeline(
            [PROMPT] * 2, num_inference_steps=STEPS, guidance_scale=SCALE, latents=noise(),
            guidance_rescale=0.7, height=64, width=64,
        ).images  # fmt: skip
        ours = develop(
            pair.model, PROMPT, Guidance(SCALE, rescale=0.7), seeds=[0, 1], steps=STEPS,
            size=(64, 64), noise=noise(),
        )  # fmt: skip
        check(ours, theirs)


def test_without_guidance(sdxl) -> None:
    sdxl.schedule()
    theirs = sdxl.pipeline(
        [PROMPT] * 2, num_inference_steps=2, guidance_scale=0.0, latents=noise(), height=64,
        width=64,
    ).images  # fmt: skip
    ours = develop(
        sdxl.model, PROMPT, Guidance(1.0), seeds=[0, 1], steps=2, size=(64, 64), noise=noise()
    )  # fmt: skip
    check(ours, theirs)
