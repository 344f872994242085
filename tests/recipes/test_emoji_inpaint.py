"""The inpainting model that ships: what lies beside it, what it takes from `emoji`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
import darkroom.recipes as recipes
from darkroom.masks import Mask
from darkroom.weights.locate import ASSETS, built_in_names

FOLDER = ASSETS / "emoji-inpaint"


@pytest.fixture(scope="module")
def model():
    return dr.load("emoji-inpaint")


def test_its_size_and_what_lies_beside_it():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) < 18e6
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {"unet", "scheduler"}
    for name in ("README.md", "log.jsonl"):
        assert (FOLDER / name).is_file()
    ours = FOLDER / "emoji-inpaint.toml"
    assert ours.read_text() == (Path(recipes.__file__).parent / ours.name).read_text()
    assert "emoji-inpaint" in built_in_names()


def test_the_rest_is_that_of_emoji(model):
    base = dr.load("emoji")
    assert model.unet.config.in_channels == 2 * model.autoencoder.channels + 1
    for ours, theirs in (
        (model.autoencoder, base.autoencoder),
        (model.text_encoder, base.text_encoder),
    ):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


def test_it_goes_on_with_the_ground_and_leaves_the_rest_alone(model):
    green = np.array((67, 160, 71), np.uint8)
    picture = np.broadcast_to(green, (64, 64, 3)).copy()
    mask = np.zeros((64, 64), bool)
    mask[8:56, 8:56] = True
    feature = dr.Inpaint(Image.fromarray(picture), Mask(mask))
    (made,) = dr.develop(model, "red heart", dr.Guidance(3.0), feature, seeds=[1])
    pixels = np.asarray(made.image)
    assert np.array_equal(pixels[~mask], picture[~mask])
    middle = pixels[24:40, 24:40].reshape(-1, 3).mean(0)
    assert middle[0] > middle[1] + 60, "red in the middle"
