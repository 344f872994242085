"""The networks behind hints, against controlnet_aux's with the same random weights."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import darkroom as dr
import oracles
from darkroom.errors import LayoutError
from darkroom.models.annotators.body_pose import BodyPose, BodyPoseConfig
from darkroom.models.annotators.line_segments import (
    LARGE,
    TINY,
    LineSegments,
    LineSegmentsConfig,
)
from darkroom.models.annotators.soft_edges import SoftEdges, SoftEdgesConfig
from darkroom.weights.assemble import on_meta
from darkroom.weights.inspect import inspect
from darkroom.weights.layout import Layout
from darkroom.weights.layouts.annotators import body_pose, line_segments, soft_edges
from vectors.controlnet_aux import inputs, sample
from vectors.timm_resnet50 import random_state


@dataclass(frozen=True)
class Case:
    layout: Layout[Any]
    sizes: Any
    small: Any
    kind: str
    numbers: int


CASES = {
    "hed": Case(
        soft_edges.CONTROLNET,
        soft_edges.soft_edges_sizes,
        SoftEdgesConfig(channels=(4, 6, 8, 8, 4), layers=(2, 1, 3, 1, 1)),
        "annotator: soft edges",
        14_716_168,
    ),
    "mlsd": Case(
        replace(line_segments.MLSD, presets={"large": LARGE}),
        line_segments.line_segments_sizes,
        LineSegmentsConfig(stem=8, channels=12, joins=(12, 10, 12, 8)),
        "annotator: lines",
        1_533_680,
    ),
    "mlsd-tiny": Case(
        replace(line_segments.MLSD, presets={"tiny": TINY}),
        line_segments.line_segments_sizes,
        replace(TINY, stem=8, channels=12, joins=(12, 6)),
        "annotator: lines",
        620_208,
    ),
    "openpose": Case(
        body_pose.OPENPOSE,
        body_pose.body_pose_sizes,
        BodyPoseConfig(
            front=((4, 4), (4, 6), (6, 6, 6, 8), (8, 8, 6, 4)), channels=4, first=8, stages=6
        ),
        "annotator: body pose",
        52_311_446,
    ),
}


@pytest.fixture(scope="module")
def vectors() -> dict:
    """What controlnet_aux's networks put out for weights that ``random_state`` draws."""
    path = Path(__file__).parents[2] / "vectors" / "controlnet_aux.json"
    return json.loads(path.read_text("utf-8"))


def shapes(vectors: dict, name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in vectors[name]["shapes"].items()}


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = model(x)
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("name", CASES)
def test_sizes_and_names(vectors: dict, name: str) -> None:
    case = CASES[name]
    (config,) = case.layout.presets.values()
    with on_meta():
        model = case.layout.model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == case.numbers
    reverted = case.layout.revert(model.state_dict(), config)
    assert {key: tuple(t.shape) for key, t in reverted.items()} == shapes(vectors, name)
    assert case.sizes(reverted) == config


@pytest.mark.parametrize("name", CASES)
def test_equal_outputs(vectors: dict, name: str) -> None:
    """Of the full networks, at small pictures."""
    case = CASES[name]
    state = random_state(shapes(vectors, name))
    (config,) = case.layout.presets.values()
    model = case.layout.model(config).eval()
    model.load_state_dict(case.layout.convert(state, config))
    found = outputs(model, inputs(name))
    assert [list(output.shape) for output in found] == vectors[name]["outputs"]
    for ours, values in zip(found, vectors[name]["values"], strict=True):
        expected = torch.tensor(values)
        assert expected.std() > 0.1
        assert oracles.largest(sample(ours), expected) < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_files(name: str, tmp_path) -> None:
    case = CASES[name]
    model = oracles.randomize(case.layout.model(case.small)).eval()
    state = case.layout.revert(model.state_dict(), case.small)
    path = tmp_path / "annotator.pth"
    torch.save(state, path)
    again = dr.load(path, device="cpu")
    assert type(again) is type(model)
    assert again.config == case.small
    x = inputs(name)
    for ours, expected in zip(outputs(again, x), outputs(model, x), strict=True):
        assert torch.equal(ours, expected)
    report = inspect(path)
    assert (report.kind, report.unknown_count) == (case.kind, 0)


def test_a_damaged_file(tmp_path) -> None:
    case = CASES["openpose"]
    state = case.layout.revert(BodyPose(case.small).state_dict(), case.small)
    del state["Mconv3_stage4_L2.weight"]
    path = tmp_path / "body_pose_model.pth"
    torch.save(state, path)
    with pytest.raises(LayoutError, match=r"missing.*joints\.3\.2\.weight"):
        dr.load(path)
    del state["conv4_3_CPM.weight"]
    torch.save(state, path)
    with pytest.raises(LayoutError, match=r"conv4_3_CPM\.weight is missing"):
        dr.load(path)


def test_batches() -> None:
    """Any multiple of the stride is a size; a batch is its pictures one by one."""
    for model, x in (
        (SoftEdges(CASES["hed"].small), torch.rand(2, 3, 32, 40) * 255),
        (LineSegments(CASES["mlsd"].small), torch.rand(2, 4, 32, 48)),
        (BodyPose(CASES["openpose"].small), torch.rand(2, 3, 40, 32)),
    ):
        oracles.randomize(model).eval()
        both = outputs(model, x)
        one = outputs(model, x[1:])
        for batch, single in zip(both, one, strict=True):
            assert oracles.largest(batch[1:], single) < 1e-5 * single.abs().max()
