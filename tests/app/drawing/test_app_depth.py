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

    net = diffusers.ControlNetModel(
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
