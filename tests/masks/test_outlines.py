"""Polygons: exact at pixel edges, near enough when simpler, filled as pycocotools fills them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from scipy import ndimage

from darkroom.errors import DataError
from darkroom.masks import Mask
from darkroom.masks.outlines import fill, outlines, tied

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
bits = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def by_coco(polygons, shape):
    """Holes by tying them to their outline."""
    rings = [tied(polygon).ravel().tolist() for polygon in polygons]
    if not rings:
        return np.zeros(shape, bool)
    return coco.decode(coco.merge(coco.frPyObjects(rings, *shape))).astype(bool)


def blob(seed, height=60, width=80, rough=3.0):
    """A region of any form, holes and islands too."""
    noise = np.random.default_rng(seed).standard_normal((height, width))
    return ndimage.gaussian_filter(noise, rough) > 0.02


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


@given(bits)
def test_exact_outlines_give_the_mask_back(values):
    polygons = Mask(values).polygons()
    assert np.array_equal(Mask.from_polygons(polygons, values.shape).values, values)
    assert np.array_equal(by_coco(polygons, values.shape), values)
    _, regions = ndimage.label(values, np.ones((3, 3)))
    assert len(polygons) == regions
    outside = np.pad(~values, 1, constant_values=True)
    assert sum(len(polygon) - 1 for polygon in polygons) == ndimage.label(outside)[1] - 1


@given(bits)
def test_outlines_run_clockwise_and_holes_the_other_way(values):
    for outline, *holes in outlines(values):
        for ring, sign in ((outline, 1), *((hole, -1) for hole in holes)):
            x, y = ring.T
            assert sign * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0
            turns = np.roll(ring, -1, axis=0) - ring
            assert ((turns == 0).sum(1) == 1).all()  # along rows and columns, in turn
            assert (turns[:, 0] != 0).tolist() != (np.roll(turns[:, 0], 1) != 0).tolist()


def test_a_ring_by_hand():
    values = np.ones((3, 4), bool)
    values[1, 1] = False
    ((outline, hole),) = Mask(values).polygons()
    assert outline.tolist() == [[0, 0], [4, 0], [4, 3], [0, 3]]
    assert hole.tolist() == [[1, 1], [1, 2], [2, 2], [2, 1]]
    assert tied((outline, hole)).shape == (10, 2)
    assert Mask.from_polygons([(outline,)], (3, 4)).area == 12


@settings(deadline=None, max_examples=60)
@given(bits, st.floats(0.1, 4))
def test_simple_outlines_keep_the_overlap(values, tolerance):
    polygons = Mask(values).polygons(tolerance)
    assert all(len(ring) >= 3 for polygon in polygons for ring in polygon)
    if values.any():
        assert iou(Mask.from_polygons(polygons, values.shape).values, values) >= 0.99


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.5, 1, 3])
def test_simple_outlines_of_larger_regions(seed, tolerance):
    values = blob(seed, 200, 300, rough=2 + seed)
    exact, simple = outlines(values), outlines(values, tolerance, 0.99)
    assert iou(fill(simple, values.shape), values) >= 0.99
    assert iou(by_coco(simple, values.shape), values) >= 0.985  # it rounds to fifths of a pixel
    assert sum(map(len, map(tied, simple))) < 0.75 * sum(map(len, map(tied, exact)))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_any_polygon_is_filled_as_coco_fills_it(seed, corners):
    """Even-odd where it crosses itself. COCO draws lines in steps of a fifth of a pixel."""
    ring = np.random.default_rng(seed).integers(0, 300, (corners, 2)) / 5.0
    ours = fill([(ring,)], (41, 53))
    theirs = coco.decode(coco.frPyObjects([ring.ravel().tolist()], 41, 53))[..., 0].astype(bool)
    y, x = np.nonzero(ours != theirs)
    assert all(away(px, ring) < 0.3 for px in zip(x + 0.5, y + 0.5, strict=True))


def away(point, ring):
    """The distance of a point from a closed line."""
    along = np.roll(ring, -1, axis=0) - ring
    length = np.maximum((along**2).sum(1), 1e-9)
    share = (((point - ring) * along).sum(1) / length).clip(0, 1)
    return np.sqrt(((ring + share[:, None] * along - point) ** 2).sum(1)).min()


def test_polygons_unite_and_their_own_rings_cross_out():
    square = np.array([(1, 1), (9, 1), (9, 9), (1, 9)])
    inner = square * 0.5 + 2.5
    assert fill([(square, inner)], (10, 10)).sum() == 64 - 16
    assert fill([(square,), (inner,)], (10, 10)).sum() == 64
    assert fill([(square,), (square + 4,)], (20, 20)).sum() == 64 + 64 - 16
    assert fill([(square - 5,)], (10, 10)).sum() == 16  # the rest is outside of the picture
    assert fill([], (3, 4)).shape == (3, 4)
    assert fill([(square + 100,)], (10, 10)).sum() == 0


@pytest.mark.parametrize(
    ("polygons", "size"),
    [
        ([(np.zeros(4),)], (4, 4)),
        ([(np.array([(0, 0), (1, np.nan), (1, 1)]),)], (4, 4)),
        ([], (10**5, 10**5)),
        ([], (-1, 4)),
    ],
)
def test_what_is_no_polygon(polygons, size):
    with pytest.raises(DataError, match="expected|at most"):
        Mask.from_polygons(polygons, size)
