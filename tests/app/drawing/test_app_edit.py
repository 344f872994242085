"""``darkroom edit`` on a tiny real model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.generation.metadata import read_params

FAST = ("--steps", "3")


@pytest.fixture
def inputs(darkroom):
    """In the command's folder: a picture, a mask, a mask of another size, an empty one."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    picture.save("photo.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 10, 50, 40))
    mask.save("mask.png")
    mask.resize((32, 64)).save("narrow.png")
    Image.new("L", (64, 64)).save("black.png")
    holes = picture.convert("RGBA")
    holes.putalpha(mask.point(lambda value: 255 - value))
    holes.save("holes.png")
    return np.asarray(picture), np.asarray(mask) > 0


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_mask_is_painted_and_no_other_pixel(darkroom, model_folder, inputs):
    picture, inside = inputs
    line = ("edit", "photo.png", "a cat", "--mask", "mask.png", "--model", model_folder, *FAST)
    ended = darkroom(*line, "--seed", "7", "--count", "2", "--feather", "3")
    assert ended.code == 0
    paths = ended.out.splitlines()
    assert paths == ["pictures/00001-a-cat-7.png", "pictures/00002-a-cat-8.png"]
    for path in paths:
        same = (pixels(path) == picture).all(-1)
        assert same[~inside].all()
        assert not same[inside].all()
    params = read_params(paths[0])
    assert params.inpaint is not None
    assert (params.inpaint.feather, params.inpaint.strength) == (3, 1.0)
    with Image.open(paths[0]) as picture_of_a_cat:
        assert "Mask blur: 3" in picture_of_a_cat.info["parameters"]


def test_drawn_again_bit_for_bit(darkroom, model_folder, inputs):
    line = ("--mask", "mask.png", "--model", model_folder)
    options = (*FAST, "--strength", "0.7", "--only-masked", "--padding", "8", "--extend", "8,0,0,0")
    assert darkroom("edit", "photo.png", "a cat", *line, *options, "--count", "3").code == 0
    drawn = str(sorted(Path("pictures").iterdir())[1])
    ended = darkroom("edit", "photo.png", *line, "--from", drawn, "--out", "again.png")
    assert ended.code == 0
    assert np.array_equal(pixels("again.png"), pixels(drawn))
    assert read_params("again.png") == read_params(drawn)
    other = ("--from", drawn, "--harmonise", "--out", "other.png")
    assert darkroom("edit", "photo.png", *line, *other).code == 0
    used = read_params("other.png").inpaint
    assert used is not None
    assert (used.harmonise, used.feather, used.strength, used.padding) == (True, 16, 0.7, 8)
    ended = darkroom("edit", "narrow.png", *line, "--from", drawn)
    assert "mask of 64x64, the picture is 32x64" in ended.error
    ended = darkroom("generate", "--from", drawn, "--model", model_folder)
    assert "darkroom edit IMAGE --mask FILE --from PICTURE" in ended.error


def test_transparency_and_a_larger_canvas(darkroom, model_folder, inputs):
    picture, inside = inputs
    line = ("--model", model_folder, *FAST)
    assert darkroom("edit", "holes.png", "a cat", *line, "--out", "filled.png").code == 0
    assert np.array_equal(pixels("filled.png")[~inside], picture[~inside])
    wide = ("--extend", "16,0,8,0", "--out", "wide.png")
    assert darkroom("edit", "photo.png", "a cat", *line, *wide).code == 0
    assert pixels("wide.png").shape == (64, 88, 3)
    assert np.array_equal(pixels("wide.png")[:, 16:80], picture)


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (("--mask", "narrow.png"), 2, "mask of 32x64, the picture is 64x64: give a mask of"),
        (("--mask", "black.png"), 2, "the mask is empty: nothing to paint"),
        (("--mask", "nowhere.png"), 3, "nowhere.png: no such mask"),
        ((), 2, "which part? give --mask FILE"),
        (("--mask", "mask.png", "--padding", "4"), 2, "--padding: has no effect without --only"),
        (("--mask", "mask.png", "--extend", "4,4"), 2, "expected LEFT,TOP,RIGHT,BOTTOM"),
        (("--extend", "0,0,0,0"), 2, "expected 1 to 4096 pixels in all"),
        (("--mask", "mask.png", "--strength", "2"), 2, "above 0 and at most 1"),
        (("--mask", "mask.png", "--strength", "0.1"), 2, "leaves none"),
    ],
)
def test_bad_input_is_one_line(darkroom, model_folder, inputs, flags, code, reason):
    ended = darkroom("edit", "photo.png", "a cat", *flags, "--model", model_folder, *FAST)
    assert ended.code == code
    assert reason in ended.error


def test_missing_pictures_and_prompts(darkroom, model_folder, inputs):
    ended = darkroom("edit", "nowhere.png", "a cat", "--mask", "mask.png")
    assert (ended.code, "nowhere.png: no such picture" in ended.error) == (3, True)
    ended = darkroom("edit", "photo.png", "--mask", "mask.png")
    assert (ended.code, "give a PROMPT" in ended.error) == (2, True)


def test_adapters_act_and_are_drawn_again(darkroom, model_folder, inputs, adapters):
    line = ("edit", "photo.png", "--mask", "mask.png", "--model", model_folder)
    ended = darkroom(*line, "a thing", *FAST, *adapters, "--seed", "3", "--out", "a.png")
    assert ended.code == 0, ended.err
    params = read_params("a.png")
    assert [used.name for used in params.embeddings] == ["thing"]
    assert [used.name for used in params.hypernetworks] == ["push"]
    ended = darkroom(*line, "--from", "a.png", *adapters[:2], "--out", "b.png")
    assert ended.code == 0, ended.err
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
