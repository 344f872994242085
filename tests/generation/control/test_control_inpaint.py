"""Inpainting after a hint: equal to diffusers' pipelines, with both kinds of checkpoints."""

from typing import Any

import diffusers as library
import pytest
import torch

import oracles
from cases import quick
from darkroom.generation.control import Control
from darkroom.generation.generate import develop
from darkroom.generation.guidance import Guidance
from darkroom.generation.inpaint import Inpaint
from darkroom.weights.load import load
from generation.control.test_control import hint
from generation.inpaint.test_inpaint_equals_diffusers import SCHEDULERS, Pair, disc
from generation.xl.pairs import NEGATIVE, PROMPT, check, photo
from weights import tiny

diffusers: Any = library
SCALE, STEPS, WEIGHT, END = 7.5, 8, 0.7, 0.8


class Bench(Pair):
    """An inpainting pipeline, and a network for its base."""

    def __init__(self, family: str, channels: int, folder: Any) -> None:
        super().__init__(family, channels, folder / "base")
        plain: Any = getattr(tiny, family)()  # also beside 9 channels a network is told 4
        net = diffusers.ControlNetModel.from_unet(
            plain.unet, conditioning_embedding_out_channels=(4, 8, 8, 12)
        )
        oracles.randomize(net.eval(), 1)
        net.save_pretrained(folder / "net")
        self.net: Any = load(folder / "net", dtype="float32", device="cpu")
        xl = family == "sdxl"
        kind = f"StableDiffusion{'XL' if xl else ''}ControlNetInpaintPipeline"
        parts = {name: part for name, part in self.pipeline.components.items() if part is not None}
        if not xl:
            parts |= {"safety_checker": None, "feature_extractor": None}
        self.pipeline: Any = getattr(diffusers, kind)(**parts, controlnet=net)
        self.pipeline.set_progress_bar_config(disable=True)


@pytest.fixture(scope="module", params=quick(["sd1 4"], ["sd1 4", "sd1 9", "sdxl 4"]))
def bench(request, tmp_path_factory) -> Bench:
    family, channels = request.param.split()
    return Bench(family, int(channels), tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize(
    ("sampler", "strength", "guess"),
    [("ddim", 1.0, False), ("euler", 0.6, False), ("ddim", 1.0, True)],
)
def test_equal_to_diffusers(bench: Bench, sampler: str, strength: float, guess: bool) -> None:
    theirs = bench.theirs(
        SCHEDULERS[sampler], strength, control_image=hint(), guess_mode=guess,
        controlnet_conditioning_scale=WEIGHT, control_guidance_end=END,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(9)  # one of diffusers' draws after another
    encodes = bench.channels == 4 or strength < 1
    noises = [torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2 + encodes)]
    posterior = noises.pop(0) if encodes else None
    inpaint = Inpaint(
        photo(), disc(), strength, harmonise=True, noise=posterior, masked_noise=noises[1]
    )
    control = Control(bench.net, hint(), WEIGHT, end=END, guess=guess)
    common: dict[str, Any] = {
        "steps": STEPS, "size": (64, 64), "sampler": sampler, "noise": noises[0],
    }  # fmt: skip
    guidance = Guidance(SCALE, negative=NEGATIVE)
    ours = develop(bench.model, PROMPT, guidance, inpaint, control, **common)
    check(ours, theirs)
    if sampler == "euler":  # the hint matters, so equality says something
        without = develop(bench.model, PROMPT, guidance, inpaint, **common)
        assert ours[0].image.tobytes() != without[0].image.tobytes()
