"""The ControlNet that ships: what lies beside it, and that the picture follows its hint."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import darkroom as dr
import darkroom.recipes as recipes
from darkroom.models.control.controlnet import ControlNet
from darkroom.vision.annotators.canny import canny
from darkroom.weights.locate import ASSETS, built_in_names

FOLDER = ASSETS / "emoji-edges"


def test_its_size_and_what_lies_beside_it():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) < 9e6
    for name in ("README.md", "log.jsonl"):
        assert (FOLDER / name).is_file()
    ours = FOLDER / "controlnet.toml"
    assert ours.read_text() == (Path(recipes.__file__).parent / ours.name).read_text()
    assert "emoji-edges" in built_in_names()


def test_what_is_drawn_follows_the_hint():
    """A disc on one side, without words: that side is filled, the other one stays empty."""
    net, model = dr.load("emoji-edges"), dr.load("emoji")
    assert isinstance(net, ControlNet)
    filled = {}
    for left in (4, 30):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((left, 17, left + 30, 47), fill=(253, 216, 53))
        hint = canny(picture)
        (made,) = dr.develop(model, "", dr.Control(net, hint), seeds=[1], steps=12)
        dark = 1 - np.asarray(made.image).astype(float) / 255
        filled[left] = dark[:, 32:].sum() / dark.sum()
    assert filled[30] > filled[4] + 0.2
