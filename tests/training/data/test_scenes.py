"""Composed scenes: exact masks, the same every time, with and without data on the disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import DataError
from darkroom.training.data import textures
from darkroom.training.data.scenes import (
    Composer,
    Cutouts,
    SceneOptions,
    boxes_of,
    open_cutouts,
    open_grounds,
)

CLEAN = {"turned": 0.0, "shadow": 0.0, "blur": 0.0, "noise": 0.0, "jpeg": 0.0, "light": 0.0}


@pytest.fixture(scope="module")
def cutouts():
    """Four opaque squares with a clear edge, one colour each."""
    pixels = np.zeros((4, 32, 32, 4), np.uint8)
    for i, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 250))):
        pixels[i, 4:28, 4:28] = (*colour, 255)
    return Cutouts(pixels, ("red", "green", "blue", "blue: dark"))


def photographs(size=40):
    return torch.randint(256, (3, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()


def test_a_scene_is_its_seed_and_number(cutouts):
    options = SceneOptions(size=40, shapes=0.3)
    a, b = (Composer(cutouts, photographs(), options, seed=3) for _ in range(2))
    for i in (5, 0, 5):
        assert torch.equal(a.scene(i).pixels, b.scene(i).pixels)
        assert torch.equal(a.scene(i).shown, b.scene(i).shown)
    assert not torch.equal(a.scene(0).pixels, a.scene(1).pixels)
    other = Composer(cutouts, photographs(), options, seed=4)
    assert not torch.equal(a.scene(0).pixels, other.scene(0).pixels)


def test_masks_are_what_is_seen(cutouts):
    """Undisturbed, over white-free textures: a pixel has a thing's colour where its mask says."""
    options = SceneOptions(size=64, things=(3, 6), near=0.8, least_area=1, **CLEAN)
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    checked = 0
    for i in range(12):
        scene = Composer(cutouts, None, options).scene(i)
        assert scene.masks.shape == (len(scene), 64, 64)
        assert (scene.masks.sum(0) == (scene.shown > 0)).all()  # no pixel belongs to two
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            if label in colours:
                inside = scene.pixels[:, mask].float()
                near = (inside - torch.tensor(colours[label])[:, None]).abs().amax(0) < 130
                assert near.float().mean() > 0.8  # soft edges after scaling
                checked += 1
    assert checked > 10


def test_boxes_are_tight():
    masks = torch.zeros(2, 5, 6, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4, 0] = True
    assert boxes_of(masks).tolist() == [[2, 1, 6, 3], [0, 4, 1, 5]]


def test_groups_touch(cutouts):
    options = SceneOptions(size=64, things=(4, 8), scale=(0.3, 0.6), near=1.0, **CLEAN)
    scenes = [Composer(cutouts, None, options).scene(i) for i in range(8)]
    assert any(len(set(scene.groups)) < len(scene) for scene in scenes)
    for scene in scenes:
        for i in range(len(scene)):
            assert (scene.group(i) >= scene.masks[i]).all()


def test_slivers_are_no_objects(cutouts):
    options = SceneOptions(size=64, things=(6, 9), near=0.9, least_area=60)
    for i in range(10):
        scene = Composer(cutouts, None, options).scene(i)
        assert len(scene) >= 1
        if len(scene) > 1:
            assert scene.masks.sum((1, 2)).min() >= 60


def test_variants_are_drawn_as_one(cutouts):
    assert sorted(cutouts.families) == [(0,), (1,), (2, 3)]


def test_any_rgba_folder_is_read(tmp_path):
    for i, name in enumerate(("a cup", "a hat")):
        pixels = np.zeros((20, 20, 4), np.uint8)
        pixels[5:15, 5:15] = (200, 10 * i, 30, 255)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    found = open_cutouts(tmp_path, 16)
    assert found.names == ("a cup", "a hat") and "broken.png" in found.remarks[0]
    assert found.pixels.shape == (2, 16, 16, 4)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a cup.png", "text": "cup of tea"}')
    assert open_cutouts(tmp_path, 16).names == ("cup of tea",)


def test_the_sides_of_the_split_are_apart(tmp_path):
    for i in range(40):
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[2:6, 2:6] = 255
        Image.fromarray(pixels).save(tmp_path / f"thing {i:02d}.png")
    learnt, aside = (open_cutouts(tmp_path, 8, aside=side).names for side in (False, True))
    assert len(learnt) + len(aside) == 40 and aside and not set(learnt) & set(aside)


def test_photographs_are_read(tmp_path):
    for i in range(40):
        Image.new("RGB", (30, 24), (6 * i, 0, 0)).save(tmp_path / f"{i}.png")
    learnt, aside = (open_grounds([tmp_path], 20, 100, aside=side) for side in (False, True))
    assert learnt is not None and aside is not None
    assert len(learnt) + len(aside) == 40 and learnt.shape[1:] == (3, 20, 20)
    few = open_grounds([tmp_path], 20, 5)
    assert few is not None and len(few) == 5
    assert open_grounds([], 20) is None


def test_opaque_pictures_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(DataError, match="expected pictures with transparency"):
        open_cutouts(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"size": 4}, {"things": (3, 2)}, {"scale": (0.0, 1.0)}, {"photographs": 0.9}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match="expected|at most"):
        SceneOptions(**wrong)


def test_small_photographs_are_refused(cutouts):
    with pytest.raises(ValueError, match="expected at least"):
        Composer(cutouts, photographs(20), SceneOptions(size=40))


def test_textures_and_shapes():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ground = textures.texture(24, rng)
        assert ground.shape == (24, 24, 3) and ground.dtype == np.uint8
        cover = textures.shape(24, rng)
        assert cover.shape == (24, 24) and cover.max() > 200 and cover.min() == 0
    assert len(np.unique(textures.plain(8, rng).reshape(-1, 3), axis=0)) == 1
