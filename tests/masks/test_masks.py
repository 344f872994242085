"""The mask type: areas and boxes by hand, run lengths as pycocotools writes them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from darkroom.errors import DataError, ImageError
from darkroom.masks import colours, overlay
from darkroom.masks.mask import Mask, open_mask
from darkroom.masks.run_lengths import pack, unpack

bits = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def disc(height=40, width=60, x=20, y=15, r=10.0):
    rows, columns = np.mgrid[:height, :width]
    return Mask((columns - x) ** 2 + (rows - y) ** 2 <= r * r)


@given(bits)
def test_run_lengths_are_those_of_coco(values):
    ours = Mask(values).rle()
    theirs = coco.encode(np.asfortranarray(values.astype(np.uint8)))
    assert ours == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    assert np.array_equal(Mask.from_rle(theirs).values, values)
    assert np.array_equal(Mask.from_rle(ours).values, values)


def test_large_run_lengths():
    values = np.zeros((1200, 1800), bool)
    values[300:900, 700:1500] = True
    values[5, 1799] = True
    mask = Mask(values)
    theirs = coco.encode(np.asfortranarray(values.astype(np.uint8)))
    assert mask.rle()["counts"].encode() == theirs["counts"]
    assert mask.area == float(coco.area(theirs))
    assert np.array_equal(Mask.from_rle(theirs).values, values)


@given(st.lists(st.integers(0, 10**9), max_size=30))
def test_packed_numbers_come_back(runs):
    assert unpack(pack(runs).encode()) == runs


def test_run_lengths_as_a_list():
    plain = Mask.from_rle({"size": [2, 3], "counts": [1, 2, 3]})
    assert plain.values.tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 3], "counts": [1, 2]},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2, 3]},
        {"size": [2], "counts": [2]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [2, 3], "counts": "1\x7f"},
        {"size": [2, 3], "counts": "é"},
        {"size": [2, 3], "counts": "R"},  # says that more follows
        {"size": [2, 3], "counts": "R" * 1000},
    ],
)
def test_damaged_run_lengths(rle):
    with pytest.raises(DataError, match="run lengths"):
        Mask.from_rle(rle)


@given(bits, st.integers(0, 2**32 - 1))
def test_iou_is_that_of_sets(values, seed):
    other = np.random.default_rng(seed).random(values.shape) < 0.5
    a, b = ({*zip(*np.nonzero(v), strict=True)} for v in (values, other))
    expected = len(a & b) / len(a | b) if a | b else 0.0
    assert Mask(values).iou(Mask(other)) == pytest.approx(expected)
    assert (Mask(values) | Mask(other)).area == len(a | b)
    assert (Mask(values) & Mask(other)).area == len(a & b)
    assert (Mask(values) - Mask(other)).area == len(a - b)
    assert (~Mask(values)).area == values.size - len(a)


def test_box_holds_it_all():
    assert disc().box == (10, 5, 31, 26)
    assert Mask(np.zeros((4, 5), bool)).box is None
    picture = disc().image().crop(disc().box)
    assert picture.size == (21, 21)
    assert np.asarray(picture).astype(bool).sum() == disc().area


def test_soft_masks():
    soft = Mask(np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert soft.soft
    assert soft.area == 2.0
    assert (~soft).values.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert soft.binary().values.tolist() == [[False, True], [True, False]]
    assert (soft | soft.binary()).values.tolist() == [[0.25, 1.0], [1.0, 0.0]]
    assert (soft & soft.binary()).values.tolist() == [[0.0, 0.75], [1.0, 0.0]]
    assert soft.rle() == soft.binary().rle()


def test_pictures_there_and_back():
    mask = disc()
    back = Mask.from_image(mask.image())
    assert not back.soft
    assert np.array_equal(back.values, mask.values)
    soft = Mask(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    assert np.abs(Mask.from_image(soft.image()).values - soft.values).max() < 1e-6
    assert np.array_equal(Mask.from_image(mask.image().convert("1")).values, mask.values)
    cut_out = Image.new("RGBA", (60, 40), "red")
    cut_out.putalpha(mask.image())
    assert np.array_equal(Mask.from_image(cut_out).values, mask.values)


def test_tensors_there_and_back():
    tensor = disc().tensor()
    assert (tensor.dtype, tensor.shape) == (torch.float32, (40, 60))
    assert Mask.from_tensor(tensor[None, None]).area == disc().area
    assert not Mask.from_tensor(tensor > 0.5).soft
    assert Mask.from_tensor(tensor.bfloat16()).area == disc().area
    with pytest.raises(ValueError, match="H, W"):
        Mask.from_tensor(torch.zeros(2, 3, 3))


def test_class_maps():
    classes = torch.tensor([[0, 1], [2, 1]], dtype=torch.uint8)
    assert Mask.from_classes(classes, 1).values.tolist() == [[False, True], [False, True]]
    assert sum(Mask.from_classes(classes.numpy(), i).area for i in range(3)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 2, 2), bool), "H, W"),
        (np.full((2, 2), 3), "bool or float"),
        (np.full((2, 2), 3.0), "threshold"),
        (np.full((2, 2), np.nan), "NaN"),
    ],
)
def test_what_is_no_mask(values, message):
    with pytest.raises(ValueError, match=message):
        Mask(values)


def test_masks_of_two_sizes():
    with pytest.raises(ValueError, match="combined"):
        _ = disc() | disc(height=41)
    with pytest.raises(ValueError, match="picture of 10x10"):
        overlay(Image.new("RGB", (10, 10)), [disc()])


def test_overlay_blends():
    grey = Image.new("RGB", (60, 40), (100, 100, 100))
    soft = Mask(disc().values * np.float32(0.5))
    shown = np.asarray(overlay(grey, [soft, disc(x=50, r=5)], [(200, 0, 0), (0, 0, 250)], 0.5))
    assert shown[15, 20].tolist() == [125, 75, 75]  # a quarter of the tint
    assert shown[15, 50].tolist() == [50, 50, 175]
    assert shown[39, 0].tolist() == [100, 100, 100]
    assert np.array_equal(np.asarray(overlay(grey, [])), np.asarray(grey))


def test_colours_are_far_apart():
    chosen = np.array(colours(12)).astype(int)
    distances = np.abs(chosen[:, None] - chosen[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert distances.min() > 40


def test_grow_and_shrink():
    mask = disc()
    grown, shrunk = mask.grow(3), mask.grow(-3)
    assert shrunk.area < mask.area < grown.area
    rows, columns = np.nonzero(mask.values)
    left, top, right, bottom = mask.box
    assert grown.box == (left - 3, top - 3, right + 3, bottom + 3)
    for y, x in ((rows[0], columns[0]), (rows[-1], columns[-1])):
        assert grown.values[y - 3 : y + 4, x - 3 : x + 4].all()
    assert not (~mask.values & shrunk.values).any()
    edge = Mask(np.ones((4, 5), bool))
    assert edge.grow(-2).values.all()  # goes on beyond the edges


@pytest.mark.parametrize("pixels", [1, 4])
def test_feather_falls_evenly(pixels):
    values = np.zeros((5, 40), bool)
    values[:, 20:] = True
    ramp = np.arange(1, pixels + 1) / (pixels + 1)
    inwards = Mask(values).feather(pixels).values[2]
    assert (inwards[:20] == 0).all() and (inwards[20 + pixels :] == 1).all()
    assert np.allclose(inwards[20 : 20 + pixels], ramp)
    outwards = Mask(values).feather(pixels, outwards=True).values[2]
    assert (outwards[20:] == 1).all() and (outwards[: 20 - pixels] == 0).all()
    assert np.allclose(outwards[20 - pixels : 20], ramp)


def test_feather_of_nothing_is_the_mask():
    mask = disc()
    assert mask.feather(0) is mask
    with pytest.raises(ValueError, match="feather of -1"):
        disc().feather(-1)


def test_masks_are_opened_from_files(tmp_path):
    mask = disc()
    mask.image().save(tmp_path / "mask.png")
    assert np.array_equal(open_mask(tmp_path / "mask.png").values, mask.values)
    assert open_mask(mask) is mask
    black = Image.new("RGBA", (60, 40), "black")
    black.putalpha(mask.image())
    black.save(tmp_path / "alpha.png")
    assert np.array_equal(open_mask(tmp_path / "alpha.png").values, mask.values)
    opaque = mask.image().convert("RGBA")  # no transparency in it: white counts
    assert np.array_equal(open_mask(opaque).values, mask.values)
    with pytest.raises(ImageError, match="no.png"):
        open_mask(tmp_path / "no.png")


def test_where_a_mask_comes_from_stays_with_it():
    mask = Mask(disc().values, score=0.9, source="emoji-sam: point 20,15", label="sun")
    for changed in (mask.grow(2), mask.feather(2), mask.feather(2).binary()):
        assert (changed.score, changed.source, changed.label) == (
            0.9,
            "emoji-sam: point 20,15",
            "sun",
        )
    for made in (mask | mask, mask & mask, mask - mask, ~mask):
        assert (made.score, made.source, made.label) == (None, "", "")
