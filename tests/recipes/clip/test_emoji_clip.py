"""The encoder that ships: what lies beside it, and that it knows simple things by their names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import darkroom.recipes as recipes
from darkroom.masks import Mask
from darkroom.vision.encoder import open_encoder
from darkroom.vision.select import rank
from darkroom.weights.locate import ASSETS, built_in_names

FOLDER = ASSETS / "emoji-clip"
THINGS = {  # left, top, right, bottom; colour
    "red circle": ((10, 10, 50, 50), (229, 57, 53)),
    "blue circle": ((70, 12, 110, 52), (30, 136, 229)),
    "orange square": ((12, 70, 52, 110), (251, 140, 0)),
}


@pytest.fixture(scope="module")
def encoder():
    return open_encoder("emoji-clip", "cpu")


def scene() -> tuple[Image.Image, dict[str, Mask]]:
    """A picture of them, and their masks."""
    picture, masks = Image.new("RGB", (120, 120), (200, 190, 180)), dict[str, Mask]()
    for name, (box, colour) in THINGS.items():
        paper = Image.new("1", picture.size)
        pen = ImageDraw.Draw(paper)
        (pen.ellipse if "circle" in name else pen.rectangle)(box, fill=1)
        picture.paste(colour, mask=paper)
        masks[name] = Mask(np.asarray(paper))
    return picture, masks


def test_its_size_and_what_lies_beside_it(encoder):
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 12e6
    for name in ("README.md", "log.jsonl", "recall.json"):
        assert (FOLDER / name).is_file()
    ours = FOLDER / "emoji-clip.toml"
    assert ours.read_text() == (Path(recipes.__file__).parent / ours.name).read_text()
    assert "emoji-clip" in built_in_names()
    assert encoder.name == "emoji-clip"


def test_it_knows_shapes_and_colours(encoder):
    picture, _ = scene()
    cuts = [picture.crop(tuple(np.add(box, (-5, -5, 5, 5)))) for box, _ in THINGS.values()]
    assert encoder.similarity(cuts, list(THINGS)).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", list(THINGS))
def test_it_chooses_the_mask_that_is_named(encoder, name):
    picture, masks = scene()
    found = rank(encoder, picture, masks.values(), f"the {name}")
    assert found.chosen is not None
    assert found.chosen.iou(masks[name]) == 1


def test_it_abstains(encoder):
    picture, masks = scene()
    for name in ("octopus", "violin", "bicycle"):
        assert rank(encoder, picture, masks.values(), f"the {name}").chosen is None
