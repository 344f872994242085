"""Masks, stars and boxes over pictures: which colour is where."""

import numpy as np
import pytest
from PIL import Image

from darkroom.masks import Mask, mark, show_all, show_candidates, show_mask
from darkroom.masks.showing import BLUE, GREEN, RED, colours


def square(left, top, side, score=None, size=(60, 80)):
    values = np.zeros(size, bool)
    values[top : top + side, left : left + side] = True
    return Mask(values, score=score)


GREY = Image.new("RGB", (80, 60), (100, 100, 100))


def test_one_mask_in_the_book_s_blue():
    shown = np.asarray(show_mask(GREY, square(10, 10, 20)))
    assert shown[0, 0].tolist() == [100, 100, 100]
    assert shown[15, 15].tolist() == [round(0.4 * 100 + 0.6 * c) for c in BLUE] == [58, 126, 193]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_smaller_of_two_masks_shows(order):
    masks = [(square(5, 5, 40), square(10, 10, 10))[i] for i in order]
    tints = dict(zip(order, colours(2), strict=True))
    shown = np.asarray(show_all(GREY, masks))
    for place, which in (((30, 30), 0), ((15, 15), 1)):
        expected = [100 + 0.35 * (c - 100) for c in tints[which]]
        assert np.abs(shown[place] - expected).max() <= 0.5
    assert shown[50, 70].tolist() == [100, 100, 100]


def test_outlines_run_along_the_inner_edge():
    (tint,) = colours(1)
    shown = np.asarray(show_all(GREY, [square(0, 10, 20)], outline=True))
    assert shown[10, 5].tolist() == shown[29, 19].tolist() == shown[20, 0].tolist() == list(tint)
    assert shown[20, 10].tolist() != list(tint)
    assert shown[9, 5].tolist() == shown[30, 5].tolist() == [100, 100, 100]


def test_nothing_found_and_other_sizes():
    empty = Mask(np.zeros((60, 80), bool))
    for shown in (show_all(GREY, []), show_all(GREY, [empty], outline=True), mark(GREY)):
        assert np.array_equal(np.asarray(shown), np.asarray(GREY))
    with pytest.raises(ValueError, match="over a picture of 80x60"):
        show_all(GREY, [square(0, 0, 5, size=(60, 81))])


def test_stars_and_boxes():
    points, inside = [(20, 20), (60, 40), (0, 0)], [True, False, True]
    shown = np.asarray(mark(GREY, points, inside, [(30, 5, 50, 55)]))
    assert shown[20, 20].tolist() == list(GREEN)
    assert shown[40, 60].tolist() == list(RED)
    assert shown[0, 0].tolist() == list(GREEN)  # cut off by the corner
    assert shown[5, 40].tolist() == shown[54, 40].tolist() == shown[30, 49].tolist() == list(GREEN)
    assert shown[30, 40].tolist() == shown[30, 52].tolist() == [100, 100, 100]
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 8  # smooth edges
    with pytest.raises(ValueError, match="shorter|longer"):
        mark(GREY, points, [True])


def test_a_figure_of_candidates():
    masks = [square(5, 5, 20, 0.9), square(5, 5, 40, 0.5), square(5, 5, 50)]
    figure = show_candidates(GREY, masks, [(10, 10)], [True])
    assert figure.width >= 3 * 80 * 3  # enlarged: the picture is small
    alone = show_candidates(GREY, masks[:1])
    assert alone.width < figure.width
    large = Image.new("RGB", (2000, 1000))
    assert show_candidates(large, [square(0, 0, 9, size=(1000, 2000))]).width < 600
