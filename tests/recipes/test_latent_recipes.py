"""The two recipes of latent diffusion on photographs: classes as captions, kept-aside pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
from darkroom.recipes import autoencoder, run
from darkroom.training.captions import Variant, caption, render
from darkroom.training.data import captioned, open_data
from darkroom.training.fit import FitOptions

AUTOENCODER = """
recipe = "autoencoder"
data = "{data}"
out = "{out}"
size = 16
recolour = 0.0
mirrored = true
held_out = 0.25
evaluate_every = 10
[model]
latent_channels = 4
channels = [16, 16]
blocks = 1
groups = 8
middle_attention = false
[adversary]
weight = {weight}
first = 10
[adversary.model]
channels = [8, 16]
[fit]
steps = 40
batch = 8
lr = 3e-3
warmup = 5
ema = 0.9
"""
DIFFUSION = """
recipe = "latent-diffusion"
data = "{data}"
autoencoder = "{autoencoder}"
out = "{out}"
noun = "flower"
size = 16
vocabulary = 520
tints = 0
grounds = 0
both = 0
mirrored = true
steps = 2
[mixture]
plain = 1.0
rare = 0.0
tinted = 0.0
grounds = 0.0
both = 0.0
[text]
positions = 12
channels = 16
layers = 1
heads = 2
hidden = 32
[unet]
in_channels = 4
out_channels = 4
channels = [32, 32]
heads = [2, 2]
depth = [1, 1]
middle_depth = 0
blocks = 1
text_channels = 16
[fit]
steps = 5
batch = 8
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two classes of 16x16 photographs that are not square."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, colour in (("daisy", 250), ("red_rose", 90)):
        (folder / name).mkdir()
        for i in range(8):
            noise = np.random.default_rng(i).integers(0, 40, (20, 24, 3), np.uint8)
            Image.fromarray(noise + np.uint8(min(colour, 215))).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module", params=[0.0, 0.1], ids=["plain", "adversarial"])
def trained(request, photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    toml = out / "a.toml"
    toml.write_text(AUTOENCODER.format(data=photographs, out=out / "a", weight=request.param))
    return out / "a", [step.loss for step in run(toml)], request.param


def test_it_learns_and_measures_what_it_never_saw(trained):
    folder, losses, adversarial = trained
    if adversarial:  # joins at step 10
        assert losses[10] > losses[9] + 1
    else:
        assert losses[-1] < losses[0]
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "psnr" in row]
    assert [row["step"] for row in measured] == [10, 20, 30, 40]
    assert adversarial or measured[-1]["psnr"] > measured[0]["psnr"]
    assert all(0 < row["psnr"] < 60 and 0 < row["ssim"] < 1 for row in measured)
    page = (folder / "report.html").read_text()
    assert "Reconstruction of 4 pictures that were kept aside" in page
    assert (folder / "reconstructions.png").is_file()


def test_a_model_of_photographs_is_trained_and_drawn(trained, photographs, tmp_path):
    toml = tmp_path / "d.toml"
    values = {"data": photographs, "out": tmp_path / "d"}
    toml.write_text(DIFFUSION.format(autoencoder=trained[0] / "autoencoder.safetensors", **values))
    assert len(list(run(toml))) == 5
    assert (tmp_path / "d" / "samples.png").is_file()
    (picture,) = dr.develop(dr.load(tmp_path / "d" / "model"), "daisy flower", seeds=[1])
    assert picture.image.size == (16, 16)


def test_neither_side_of_the_adversarial_loss_pulls_at_the_other():
    torch.manual_seed(0)
    config = autoencoder.Config(data="x", out="y", fit=FitOptions())  # pyright: ignore
    networks = autoencoder.Networks(config)
    image = torch.randn(2, 3, 16, 16)
    made = torch.randn(2, 3, 16, 16, requires_grad=True)
    of_adversary, of_model = networks.adversarial(made, image)
    of_model.backward(retain_graph=True)
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in networks.adversary.parameters())
    made.grad = None
    of_adversary.backward()
    assert made.grad is None
    assert all(p.grad is not None for p in networks.adversary.parameters())


def test_classes_are_captions_and_pictures_can_be_mirrored(photographs):
    found = captioned(open_data(photographs))
    assert {row["text"] for row in found.rows} == {"daisy", "red rose"}
    pixels, _ = found.pictures.hold(16, channels=4)
    assert pixels[:, 3].eq(255).all()
    rest, aside = found.pictures.split(0.25, seed=3)
    assert (len(rest), len(aside)) == (12, 4)
    plain, mirrored = render(pixels[[0, 0]], [Variant(0), Variant(0, mirrored=True)])
    assert torch.equal(plain.flip(-1), mirrored)
    said = {
        caption({"text": "rose"}, Variant(0), torch.Generator().manual_seed(i), "flower")
        for i in range(60)
    }
    assert "rose flower" in said
    assert not any("emoji" in text for text in said)
