"""What grades the inpainting model and the ControlNet: measures on pictures with known answers."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import emoji_edges  # noqa: E402
import emoji_inpaint  # noqa: E402


def line(column: int) -> np.ndarray:
    marked = np.zeros((64, 64), bool)
    marked[10:50, column] = True
    return marked


def test_agreement_forgives_one_pixel_and_no_more():
    assert emoji_edges.agreement(line(20), line(20)) == 1
    assert emoji_edges.agreement(line(20), line(21)) == 1
    assert emoji_edges.agreement(line(20), line(21), reach=0) == 0
    assert emoji_edges.agreement(line(20), line(22)) == 0
    both = line(20) | line(40)
    assert emoji_edges.agreement(line(20), both) == pytest.approx(2 / 3)  # precision 1, recall 1/2
    nothing = np.zeros((64, 64), bool)
    assert emoji_edges.agreement(nothing, line(20)) == 0
    assert emoji_edges.agreement(nothing, nothing) == 1


def test_poses():
    picture = np.ones((64, 64, 3), np.float32)
    picture[:, :32] = 0
    mirrored = np.asarray(emoji_edges.posed(picture, "mirrored"))
    assert mirrored[:, 32:].max() == 0
    assert mirrored[:, :32].min() == 255
    moved = np.asarray(emoji_edges.posed(picture, "smaller and moved"))[..., 0]
    dark = np.argwhere(moved == 0)
    assert dark.min(0).tolist() == [emoji_edges.TOP, emoji_edges.LEFT]
    assert dark.max(0)[0] == emoji_edges.TOP + emoji_edges.SMALLER - 1


def test_masks_grow_and_things_lie_over_grounds():
    point = np.zeros((9, 9), bool)
    point[4, 4] = True
    assert emoji_inpaint.grown(point, 2).sum() == 13
    thing = np.zeros((1, 2, 2, 4), np.float32)
    thing[0, 0, 0] = (0.5, 0, 0, 1)
    over = emoji_inpaint.over(thing, "white")
    assert over[0, 0, 0].tolist() == [0.5, 0, 0]
    assert over[0, 1, 1].tolist() == [1, 1, 1]


def test_a_seam_is_seen():
    picture = np.zeros((64, 64, 3), np.float32)
    picture[32:] = 1
    assert emoji_inpaint.seam(picture, across_rows=True) == 1
    assert emoji_inpaint.seam(picture, across_rows=False) == 0
