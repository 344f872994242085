"""Teaching a model to inpaint: it begins as its base, resumes exactly, and its masks are masks."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import darkroom as dr
from darkroom.errors import ConfigError
from darkroom.recipes import inpainting, read, run
from darkroom.recipes.inpainting import masks
from darkroom.recipes.running.showing import Gallery, load_base, placed, told
from darkroom.training.data import captioned as with_words
from darkroom.training.data import open_data
from darkroom.training.fit import Draw
from recipes.test_recipes import write

INPAINTING = """
recipe = "inpainting"
data = "{data}"
base = "{base}"
out = "{out}"
grounds = 2
tints = 1
laid = 0.3
save_every = 4
[fit]
steps = {steps}
batch = 8
lr = 2e-3
warmup = 2
ema = 0.9
"""


def parts(captioned, base, tmp_path):
    """Configuration, model and gallery, as ``train`` makes them."""
    path = write(tmp_path, INPAINTING, data=captioned, base=base, out=tmp_path / "run", steps=4)
    config = read(path)[1]
    model, size = load_base(config)
    return config, model, Gallery(config, with_words(open_data(captioned)), size)


def test_it_begins_as_its_base_bit_for_bit(captioned, base, tmp_path):
    _, model, _ = parts(captioned, base, tmp_path)
    wide = inpainting.widened(model.unet, 5)
    assert wide.config == replace(model.unet.config, in_channels=9)
    g = torch.Generator().manual_seed(0)
    x, beside = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 5, 8, 8, generator=g)
    t, text = torch.tensor([3.0, 700.0]), told(model, ["red square", ""], 16).text
    with torch.no_grad():
        expected = model.unet(x, t, text)
        assert torch.equal(wide(torch.cat((x, 0 * beside), 1), t, text), expected)
        # what is said of mask and picture changes nothing yet: rounding at most
        close = wide(torch.cat((x, beside), 1), t, text)
    torch.testing.assert_close(close, expected, rtol=1e-5, atol=1e-5)


def test_it_learns_resumes_and_leaves_a_model(captioned, base, tmp_path):
    values = {"data": captioned, "base": base, "steps": 12}
    whole = run(write(tmp_path, INPAINTING, out=tmp_path / "whole", **values))
    losses = [step.loss for step in whole]
    path = write(tmp_path, INPAINTING, out=tmp_path / "run", **values)
    begun = run(path)
    resumed = [next(begun).loss for _ in range(5)]
    begun.close()
    resumed += [step.loss for step in run(path)]
    assert resumed == losses
    model = dr.load(tmp_path / "run" / "model")
    assert model.unet.config.in_channels == 9
    assert model.unet.input.weight[:, 4:].abs().sum() > 0
    index = json.loads((tmp_path / "run" / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInpaintPipeline"
    assert (tmp_path / "run" / "report.html").is_file()
    again = write(
        tmp_path, INPAINTING, data=captioned, base=tmp_path / "run" / "model", steps=1,
        out=tmp_path / "again",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="takes 9 input channels, its latents have 4"):
        next(run(again))


def test_the_network_is_told_the_mask_and_what_is_known(captioned, base, tmp_path):
    _, model, _ = parts(captioned, base, tmp_path)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, :, :8] = 1
    with torch.no_grad():
        clean, beside = inpainting.told_apart(model, images, mask)
        grey = images.clone()
        grey[0, :, :, :8] = 0
        expected = model.autoencoder.encode(grey)
    assert beside.shape == (2, 5, 8, 8)
    assert torch.equal(beside[:, :1], mask[..., ::2, ::2])
    torch.testing.assert_close(beside[:, 1:], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clean[1], beside[1, 1:])


def test_a_batch_is_its_step_s_number_and_its_parts_are_its_rows(captioned, base, tmp_path):
    config, model, gallery = parts(captioned, base, tmp_path)
    loss = inpainting.Loss(config, model, gallery)
    images, drawn, texts = loss.batch(gallery.choose(Draw(1, 7), 8))
    assert images.shape == (8, 3, 16, 16)
    assert images.abs().max() <= 1
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert all(mask.any() for mask in drawn)
    part, part_masks, part_texts = loss.batch(gallery.choose(Draw(1, 7, 1, 2), 8))
    assert torch.equal(part, images[1::2])
    assert torch.equal(part_masks, drawn[1::2])
    assert part_texts == texts[1::2]


def test_what_is_laid_into_a_picture_is_what_the_mask_covers(captioned, base, tmp_path):
    config, model, gallery = parts(captioned, base, tmp_path)
    loss = inpainting.Loss(config, model, gallery)
    for seed in range(12):
        image = torch.full((3, 16, 16), -0.5)
        made, mask, text = loss.laid(image, torch.Generator().manual_seed(seed))
        changed = (made != image).any(0)
        assert changed.any()
        assert not (changed & (mask == 0)).any()
        assert {"square", "disc", "bar", "shape"} & set(text.replace(",", "").split())


@pytest.mark.parametrize("kind", ["boxes", "ellipses", "strokes", "half", "thing", "whole"])
def test_masks(kind):
    alpha = torch.zeros(40, 40)
    alpha[10:30, 5:25] = 1
    shares = []
    for seed in range(30):
        mask = getattr(masks, kind)(alpha, torch.Generator().manual_seed(seed))
        assert mask.shape == (40, 40)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        shares.append(mask.mean().item())
    assert min(shares) == 1 if kind == "whole" else 0 < min(shares) < max(shares) < 1


def test_shares_of_masks():
    only = masks.Masks(boxes=0, strokes=0, ellipses=0, halves=0, things=1, whole=0)
    mask = only.draw(torch.zeros(8, 8), torch.Generator().manual_seed(0))
    assert mask.all(), "where nothing is cut out, everything is masked"
    with pytest.raises(ValueError, match="at least 0"):
        masks.Masks(boxes=-1)


def test_a_cut_out_is_placed():
    pixels = torch.zeros(4, 16, 16, dtype=torch.uint8)
    pixels[0], pixels[3, 4:12, 4:12] = 200, 255
    small = placed(pixels, 8, 2, 5)
    inside = small[3] > 128
    assert inside.nonzero().amin(0).tolist() == [7, 4]
    assert inside.nonzero().amax(0).tolist() == [10, 7]
    assert (small[0][inside].int() - 200).abs().max() <= 1
    assert torch.equal(placed(pixels, 16, 0, 0)[3], pixels[3])
    assert placed(pixels, 16, -6, 0)[3, :, :6].float().mean() > 100, "moved out to the left"


def test_a_base_that_does_not_fit(captioned, base, tmp_path):
    config = {"data": captioned, "out": tmp_path / "run", "steps": 1}
    unet = write(tmp_path, INPAINTING, base=base / "unet", **config)
    with pytest.raises(ConfigError, match="is a UNet: expected a latent-diffusion model"):
        next(run(unet))
    path = write(tmp_path, INPAINTING, base=base, **config)
    with pytest.raises(ConfigError, match="size 15: expected a multiple of 2"):
        next(run(path, {"size": 15}))
    with pytest.raises(ConfigError, match="must be at least 0"):
        run(path, {"masks": {"boxes": -0.5}})


def test_a_lean_model_takes_the_rest_from_a_built_in_base(captioned, base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "model")
    inpainting.leave_out(folder, "emoji")
    assert {part.name for part in folder.iterdir() if part.is_dir()} == {"unet", "scheduler"}
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["_darkroom"]["parts_of"] == {"emoji": ["text_encoder", "tokenizer", "vae"]}
    path = write(tmp_path, INPAINTING, data=captioned, base=base, out=tmp_path / "run", steps=1)
    with pytest.raises(ConfigError, match="only a built-in model is where the finished one is"):
        next(run(path, {"lean": True}))
