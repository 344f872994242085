"""ResNet against transformers' and timm's: sizes, names, outputs, training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import darkroom as dr
import oracles
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.resnet import RESNET50, RESNET101, RESNET152, ResNet, ResNetConfig
from darkroom.weights.assemble import on_meta
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.resnet import TORCHVISION, resnet_config, resnet_json
from darkroom.weights.save import save
from vectors.timm_resnet50 import images, random_state

TINY = ResNetConfig(channels=8, blocks=(2, 1, 2, 1))
THEIRS = {  # transformers' names inside a block
    "layer.0.convolution": "conv1", "layer.0.normalization": "norm1",
    "layer.1.convolution": "conv2", "layer.1.normalization": "norm2",
    "layer.2.convolution": "conv3", "layer.2.normalization": "norm3",
    "shortcut.convolution": "skip.0", "shortcut.normalization": "skip.1",
}  # fmt: skip


def theirs(config: ResNetConfig, device: str = "cpu"):
    from transformers import ResNetConfig as Config
    from transformers import ResNetModel

    with torch.device(device):
        return ResNetModel(
            Config(
                embedding_size=config.channels,
                hidden_sizes=list(config.widths[1:]),
                depths=list(config.blocks),
                layer_type="bottleneck",
                downsample_in_first_stage=False,
                downsample_in_bottleneck=False,
            )
        )


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, tensor in state.items():
        name = name.replace("embedder.embedder.convolution", "input")
        name = name.replace("embedder.embedder.normalization", "norm")
        name = name.replace("encoder.stages.", "stage.").replace(".layers.", ".")
        for a, b in THEIRS.items():
            name = name.replace(a, b)
        named[name] = tensor
    return named


def randomize(model, seed: int = 0):
    """Random weights, and running statistics such that signals keep their size."""
    oracles.randomize(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model


@pytest.mark.parametrize(
    ("config", "numbers", "tensors"),
    [
        (RESNET50, 23_508_032, 318),
        (replace(RESNET50, classes=1000), 25_557_032, 320),
        (replace(RESNET101, classes=1000), 44_549_160, 626),
        (replace(RESNET152, classes=1000), 60_192_808, 932),
    ],
)
def test_sizes_and_names(config: ResNetConfig, numbers: int, tensors: int) -> None:
    with on_meta():
        model = ResNet(config)
    state = model.state_dict()
    assert sum(parameter.numel() for parameter in model.parameters()) == numbers
    assert len(state) == tensors
    named = TORCHVISION.revert(state, config)
    assert len(named) == tensors
    assert named["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert named["layer4.2.bn3.num_batches_tracked"].shape == ()
    assert ("fc.bias" in named) == bool(config.classes)
    back = TORCHVISION.convert(named, config)
    assert {k: t.shape for k, t in back.items()} == {k: t.shape for k, t in state.items()}


@pytest.mark.parametrize("config", [TINY, replace(TINY, blocks=(1, 2, 1, 3))])
@torch.no_grad()
def test_equal_outputs(config: ResNetConfig) -> None:
    reference = randomize(theirs(config)).eval()
    model = ResNet(config).eval()
    model.load_state_dict(from_transformers(reference.state_dict()))
    x = torch.randn(2, 3, 75, 64, generator=torch.Generator().manual_seed(1))
    expected = reference(x, output_hidden_states=True)
    features = model.stages(x)
    assert expected.pooler_output.std() > 0.1
    assert oracles.largest(model(x), expected.pooler_output.flatten(1)) < 1e-5
    for ours, other in zip(features[1:], expected.hidden_states[1:], strict=True):
        assert oracles.largest(ours, other) < 1e-5
    assert [f.shape[1] for f in features] == list(config.widths)
    assert [tuple(f.shape[2:]) for f in features] == [(38, 32), (19, 16), (10, 8), (5, 4), (3, 2)]


def test_training_updates_the_same() -> None:
    reference = randomize(theirs(TINY)).train()
    model = ResNet(TINY).train()
    model.load_state_dict(from_transformers(reference.state_dict()))
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for network, output in (
        (reference, lambda x: reference(x).pooler_output),
        (model, model),
    ):
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            output(x).square().mean().backward()
            optimizer.step()
    expected = from_transformers(reference.state_dict())
    state = model.state_dict()
    assert state["norm.num_batches_tracked"] == 2
    for name, tensor in expected.items():
        assert oracles.largest(state[name].float(), tensor.float()) < 1e-5, name


@torch.no_grad()
def test_classifier() -> None:
    config = replace(TINY, classes=5)
    model = ResNet(config).eval()
    x = torch.randn(1, 3, 64, 64)
    pooled = model.stages(x)[-1].mean(dim=(2, 3))
    assert model.classifier is not None
    torch.testing.assert_close(model(x), model.classifier(pooled))


# --- timm


@pytest.fixture(scope="module")
def timm() -> dict:
    """What timm's resnet50 did with the weights of ``random_state``."""
    path = Path(__file__).parents[1] / "vectors" / "timm_resnet50.json"
    return json.loads(path.read_text("utf-8"))


