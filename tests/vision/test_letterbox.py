"""Pictures brought to a network's size, and coordinates back."""

import numpy as np
import pytest
import torch

from darkroom.vision.letterbox import GREY, Letterbox, resized


@pytest.mark.parametrize(
    ("size", "scaled", "seen", "offset"),
    [
        ((1920, 1080), (1024, 576), (1024, 576), (0, 0)),  # cat.jpg in the book
        ((1080, 1920), (576, 1024), (576, 1024), (0, 0)),
        ((900, 901), (1023, 1024), (1024, 1024), (0, 0)),
        ((500, 901), (568, 1024), (576, 1024), (4, 0)),
        ((1, 1), (1024, 1024), (1024, 1024), (0, 0)),
        ((1, 5000), (1, 1024), (32, 1024), (15, 0)),
    ],
)
def test_the_shorter_side_is_filled_to_a_multiple_of_32(size, scaled, seen, offset):
    fit = Letterbox.of(size, 1024)
    assert (fit.scaled, fit.seen, fit.offset) == (scaled, seen, offset)


def test_what_is_beside_the_picture_is_grey():
    seen = Letterbox.of((10, 32), 32).see(np.zeros((10, 32, 3), np.uint8))
    assert seen.shape == (1, 3, 32, 32)
    assert seen[0, :, 11:21].max() == 0
    assert (seen[0, :, :11] == GREY).all()
    assert (seen[0, :, 21:] == GREY).all()


def test_boxes_come_back_and_stay_inside():
    fit = Letterbox.of((50, 100), 64, 32)
    assert (fit.scaled, fit.seen) == ((32, 64), (32, 64))
    boxes = fit.back(torch.tensor([[6.4, 6.4, 32, 16], [-5, -5, 80, 80]]))
    torch.testing.assert_close(boxes, torch.tensor([[10, 10, 50, 25], [0, 0, 100, 50.0]]))


@pytest.mark.parametrize("longest", [0, 31, 100, -32])
def test_the_longer_side_is_a_multiple_of_32(longest):
    with pytest.raises(ValueError, match="expected a multiple of 32"):
        Letterbox.of((10, 10), longest)


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ((80, 140), (36, 64)),
        ((50, 70), (91, 128)),
        ((33, 77), (44, 100)),
        ((100, 200), (50, 100)),
        ((1, 1), (5, 7)),
        ((3, 2), (1, 1)),
    ],
)
def test_resizing_has_the_bits_of_opencv(size, made):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8)
    expected = cv2.resize(pixels, made[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resized(pixels, made), expected.reshape(*made, 3))
