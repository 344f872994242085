"""Training a ControlNet: it begins as its base, which stays as it is; it resumes exactly."""

import numpy as np
import pytest
import torch

import darkroom as dr
from darkroom.errors import ConfigError
from darkroom.models.control.controlnet import ControlNet
from darkroom.recipes import controlnet, read, run
from darkroom.recipes.running.showing import Gallery, load_base
from darkroom.training.data import captioned as with_words
from darkroom.training.data import open_data
from darkroom.training.fit import Draw
from darkroom.vision.annotators.canny import edges
from recipes.test_recipes import write

CONTROLNET = """
recipe = "controlnet"
data = "{data}"
base = "{base}"
out = "{out}"
tints = 1
moved = 0.5
save_every = 4
[fit]
steps = {steps}
batch = 8
lr = 2e-3
warmup = 2
ema = 0.9
"""


def parts(captioned, base, tmp_path):
    """The configuration, and the loss that ``train`` makes."""
    path = write(tmp_path, CONTROLNET, data=captioned, base=base, out=tmp_path / "run", steps=4)
    config = read(path)[1]
    model, size = load_base(config)
    net = ControlNet.from_unet(model.unet, model.autoencoder.factor)
    gallery = Gallery(config, with_words(open_data(captioned)), size)
    return config, controlnet.Loss(config, model, net, gallery)


def test_it_begins_as_its_base_bit_for_bit(captioned, base, tmp_path):
    _, loss = parts(captioned, base, tmp_path)
    g = torch.Generator().manual_seed(0)
    x, hint = torch.randn(2, 4, 8, 8, generator=g), torch.rand(2, 3, 16, 16, generator=g)
    t, text = torch.tensor([3.0, 700.0]), loss.model.text_encoder(["red square", ""]).text
    with torch.no_grad():
        plain = loss.model.unet(x, t, text)
        controlled = loss.model.unet(x, t, text, residuals=loss.net(x, t, text, hint))
    assert torch.equal(plain, controlled)


def test_only_the_new_network_learns(captioned, base, tmp_path):
    _, loss = parts(captioned, base, tmp_path)
    loss(Draw(0, 0)).backward()
    assert all(p.grad is None for p in loss.model.unet.parameters())
    assert loss.net.zero_middle.weight.grad.abs().sum() > 0


def test_it_learns_resumes_and_leaves_a_network(captioned, base, tmp_path):
    values = {"data": captioned, "base": base, "steps": 12}
    losses = [step.loss for step in run(write(tmp_path, CONTROLNET, out=tmp_path / "w", **values))]
    path = write(tmp_path, CONTROLNET, out=tmp_path / "run", **values)
    begun = run(path)
    again = [next(begun).loss for _ in range(5)]
    begun.close()
    again += [step.loss for step in run(path)]
    assert again == losses
    net = dr.load(tmp_path / "run" / "model")
    assert isinstance(net, ControlNet)
    assert net.zero_middle.weight.abs().sum() > 0
    assert (tmp_path / "run" / "report.html").is_file()


def test_hints_are_the_edges_of_what_is_shown(captioned, base, tmp_path):
    _, loss = parts(captioned, base, tmp_path)
    items = loss.gallery.choose(Draw(1, 7), 8)
    images, hints, texts = loss.batch(items)
    assert hints.shape == (8, 3, 16, 16)
    assert set(hints.unique().tolist()) == {0.0, 1.0}
    part, part_hints, part_texts = loss.batch(loss.gallery.choose(Draw(1, 7, 1, 2), 8))
    assert torch.equal(part, images[1::2])
    assert torch.equal(part_hints, hints[1::2])
    assert part_texts == texts[1::2]
    pixels = ((images[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    (found,) = controlnet.edges_of(images[:1], [(20.0, 120.0)])
    assert np.array_equal(found[0].numpy() > 0, edges(pixels, 20, 120))


def test_thresholds_that_fall_are_refused(captioned, base, tmp_path):
    path = write(tmp_path, CONTROLNET, data=captioned, base=base, out=tmp_path / "run", steps=1)
    with pytest.raises(ConfigError, match="low and high must rise"):
        run(path, {"low": [50.0, 200.0], "high": [100.0, 300.0]})
