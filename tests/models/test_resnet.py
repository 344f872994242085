"""ResNet against transformers' and timm's: sizes, names, outputs, training."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from darkroom.models.resnet import RESNET50, RESNET101, RESNET152, ResNet, ResNetConfig
from darkroom.weights.layouts.resnet import TORCHVISION

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
    with torch.device("meta"):
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
