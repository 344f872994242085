"""The segmenters that ship: what lies beside them, and that they find what is plain to see."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import darkroom as dr
import darkroom.recipes as recipes
from darkroom.masks import Mask
from darkroom.vision.segment import Segmenter
from darkroom.weights.locate import ASSETS, built_in_names

SIDES = {
    "emoji-sam": (
        "emoji-sam.toml", "emoji-sam-small.toml", "log.jsonl", "log-small.jsonl", "log-again.jsonl"
    ),
    "emoji-fastsam": ("emoji-fastsam.toml", "log.jsonl"),
}  # fmt: skip


@pytest.fixture(scope="module")
def discs():
    """A red and a yellow disc on blue, and their masks."""
    picture = Image.new("RGB", (200, 150), (60, 110, 190))
    masks = []
    for box, colour in (((20, 30, 90, 100), (210, 40, 40)), ((120, 50, 180, 110), (250, 210, 40))):
        ImageDraw.Draw(picture).ellipse(box, fill=colour)
        mask = Image.new("L", picture.size)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        masks.append(Mask(np.asarray(mask) > 0))
    return picture, masks


@pytest.mark.parametrize("name", SIDES)
def test_their_size_and_what_lies_beside_them(name):
    folder = ASSETS / name
    assert name in built_in_names()
    assert (folder / "model.safetensors").stat().st_size < 7e6
    for file in ("README.md", *SIDES[name]):
        assert (folder / file).is_file()
    for ours in folder.glob("*.toml"):
        assert ours.read_text() == (Path(recipes.__file__).parent / ours.name).read_text()


def test_clicks_and_boxes_find_discs(discs):
    picture, masks = discs
    segmenter = dr.open_segmenter()
    assert isinstance(segmenter, Segmenter) and segmenter.name == "emoji-sam"
    encoded = segmenter.encode(picture)
    for mask in masks:
        left, top, right, bottom = mask.box
        middle = (left + right) / 2, (top + bottom) / 2
        click = dr.Prompt(points=(middle,), inside=(True,))
        assert segmenter.masks(encoded, click).best()[0].iou(mask) > 0.6
        box = dr.Prompt(box=(left, top, right, bottom))
        assert segmenter.masks(encoded, box, 1).best()[0].iou(mask) > 0.6


@pytest.mark.parametrize("name", SIDES)
def test_everything_finds_discs(discs, name):
    picture, masks = discs
    found = list(dr.open_segmenter(name).everything(picture))
    assert 0 < len(found) < 40
    for mask in masks:
        assert max(one.iou(mask) for one in found) > 0.6
