"""The oracle pipelines are the same every time, and real enough to draw with."""

import pytest
import torch

from weights import tiny


@pytest.mark.parametrize("build", [tiny.sd1, tiny.sd2, tiny.sdxl])
def test_the_same_every_time(build):
    before = torch.random.get_rng_state()
    first, second = build(), build()
    assert torch.equal(before, torch.random.get_rng_state())
    for name in ("unet", "vae", "text_encoder"):
        theirs = getattr(second, name).state_dict()
        for key, tensor in getattr(first, name).state_dict().items():
            assert torch.equal(tensor, theirs[key]), key


def test_saved_folders_load_and_draw(tmp_path):
    folder = tiny.save(tiny.sd1(), tmp_path / "sd1")
    assert not (folder / "tokenizer" / "tokenizer.json").exists()
    pipeline = tiny.diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline("the cat", height=64, width=64, num_inference_steps=2, output_type="np")
    assert pictures.images.std() > 0.05
