"""``darkroom edit --select`` and ``replace``: words lead to the mask, or nothing is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import darkroom as dr
from darkroom.app.drawing.replace import Replacement, replace
from darkroom.generation.metadata import Params, read_params
from darkroom.masks import Mask
from darkroom.vision.select import NotFoundError
from vision.coloured_squares import PLACES, Colours, Squares, drawn

FAST = ("--steps", "3")


@pytest.fixture
def opened(monkeypatch, darkroom):
    """A picture in the command's folder; what was opened to look into it."""
    names = []

    def opening(kind):
        def call(name, device=None):
            names.append(name)
            return kind()

        return call

    monkeypatch.setattr("darkroom.vision.segment.open_segmenter", opening(Squares))
    monkeypatch.setattr("darkroom.vision.encoder.open_encoder", opening(Colours))
    drawn().save("squares.png")
    return names


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def changed(path) -> Mask:
    return Mask((pixels(path) != np.asarray(drawn())).any(-1))


def test_what_is_named_is_painted_and_no_other_pixel(darkroom, model_folder, opened):
    line = ("edit", "squares.png", "a cat", "--model", model_folder, *FAST, "--seed", "7")
    ended = darkroom(*line, "--select", "the green one")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == ["pictures/00002-a-cat-7.png"]
    assert "'the green one': 400 pixels, fit 0.9" in ended.err
    assert "shown in pictures/00001-the-green-one-selected.png" in ended.err
    assert opened == ["emoji-sam", "emoji-clip"]
    left, top = PLACES["green"]
    box = changed("pictures/00002-a-cat-7.png").box  # four pixels larger than what was found
    assert box == (left - 4, top - 4, left + 24, top + 24)
    shown = ~changed("pictures/00001-the-green-one-selected.png")
    assert shown.box == (left, top, left + 20, top + 20)
    used = read_params("pictures/00002-a-cat-7.png").inpaint
    assert (used.only_masked, used.padding) == (True, 28 // 8)


def test_it_is_told_and_drawn_again(darkroom, model_folder, opened):
    base = ("edit", "squares.png", "--model", model_folder)
    words = ("--select", "red", "--grow", "4", "--threshold", "0.6", "--segmenter", "some.pt")
    ended = darkroom(*base, "a cat", *words, *FAST, "--out", "cat.png", "--json")
    assert ended.code == 0, ended.err
    told = ended.answer["selection"]
    assert told["picture"] == "cat-selected.png"
    assert Mask.from_rle(told["mask"]).box == (10, 10, 30, 30)
    params = read_params("cat.png")
    assert params.inpaint.selected.text == "red"
    assert params.inpaint.selected.segmenter == "some.pt"
    assert params.inpaint.selected.encoder == "emoji-clip"
    assert (params.inpaint.selected.grow, params.inpaint.selected.threshold) == (4, 0.6)
    assert Params.from_plain(params.to_plain()) == params
    # by the words in the picture, by the same words, by the mask itself
    ended = darkroom(*base, "--from", "cat.png", "--out", "again.png")
    assert ended.code == 0, ended.err
    assert darkroom(*base, "--from", "cat.png", *words, "--out", "words.png").code == 0
    Mask.from_rle(told["mask"]).grow(4).image().save("mask.png")
    assert darkroom(*base, "--from", "cat.png", "--mask", "mask.png", "--out", "m.png").code == 0
    for name in ("again.png", "words.png", "m.png"):
        assert np.array_equal(pixels(name), pixels("cat.png"))
    assert read_params("again.png") == params
    assert darkroom(*base, "--from", "cat.png", "--select", "blue", "--out", "b.png").code == 0
    assert changed("b.png").box == (26, 56, 54, 84)


def test_nothing_is_drawn_where_nothing_fits(darkroom, model_folder, opened, monkeypatch):
    base = ("edit", "squares.png", "a cat", "--model", model_folder, *FAST, "--select", "violet")
    ended = darkroom(*base, "--json")
    assert ended.code == 1
    assert "'violet': not found; the best of 3 candidates scores" in ended.error
    assert "the candidates: pictures/00001-violet-selected.png" in ended.error
    assert [path.name for path in Path("pictures").iterdir()] == ["00001-violet-selected.png"]
    assert ended.answer["selection"]["picked"] == 0
    assert len(ended.answer["selection"]["candidates"]) == 3
    assert ended.answer["pictures"] == []
    monkeypatch.setattr(Squares, "everything", lambda self, image: iter(()))
    ended = darkroom(*base, "--out", "other.png")
    assert (ended.code, "the segmenter found nothing" in ended.error) == (1, True)
    assert not list(Path().glob("other*"))


def test_nought_is_said_too(darkroom, model_folder, opened):
    line = ("edit", "squares.png", "a cat", "--select", "violet", "--model", model_folder, *FAST)
    ended = darkroom(*line, "--threshold", "0", "--grow", "0", "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["selection"]["threshold"] == 0
    (picture,) = ended.answer["pictures"]
    assert picture["params"]["inpaint"]["selected"]["grow"] == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--select", "red", "--mask", "squares.png"), "choose one"),
        (("--select", " "), "no words"),
        (("--extend", "8,0,0,0", "--threshold", "0.5"), "--threshold: has no effect without"),
        (("--mask", "squares.png", "--every"), "--every: has no effect without --select"),
        (("--select", "red", "--threshold", "2"), "less than or equal to 1"),
    ],
)
def test_flags_that_do_not_go_together(darkroom, model_folder, opened, flags, reason):
    ended = darkroom("edit", "squares.png", "a cat", *flags, "--model", model_folder, *FAST)
    assert (ended.code, reason in ended.error) == (2, True), ended.error
    assert opened == []


