"""Networks that were distilled with guidance (LCM): told the scale, called once."""

import diffusers
import pytest
import torch

from darkroom.errors import ConfigError
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.weights.load import load
from darkroom.weights.save import save
from generation.xl.pairs import PROMPT, check
from weights import tiny


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """LCM Dreamshaper's shape, as diffusers builds it and as we load it."""
    folder = tmp_path_factory.mktemp("lcm")
    plain = tiny.sd1()
    with tiny.seeded(9):
        unet = diffusers.UNet2DConditionModel(**{**plain.unet.config, "time_cond_proj_dim": 24})
        unet.time_embedding.cond_proj.weight.data *= 20  # so that the scale shows
    pipeline = diffusers.LatentConsistencyModelPipeline(
        vae=plain.vae,
        text_encoder=plain.text_encoder,
        tokenizer=plain.tokenizer,
        unet=tiny.shaken(unet),
        scheduler=diffusers.LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    tiny.save(pipeline, folder)
    return pipeline, load(folder, dtype="float32", device="cpu")


@pytest.mark.parametrize("scale", [8.5, 1.0])
def test_equal_to_diffusers(pair, scale, tmp_path):
    """One step, whose picture no fresh noise changes; at another scale it is another picture."""
    pipeline, model = pair
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = pipeline(
        PROMPT, num_inference_steps=1, guidance_scale=scale, latents=noise, height=64, width=64
    ).images
    common = {"steps": 1, "size": (64, 64), "noise": noise}
    check(develop(model, PROMPT, Guidance(scale), **common), theirs)
    again = load(save(model, tmp_path / "lcm.safetensors"))
    check(develop(again, PROMPT, Guidance(scale), **common), theirs)
    other = develop(model, PROMPT, Guidance(scale + 1), **common)
    with pytest.raises(AssertionError):
        check(other, theirs)


def test_called_once(pair):
    _, model = pair
    assert (model.settings["guidance"], model.settings["steps"]) == (8.5, 4)
    batches = []
    model.unet.register_forward_hook(lambda *call: batches.append(len(call[2])))
    steps = list(generate(model, PROMPT, Guidance(8.5), seeds=[1, 2], steps=2, size=(64, 64)))
    assert len(steps) == 2
    assert batches == [2, 2]
    for guidance in (Guidance(8.5, negative="rain"), Guidance(8.5, rescale=0.5)):
        with pytest.raises(ConfigError, match="was distilled with guidance"):
            list(generate(model, PROMPT, guidance, steps=2, size=(64, 64)))