def test_equal_to_timm(timm: dict) -> None:
    state = random_state({name: tuple(shape) for name, shape in timm["shapes"].items()})
    model = ResNet(RESNET50).eval()
    model.load_state_dict(TORCHVISION.convert(state, RESNET50))
    back = TORCHVISION.revert(model.state_dict(), RESNET50)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    expected = torch.tensor(timm["output"])
    with torch.no_grad():
        actual = model(images())[:, ::8]
    assert oracles.largest(actual, expected) < 1e-4 * expected.abs().max()
    with torch.no_grad():
        model.train()(images())
    moved = TORCHVISION.revert(model.state_dict(), RESNET50)
    for name, values in timm["moved"].items():
        other = torch.tensor(values)
        # 50 normalised layers deep, and by another library's convolutions: 1e-4, as promised
        assert oracles.largest(moved[name][:4], other) < 1e-4 * other.abs().max(), name
        assert oracles.largest(state[name][:4], other) > 1e-3
    assert moved["layer4.2.bn3.num_batches_tracked"] == 8


# --- configs and files

PUBLISHED = json.loads("""{
  "architecture": "resnet50", "num_classes": 1000, "num_features": 2048,
  "pretrained_cfg": {"tag": "a1_in1k", "input_size": [3, 224, 224], "pool_size": [7, 7],
    "mean": [0.485, 0.456, 0.406], "first_conv": "conv1", "classifier": "fc"}
}""")  # timm/resnet50.a1_in1k


def test_configs() -> None:
    assert resnet_config(PUBLISHED) == replace(RESNET50, classes=1000)
    written = {"num_classes": 11, "in_chans": 1, "global_pool": "avg"}  # by timm's save_for_hf
    assert resnet_config({**PUBLISHED, "num_classes": 11, "model_args": written}) == (
        replace(RESNET50, classes=11, in_channels=1)
    )
    for config in (RESNET50, replace(RESNET152, classes=7, in_channels=4)):
        assert resnet_config(json.loads(json.dumps(resnet_json(config)))) == config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architecture", "resnet18", "resnet18' is not supported, expected resnet50 or"),
        ("global_pool", "max", "global_pool = 'max'"),
        ("num_clases", 3, "did you mean .num_classes"),
        ("model_args", {"stem_width": 32}, "model_args: stem_width = 32 is not known"),
        ("model_args", {"num_classes": 3}, "num_classes = 3 is not supported, expected 1000"),
    ],
)
def test_strict_configs(key: str, value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resnet_config({**PUBLISHED, key: value})


def tiny_state(config: ResNetConfig) -> dict[str, Tensor]:
    return TORCHVISION.revert(randomize(ResNet(config)).state_dict(), config)


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_torchvision(classes: int, prefix: str, tmp_path) -> None:
    """The files of 2017 have no counters."""
    config = replace(TINY, classes=classes)
    state = tiny_state(config)
    old = {f"{prefix}{k}": t for k, t in state.items() if "num_batches_tracked" not in k}
    path = tmp_path / "resnet.pth"
    torch.save(old, path)
    model = dr.load(path, device="cpu")
    assert isinstance(model, ResNet)
    assert model.config == config
    assert not model.training
    assert torch.equal(
        model.stage[3][0].skip[1].running_var, state["layer4.0.downsample.1.running_var"]
    )
    assert model.norm.num_batches_tracked == 0
    report = inspect(path)
    assert (report.kind, report.unknown_count) == ("ResNet", 0)
    assert report.details["classes"] == classes


def test_the_file_of_resnet50(tmp_path) -> None:
    with on_meta():
        state = TORCHVISION.revert(ResNet(RESNET50).state_dict(), RESNET50)
    path = tmp_path / "resnet50.pth"
    torch.save({k: torch.zeros((), dtype=t.dtype).expand(t.shape) for k, t in state.items()}, path)
    assert inspect(path).details == {"size": "ResNet-50", "classes": 0}
    assert dr.load(path, device="cpu").config == RESNET50


def test_other_networks_are_refused(tmp_path) -> None:
    state = tiny_state(TINY)
    path = tmp_path / "resnext.pth"
    torch.save({**state, "layer1.0.conv2.weight": torch.zeros(8, 1, 3, 3)}, path)
    with pytest.raises(LayoutError, match=r"resnext\.pth.*conv2\.weight has shape \(8, 1, 3, 3\)"):
        dr.load(path)
    torch.save({**state, "layer1.0.se.fc1.weight": torch.zeros(8)}, path)
    with pytest.raises(LayoutError, match=r"not in this layout.*layer1\.0\.se\.fc1"):
        dr.load(path)
    torch.save({k: t for k, t in state.items() if "layer4.0.bn2" not in k}, path)
    with pytest.raises(LayoutError, match=r"missing.*stage\.3\.0\.norm2"):
        dr.load(path)
    basic = {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 3, 3)}
    basic |= {"layer4.0.conv1.weight": (512, 256, 3, 3)}
    torch.save({name: torch.zeros(shape) for name, shape in basic.items()}, path)
    with pytest.raises(CheckpointError, match="image classifier"):
        dr.load(path)


@torch.no_grad()
def test_a_folder_of_timm(tmp_path) -> None:
    config = replace(RESNET50, classes=3)
    model = ResNet(config).eval()
    save(model, tmp_path / "resnet50")
    data = json.loads((tmp_path / "resnet50" / "config.json").read_text())
    assert (data["architecture"], data["num_classes"]) == ("resnet50", 3)
    again = dr.load(tmp_path / "resnet50", device="cpu")
    assert again.config == config
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(again(x), model(x))
    assert inspect(tmp_path / "resnet50").kind == "ResNet"


def test_sizes_that_timm_lacks(tmp_path) -> None:
    save(ResNet(TINY), tmp_path / "tiny")
    assert dr.load(tmp_path / "tiny", device="cpu").config == TINY
