"""From words to a mask, with a segmenter that knows the squares and an encoder of colours."""

import json

import numpy as np
import pytest

from darkroom.masks import Mask
from darkroom.vision import select as selecting
from darkroom.vision.select import NotFoundError, Selection, cut, plain, rank, select
from vision.coloured_squares import PLACES, Colours, Squares, drawn


@pytest.fixture(scope="module")
def picture():
    return drawn()


@pytest.mark.parametrize("name", list(PLACES))
def test_the_mask_of_what_is_named(picture, name):
    found = select(Squares(), Colours(), picture, f"the {name} one")
    assert isinstance(found, Selection)
    assert found.chosen is not None
    assert found.chosen.box[:2] == PLACES[name]
    assert len(found.masks) == 3  # the speck shows nothing
    assert found.score == found.chosen.score > 0.9
    assert [m.score for m in found.masks] == sorted((m.score for m in found.masks), reverse=True)
    assert found.chosen.label == f"the {name} one"
    assert found.chosen.source == f"squares; colours: the {name} one"
    assert found.threshold == selecting.THRESHOLD


def test_it_abstains_and_says_why(picture):
    places = {name: place for name, place in PLACES.items() if name != "red"}
    found = select(Squares(places), Colours(), picture, "red")
    assert found.chosen is None
    assert found.picked == ()
    assert found.score < found.threshold
    assert "the best of 2 candidates scores" in str(NotFoundError(found))
    assert NotFoundError(found).selection is found
    assert NotFoundError(found).exit_code == 1
    assert found.candidates(picture).width > 2 * selecting.SHOWN
    assert found.picture(picture).tobytes() == picture.tobytes()
    assert select(Squares(places), Colours(), picture, "red", threshold=0.0).chosen is not None


def test_other_texts_that_could_be_meant(picture):
    alone = select(Squares(), Colours(), picture, "green")
    beside = select(Squares(), Colours(), picture, "green", against=["a red one", "green"])
    assert beside.against == (*selecting.AGAINST, "a red one")  # itself is no contrast
    assert beside.masks[1].score <= alone.masks[1].score


def test_every_instance(picture):
    twice = {"red": (10, 10), "blue": (30, 60), "again": (12, 14)}
    found = select(Squares(twice), Colours(), picture, "red", every=True)
    assert len(found.picked) == 2
    assert found.chosen.area == (found.picked[0] | found.picked[1]).area
    assert found.chosen.score == found.picked[0].score
    assert len(select(Squares(twice), Colours(), picture, "red").picked) == 1


def test_nothing_to_choose_from(picture):
    found = rank(Colours(), picture, [], "red")
    assert (found.masks, found.chosen, found.score) == ((), None, 0.0)
    assert "the segmenter found nothing" in found.why_not()
    with pytest.raises(ValueError, match="no candidates"):
        found.candidates(picture)


def test_it_is_told_as_json(picture):
    found = select(Squares(), Colours(), picture, "blue")
    told = json.loads(json.dumps(found.to_plain(count=2)))
    assert told["found"] == 3
    assert told["picked"] == 1
    assert [c["box"] for c in told["candidates"]][0] == [30, 60, 50, 80]
    assert Mask.from_rle(told["mask"]).iou(found.chosen) == 1
    assert rank(Colours(), picture, [], "red").to_plain()["mask"] is None


def test_what_was_chosen_is_shown(picture):
    shown = np.asarray(select(Squares(), Colours(), picture, "green").picture(picture), int)
    given = np.asarray(picture, int)
    same = (shown == given).all(2)
    assert Mask(same).box == (50, 20, 70, 40)


@pytest.mark.parametrize(
    ("text", "threshold", "message"),
    [(" ", None, "no words"), ("red", 1.5, "expected 0 to 1"), ("red", -0.1, "expected 0 to 1")],
)
def test_what_is_wrong_is_said(picture, text, threshold, message):
    with pytest.raises(ValueError, match=message):
        select(Squares(), Colours(), picture, text, threshold=threshold)


def test_cuts_are_square_and_reach_over_the_edge():
    pixels = np.full((40, 30, 3), 200, np.uint8)
    values = np.zeros((40, 30), bool)
    values[0:10, 0:20] = True
    for ground in selecting.GROUNDS:
        alone = np.asarray(cut(pixels, Mask(values), 26, ground))
        assert alone.shape == (26, 26, 3)
        assert (alone[:8] == ground).all()  # above the picture
        assert (alone[8:18, 3:23] == 200).all()
        assert (alone[18:] == ground).all()
    assert cut(pixels, Mask(values), 8).size == cut(pixels, Mask(~values), 8).size == (8, 8)
    with pytest.raises(ValueError, match="0 pixels inside"):
        cut(pixels, Mask(np.zeros((40, 30), bool)), 40)
    with pytest.raises(ValueError, match="for a picture of 30x40"):
        cut(pixels, Mask(np.ones((5, 5), bool)), 40)


def test_a_known_level_speaks_for_nothing(picture, monkeypatch):
    before = select(Squares(), Colours(), picture, "red")
    monkeypatch.setattr(selecting, "LEVELS", {"colours": 0.95})
    after = select(Squares(), Colours(), picture, "red")
    assert after.score < 0.5 < before.score
    assert after.chosen is None


def test_articles_are_no_part_of_a_name():
    assert [plain(text) for text in ("the dog", " A  cat", "an", "theatre", "The red  car")] == [
        "dog", "cat", "an", "theatre", "red car"
    ]  # fmt: skip


def test_specks_apart_are_dropped(picture):
    values = np.zeros((90, 80), bool)
    values[10:30, 10:30] = True
    values[80:83, 70:73] = True
    (mask,) = rank(Colours(), picture, [Mask(values, score=0.5)], "red").masks
    assert mask.box == (10, 10, 30, 30)
    values[60:66, 50:56] = True  # a part of it, not a speck
    (mask,) = rank(Colours(), picture, [Mask(values)], "red").masks
    assert mask.box == (10, 10, 56, 66)