def test_replace(model_folder, opened):
    made = dr.replace(
        "squares.png", "the blue one", "a cat", model=str(model_folder), seed=3, grow=0, steps=3
    )
    assert isinstance(made, Replacement)
    assert made.mask.box == (*PLACES["blue"], 50, 80)
    assert made.selection.chosen.label == "the blue one"
    outside = ~made.mask.values
    assert (np.asarray(made.picture.image) == np.asarray(drawn()))[outside].all()
    assert made.picture.params.seeds == (3,)
    assert made.picture.params.inpaint.selected.encoder == "emoji-clip"
    with pytest.raises(NotFoundError, match="not found") as caught:
        replace("squares.png", "violet", "a cat", segmenter=Squares(), encoder=Colours())
    assert len(caught.value.selection.masks) == 3
    with pytest.raises(ValueError, match="grow of -1"):
        replace("squares.png", "red", "a cat", grow=-1)
    with pytest.raises(ValueError, match="no words"):
        replace("squares.png", "", "a cat", segmenter=Squares(), encoder=Colours())


def test_it_works_offline(darkroom, model_folder):
    """With what is built in: the segmenter, the encoder."""
    picture = Image.new("RGB", (120, 120), (200, 190, 180))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((10, 10, 50, 50), fill=(229, 57, 53))
    pen.ellipse((70, 12, 110, 52), fill=(30, 136, 229))
    picture.save("circles.png")
    line = ("edit", "circles.png", "a cat", "--model", model_folder, *FAST, "--grow", "0")
    ended = darkroom(*line, "--select", "the red circle", "--out", "cat.png", "--json")
    assert ended.code == 0, ended.err
    truth = Mask((np.asarray(picture) == (229, 57, 53)).all(-1))
    assert Mask.from_rle(ended.answer["selection"]["mask"]).iou(truth) > 0.8
    ended = darkroom(*line, "--select", "the violin", "--out", "none.png")
    assert (ended.code, "'the violin': not found" in ended.error) == (1, True)
    assert Path("none-selected.png").is_file()
