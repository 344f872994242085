"""Which way a depth hint goes: a depth checkpoint, a depth ControlNet, or a line of advice."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import darkroom as dr
from darkroom.app.drawing.depth import depth_guide, depth_net, is_depth_checkpoint
from darkroom.app.outcome import UsageError
from darkroom.generation.metadata import read_params
from darkroom.images import open_depth
from generation.control import depth_pair
from generation.xl.pairs import photo
from weights import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.save(depth_pair.pipeline(), tmp_path_factory.mktemp("models") / "told")


@pytest.fixture
def picture(tmp_path) -> Path:
    photo().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def never() -> None:
    raise AssertionError("a network that is not needed was opened")


def test_a_depth_checkpoint(folder, capfd) -> None:
    assert is_depth_checkpoint(str(folder))
    assert is_depth_checkpoint("sd2-depth")
    assert not is_depth_checkpoint("sd15")
    assert not is_depth_checkpoint("hf:lllyasviel/sd-controlnet-depth")
    assert depth_net(str(folder)) is None
    assert "is a depth checkpoint and is told the map itself" in capfd.readouterr().err
    assert depth_net(str(folder), "mine") == "mine"
    assert "beside the ControlNet mine" in capfd.readouterr().err


def test_a_depth_controlnet_otherwise(model_folder, darkroom, tmp_path, capfd) -> None:
    """The one that is named, or the one that is registered; else what to do."""
    assert depth_net(str(model_folder), "mine") == "mine"
    assert "is no depth checkpoint; the ControlNet mine guides it" in capfd.readouterr().err
    with pytest.raises(UsageError, match="models pull controlnet-depth"):
        depth_net(str(model_folder))
    import diffusers

    net = diffusers.ControlNetModel(  # pyright: ignore[reportPrivateImportUsage]
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=24,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=8,
        conditioning_embedding_out_channels=(16, 32),
    )  # fmt: skip
    net.save_pretrained(tmp_path / "net")
    shutil.copytree(model_folder, tmp_path / "depth-of-field")
    assert darkroom("models", "add", tmp_path / "depth-of-field", "--name", "deepdepth").code == 0
    assert darkroom("models", "add", tmp_path / "net", "--name", "my-depth").code == 0
    assert depth_net(str(model_folder)) == "my-depth"
    assert "the ControlNet my-depth guides it" in capfd.readouterr().err


def test_the_checkpoint_s_own_network(folder, picture, tmp_path) -> None:
    """The saved map has 16 bits, and is read as a hint."""
    model = dr.load(folder)
    guide = depth_guide(model, picture, network=never, save=tmp_path / "depth.png")
    assert guide.depth is None
    assert guide.start is not None
    assert guide.start.strength == 0.7
    with Image.open(tmp_path / "depth.png") as written:
        assert written.mode == "I;16"
    saved = open_depth(tmp_path / "depth.png")
    assert (saved.shape, saved.min(), saved.max()) == ((64, 64), 0, 65535)
    again = depth_guide(model, picture, tmp_path / "depth.png", 0.5, network=never)
    assert again.depth is not None
    assert np.array_equal(again.depth, saved)
    assert dr.develop(model, "a cat", again, steps=2, seeds=[1])[0].image.size == (64, 64)


def test_another_network(folder, picture, tmp_path) -> None:
    """For a checkpoint that has lost its own."""
    model = dr.load(folder)
    bare = replace(model, depth=None)
    guide = depth_guide(bare, picture, network=lambda: model.depth, save=tmp_path / "depth.png")
    assert guide.depth is not None
    assert dr.develop(bare, "a cat", guide, steps=2, seeds=[1])
    with pytest.raises(UsageError, match=r"ends in \.png"):
        depth_guide(model, picture, network=never, save=tmp_path / "depth.jpg")


def test_control_with_a_depth_checkpoint(folder, picture, darkroom, tmp_path) -> None:
    """Says that it is told depth, saves the map, and draws the picture again bit for bit."""
    drawn = darkroom(
        "control", picture, "a cat", "--kind", "depth", "--model", folder, "--steps", 3,
        "--seed", 5, "--save-hint", tmp_path / "map.png", "--out", tmp_path / "a.png",
    )  # fmt: skip
    assert drawn.code == 0, drawn.err
    assert "is a depth checkpoint and is told the map itself" in drawn.err
    assert open_depth(tmp_path / "map.png").max() == 65535
    again = darkroom(
        "control", picture, "--from", tmp_path / "a.png", "--model", folder,
        "--out", tmp_path / "b.png",
    )  # fmt: skip
    assert again.code == 0, again.err
    assert pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")
    alone = darkroom(
        "control", "a cat", "--hint", tmp_path / "map.png", "--model", folder, "--steps", 2,
        "--out", tmp_path / "c.png",
    )  # fmt: skip
    assert alone.code == 0, alone.err
    refused = darkroom(
        "control", picture, "a", "--kind", "depth", "--net", "x", "--model", folder
    )  # fmt: skip
    assert refused.code == 2
    assert "is told depth itself" in refused.error


def test_strengths_of_a_depth_checkpoint(folder, picture, darkroom) -> None:
    """How far to leave the photograph; or another picture, whose depths do not matter."""
    line = ("control", picture, "--model", folder)
    ended = darkroom(*line, "a cat", "--steps", 4, "--strength", 0.5, "--seed", 1, "--out", "a.png")
    assert ended.code == 0, ended.err
    used = read_params("a.png").depth
    assert used is not None
    assert used.strength == 0.5
    photo().rotate(90).save("start.png")
    image = ("--image", "start.png")
    ended = darkroom(*line, "--from", "a.png", *image, "--out", "b.png")
    assert ended.code == 0, ended.err
    drawn = read_params("b.png")
    assert drawn.depth is not None
    assert drawn.image is not None
    assert (drawn.depth.strength, drawn.image.strength) == (None, 0.6)
    ended = darkroom(*line, *image, "--from", "b.png", "--out", "c.png")
    assert ended.code == 0, ended.err
    assert pixels(Path("b.png")) == pixels(Path("c.png"))
    ended = darkroom(*line, "a cat", *image, "--steps", 4, "--seed", 1, "--out", "d.png")
    assert pixels(Path("b.png")) == pixels(Path("d.png"))
    assert "give --image FILE" in darkroom(*line, "--from", "b.png").error


def test_control_without_one(model_folder, picture, darkroom) -> None:
    ended = darkroom("control", picture, "a cat", "--kind", "depth", "--model", model_folder)
    assert ended.code == 2
    assert "no depth ControlNet is registered; get one with" in ended.error


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()
