"""Regions by runs: the numbering, areas and edges that scipy finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from darkroom.masks import Mask
from darkroom.masks.regions import drop_small, find_regions

bits = arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30)))


def noise(height, width, share, seed=0):
    return np.random.default_rng(seed).random((height, width)) < share


@given(bits, st.booleans())
def test_regions_are_those_of_scipy(values, corners):
    regions = find_regions(values, corners)
    labels, count = ndimage.label(values, np.ones((3, 3)) if corners else None)
    assert len(regions) == count
    assert np.array_equal(regions.map() > 0, values)
    pairs = set(zip(regions.map()[values], labels[values], strict=True))
    assert len(pairs) == count  # one to one
    areas = np.bincount(regions.map()[values], minlength=count + 1)[1:]
    assert np.array_equal(regions.areas, areas)
    at_edge = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
    assert regions.at_edge().sum() == len(at_edge)


@pytest.mark.parametrize("share", [0.02, 0.41, 0.6, 0.98])
@pytest.mark.parametrize("corners", [True, False])
def test_large_pictures_of_noise(share, corners):
    values = noise(300, 401, share)
    structure = np.ones((3, 3)) if corners else None
    assert len(find_regions(values, corners)) == ndimage.label(values, structure)[1]


def test_a_spiral_is_one_region():
    values = np.zeros((101, 101), bool)
    y = x = 0
    turn, length = [(0, 1), (1, 0), (0, -1), (-1, 0)], [100, 100, 100]
    length += [n for k in range(98, 0, -2) for n in (k, k)]
    for i, steps in enumerate(length):
        for _ in range(steps):
            values[y, x] = True
            y, x = y + turn[i % 4][0], x + turn[i % 4][1]
    assert len(find_regions(values, corners=False)) == 1
    assert len(find_regions(~values, corners=False)) == 1


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 7), (7, 1)])
def test_sizes_at_the_limit(shape):
    nothing, all_of_it = np.zeros(shape, bool), np.ones(shape, bool)
    assert len(find_regions(nothing)) == 0
    assert len(find_regions(all_of_it)) == (all_of_it.size > 0)
    assert np.array_equal(find_regions(all_of_it).where(np.array([True])), all_of_it)
    assert Mask(all_of_it).fill_holes().area == all_of_it.size
    assert Mask(nothing).components() == []


@given(bits, st.integers(0, 40))
def test_small_regions_go(values, below):
    labels, count = ndimage.label(values, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    large = [i + 1 for i in range(count) if areas[i] >= below]
    assert np.array_equal(drop_small(values, below, keep_one=False), np.isin(labels, large))
    kept = Mask(values).drop_islands(below).values
    if large or not count:
        assert np.array_equal(kept, np.isin(labels, large))
    else:
        assert kept.sum() == areas.max()
        assert values[kept].all()
    if count == len(large):
        assert drop_small(values, below) is values
    assert np.array_equal(drop_small(values.T, below, False), np.isin(labels.T, large))


@given(bits)
def test_holes_are_filled(values):
    assert np.array_equal(Mask(values).fill_holes().values, ndimage.binary_fill_holes(values))


def test_only_small_holes():
    values = np.ones((20, 20), bool)
    values[2:4, 2:4] = values[10:15, 10:15] = values[0, 19] = False
    mask = Mask(values, score=0.5, source="by hand")
    assert mask.fill_holes(4).area == 400 - 25 - 1
    assert mask.fill_holes(25).area == mask.fill_holes().area == 399
    assert (mask.fill_holes().score, mask.fill_holes().source) == (0.5, "by hand")
    assert mask.fill_holes(3).area == mask.area


def test_components_are_sorted_and_make_up_the_whole():
    values = noise(40, 50, 0.3)
    parts = Mask(values, label="leaf").components()
    areas = [part.area for part in parts]
    assert areas == sorted(areas, reverse=True)
    assert sum(areas) == values.sum()
    assert {part.label for part in parts} == {"leaf"}
    whole = parts[0]
    for part in parts[1:]:
        assert (whole & part).area == 0
        whole = whole | part
    assert np.array_equal(whole.values, values)
    soft = Mask(np.array([[0.9, 0.4, 0.6]]))
    assert [part.values.tolist() for part in soft.components()] == [
        [[True, False, False]],
        [[False, False, True]],
    ]
