"""Grids, crops, boxes and duplicates; torchvision's ``nms`` and cv2 as oracles by what they say."""

import cv2
import numpy as np
import pytest

from darkroom.vision.mask_filters import crops, goes_on, grid, tidied, tight, without_duplicates


def test_grid() -> None:
    assert grid(1).tolist() == [[0.5, 0.5]]
    assert grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_crops_cover_the_picture() -> None:
    found = crops((1200, 1800), 2, 512 / 1500)
    assert [layer for layer, _ in found] == [0] + [1] * 4 + [2] * 16
    assert found[0][1] == (0, 0, 1800, 1200)
    assert found[1][1] == (0, 0, 1105, 805)  # ceil((1800 + 409) / 2), ceil((1200 + 409) / 2)
    assert found[2][1] == (0, 396, 1105, 1200)  # down first
    for layer in (1, 2):
        covered = np.zeros((1200, 1800), bool)
        for left, top, right, bottom in (box for number, box in found if number == layer):
            covered[top:bottom, left:right] = True
        assert covered.all()
    assert all(r > x and b > y for _, (x, y, r, b) in crops((1, 3), 3, 0.3))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((30, 30, 60, 60), False),
        ((20, 30, 60, 60), False),  # near the picture's own edge
        ((30, 30, 80, 60), True),
        ((30, 30, 79, 60), False),  # 21 away
        ((30, 100, 60, 199), False),
    ],
)
def test_what_goes_on_beyond_its_crop(box, expected: bool) -> None:
    assert goes_on(box, (0, 0, 100, 200), (200, 300)) is expected


def slow_nms(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    """As torchvision's CPU kernel says: one box after the other, float32."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])  # stable
    gone, kept = set(), []
    areas = [np.float32((b[2] - b[0]) * (b[3] - b[1])) for b in boxes]
    for n, i in enumerate(order):
        if i in gone:
            continue
        kept.append(i)
        for j in order[n + 1 :]:
            w = max(np.float32(0), min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0]))
            h = max(np.float32(0), min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1]))
            both = np.float32(w * h)
            union = np.float32(areas[i] + areas[j] - both)
            if union and float(both / union) > overlap:
                gone.add(j)
    return kept


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7, 1.0])
def test_duplicates(overlap: float) -> None:
    draw = np.random.default_rng(0)
    corner = draw.integers(0, 40, (120, 2))
    boxes = np.concatenate([corner, corner + draw.integers(0, 30, (120, 2))], 1)
    boxes = boxes.astype(np.float32)
    scores = draw.integers(0, 6, 120).astype(np.float32)  # many are equal
    assert without_duplicates(boxes, scores, overlap).tolist() == slow_nms(boxes, scores, overlap)


def test_duplicates_of_nothing() -> None:
    assert not len(without_duplicates(np.zeros((0, 4)), np.zeros(0), 0.5))
    same = np.tile([3, 3, 3, 3], (2, 1))  # without area: 0 / 0
    assert without_duplicates(same, np.ones(2), 0.5).tolist() == [0, 1]


def by_cv2(values: np.ndarray, least: int) -> np.ndarray:
    for holes in (True, False):
        inside = ~values if holes else values
        count, regions, stats, _ = cv2.connectedComponentsWithStats(
            inside.astype(np.uint8), None, None, None, 8
        )
        areas = stats[1:, cv2.CC_STAT_AREA]
        small = areas < least
        if not holes and count > 1 and small.all():
            small[areas.argmax()] = False
        drop = np.isin(regions, np.flatnonzero(small) + 1)
        values = values | drop if holes else values & ~drop
    return values


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("least", [1, 5, 40, 10**6])
def test_tidied_equals_cv2(share: float, least: int) -> None:
    values = np.random.default_rng(3).random((40, 50)) < share
    before = values.copy()
    found, changed = tidied(values, least)
    assert np.array_equal(found, by_cv2(values, least))
    assert np.array_equal(values, before)
    assert changed is (least > 1)
    assert least > 1 or found is values


def test_an_only_island_that_is_small_stays_but_counts() -> None:
    values = np.zeros((9, 9), bool)
    values[2:4, 2:4] = True
    assert tidied(values, 4)[1] is False
    found, changed = tidied(values, 5)
    assert (found is values, changed) == (True, True)
    assert tidied(np.zeros((9, 9), bool), 5)[1] is False


def test_tight() -> None:
    values = np.zeros((5, 6), bool)
    assert tight(values) is None
    values[1:3, 2:5] = True
    assert tight(values) == (2, 1, 4, 2)
