"""The network for segmentation, against ControlNet's UniFormer and transformers' UperNet."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.upernet.configuration_upernet import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetHead

import darkroom as dr
import oracles
from darkroom.errors import LayoutError, ModelMismatchError
from darkroom.models.annotators.scene import Scene, SceneConfig
from darkroom.vision.annotators import annotate
from darkroom.vision.annotators.scenes import classes, colours
from darkroom.weights.assemble import on_meta
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.annotators.scene import UPERNET, scene_sizes
from vectors.timm_resnet50 import random_state
from vectors.uniformer import SMALL, picture, sample

TINY = SceneConfig(
    channels=tuple(SMALL["embed_dim"]), blocks=tuple(SMALL["layers"]), decoder=8, classes=9
)


@pytest.fixture(scope="module")
def vectors() -> dict:
    path = Path(__file__).parents[2] / "vectors" / "uniformer.json"
    return json.loads(path.read_text("utf-8"))


def head(config: SceneConfig):
    """transformers' decoder of these sizes, with random weights and statistics."""
    theirs = UperNetConfig(hidden_size=config.decoder, num_labels=config.classes)
    torch.manual_seed(0)
    made = oracles.randomize(UperNetHead(theirs, in_channels=list(config.channels))).eval()
    for name, tensor in made.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
    return made


def their_names(made: torch.nn.Module) -> dict[str, Tensor]:
    """transformers' state dict under mmsegmentation's names."""
    return {
        f"decode_head.{k}".replace("batch_norm", "bn").replace(".classifier.", ".conv_seg."): t
        for k, t in made.state_dict().items()
    }


def state_of(vectors: dict, config: SceneConfig) -> dict[str, Tensor]:
    shapes = {f"backbone.{k}": tuple(shape) for k, shape in vectors["shapes"].items()}
    backbone = {k.removeprefix("backbone."): shape for k, shape in shapes.items()}
    state = {f"backbone.{k}": tensor for k, tensor in random_state(backbone).items()}
    return {**state, **their_names(head(config))}


def test_sizes_and_names(vectors: dict) -> None:
    (config,) = UPERNET.presets.values()
    with on_meta():
        model = Scene(config)
        theirs = their_names(UperNetHead(
            UperNetConfig(hidden_size=512, num_labels=150), in_channels=list(config.channels)
        ))  # fmt: skip
    reverted = UPERNET.revert(model.state_dict(), config)
    expected = {f"backbone.{k}": tuple(shape) for k, shape in vectors["full"].items()}
    expected |= {k: tuple(tensor.shape) for k, tensor in theirs.items()}
    assert {k: tuple(t.shape) for k, t in reverted.items()} == expected
    assert scene_sizes(reverted) == config


@torch.no_grad()
def test_equal_outputs(vectors: dict) -> None:
    """The backbone's features to ControlNet's, the decoder's logits to transformers'."""
    state = state_of(vectors, TINY)
    assert scene_sizes(state) == TINY
    model = Scene(TINY).eval()
    model.load_state_dict(UPERNET.convert(state, TINY))
    features = model.features(picture())
    assert [list(f.shape) for f in features] == vectors["outputs"]
    for ours, values in zip(features, vectors["values"], strict=True):
        expected = torch.tensor(values)
        assert expected.std() > 0.05
        assert oracles.largest(sample(ours), expected) < 2e-5 * expected.abs().max()
    expected = head(TINY)(features)
    assert expected.std() > 0.1
    assert oracles.largest(model(picture()), expected) < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_a_file(vectors: dict, tmp_path) -> None:
    """As mmsegmentation writes it: an auxiliary head, everything under ``state_dict``."""
    state = state_of(vectors, TINY)
    extra = {"auxiliary_head.conv_seg.weight": torch.zeros(9, 4, 1, 1)}
    path = tmp_path / "upernet_global_small.pth"
    torch.save({"meta": {"epoch": 1, "CLASSES": ("wall",)}, "state_dict": {**state, **extra}}, path)
    model = dr.load(path, device="cpu")
    assert isinstance(model, Scene)
    assert model.config == TINY
    report = inspect(path)
    assert (report.kind, report.unknown_count) == ("annotator: segments", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    found = classes(pixels, model)
    assert found.shape == (64, 128)
    assert 0 <= found.min() < found.max() < 9
    hint = annotate("seg", Image.fromarray(pixels), model=model, resolution=64)
    assert np.array_equal(np.asarray(hint), colours(found))
    small = Image.fromarray(pixels).resize((50, 30))
    assert annotate("seg", small, model=model, resolution=64).size == (50, 30)
    torch.save({k: t for k, t in {**state, **extra}.items() if "patch_embed2" not in k}, path)
    with pytest.raises(LayoutError, match=r"patch_embed2\.proj\.weight is missing"):
        dr.load(path)


def test_another_network() -> None:
    with pytest.raises(ModelMismatchError, match=r"upernet_global_small\.pth"):
        annotate("seg", Image.new("RGB", (64, 64)), model=torch.nn.Linear(1, 1))


def test_more_classes() -> None:
    config = replace(TINY, classes=3)
    with on_meta():
        assert Scene(config)(torch.zeros(2, 3, 64, 32, device="meta")).shape == (2, 3, 16, 8)
