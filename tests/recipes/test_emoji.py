"""The model that ships: what lies beside it, its size, and that it listens."""

from pathlib import Path

import numpy as np
import pytest

import darkroom as dr
import darkroom.recipes as recipes
from darkroom.weights.locate import ASSETS

FOLDER = ASSETS / "emoji"


@pytest.fixture(scope="module")
def model():
    return dr.load("emoji")


def draw(model, prompt, **guidance):
    (picture,) = dr.develop(model, prompt, dr.Guidance(3.0, **guidance), seeds=[1], steps=12)
    return np.asarray(picture.image).astype(float) / 255


def test_its_size_and_what_lies_beside_it():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) < 25e6
    for name in ("README.md", "log.jsonl", "log-text.jsonl", "log-autoencoder.jsonl"):
        assert (FOLDER / name).is_file()
    for name in ("emoji.toml", "emoji-autoencoder.toml"):
        assert (FOLDER / name).read_text() == (Path(recipes.__file__).parent / name).read_text()


def test_it_draws_in_the_colour_asked_for(model):
    red, blue = (draw(model, f"a {colour} car").mean((0, 1)) for colour in ("red", "blue"))
    assert red[0] - red[2] > 0.1
    assert blue[2] - blue[0] > 0.1


def test_it_draws_on_the_ground_asked_for(model):
    corner = draw(model, "cat face on a green background")[:4, :4].mean((0, 1))
    assert corner[1] > corner[0] + 0.2
    assert draw(model, "cat face")[:4, :4].min() > 0.85


def test_it_follows_guidance_and_the_negative_prompt(model):
    plain = draw(model, "automobile")
    away = draw(model, "automobile", negative="red automobile")
    assert away[..., 0].sum() - away[..., 1].sum() < plain[..., 0].sum() - plain[..., 1].sum()
