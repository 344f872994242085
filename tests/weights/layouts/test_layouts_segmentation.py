"""Files in the post's names, as its trainer writes them, open strictly into our networks."""

import pytest
import torch

import darkroom as dr
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.resnet import ResNetConfig
from darkroom.models.segmentation.unet import SegmentationUNet, SegmentationUNetConfig
from darkroom.models.segmentation.unet_resnet import (
    SegmentationUNetResNet,
    SegmentationUNetResNetConfig,
)
from darkroom.weights.layouts.segmentation import UNET, UNET_RESNET
from darkroom.weights.save import write_tensors

PLAIN = SegmentationUNetConfig(classes=12, in_channels=4, channels=(8, 16, 16, 32))
WIDE = SegmentationUNetConfig(classes=3, channels=(8, 16), narrowing=1)
DEEP = SegmentationUNetResNetConfig(
    classes=12,
    encoder=ResNetConfig(channels=8, blocks=(3, 2, 12, 3)),
    channels=(24, 16, 12, 8, 6, 4),
)


def made(config):
    torch.manual_seed(0)
    plain = isinstance(config, SegmentationUNetConfig)
    model = (SegmentationUNet if plain else SegmentationUNetResNet)(config)
    with torch.no_grad():
        model(torch.randn(2, model.input[0].in_channels if plain else 3, 32, 32))  # statistics
    return model.eval(), UNET if plain else UNET_RESNET


def test_names_of_the_post():
    with torch.device("meta"):
        model = SegmentationUNet(SegmentationUNetConfig())
    names = UNET.revert(model.state_dict(), model.config)
    modules = "start_conv down1.down_conv down4.down_conv middle_conv up1.up_conv up4.up_conv"
    for module in modules.split():
        assert {f"{module}.{i}.weight" for i in (0, 1, 3, 4)} <= names.keys()
        assert f"{module}.0.bias" not in names
    assert names["down1.down_conv.0.weight"].shape == (64, 64, 3, 3)  # half of 128
    assert names["up1.up.weight"].shape == (1024, 512, 2, 2)
    assert names["up1.up_conv.0.weight"].shape == (256, 1024, 3, 3)
    assert names["final_conv.weight"].shape == (21, 64, 1, 1)
    assert len(names) == 10 * 12 + 4 * 2 + 2  # pairs of 12 tensors, transposed ones, the last one


def test_names_of_the_post_with_a_resnet():
    with torch.device("meta"):
        model = SegmentationUNetResNet(SegmentationUNetResNetConfig())
    names = UNET_RESNET.revert(model.state_dict(), model.config)
    shapes = {
        "initial.0.weight": (64, 3, 7, 7), "initial.1.running_mean": (64,),
        "layer1.0.downsample.1.weight": (256,), "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "conv1.weight": (192, 2048, 3, 3), "upconv1.weight": (192, 128, 4, 4),
        "conv2.weight": (128, 1152, 3, 3), "conv3.weight": (96, 608, 3, 3),
        "conv4.weight": (64, 320, 3, 3), "upconv4.weight": (64, 48, 4, 4),
        "conv5.bias": (48,), "upconv5.weight": (48, 32, 4, 4), "conv6.weight": (32, 32, 3, 3),
        "conv7.weight": (21, 32, 1, 1),
    }  # fmt: skip
    assert {name: tuple(names[name].shape) for name in shapes} == shapes
    assert not {"conv7.bias", "upconv1.bias"} & names.keys()
    assert len(names) == 318 + 6 * 2 + 5 + 1  # timm's 318 without the classifier


@pytest.mark.parametrize("config", [PLAIN, WIDE, DEEP])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_files_of_the_post_open(tmp_path, config, prefix, ending):
    model, layout = made(config)
    theirs = layout.revert(model.state_dict(), config)
    state = {f"{prefix}{name}": tensor for name, tensor in theirs.items()}
    path = tmp_path / f"best_model{ending}"
    if ending == ".pth":
        extra = {"arch": "UNet", "epoch": 80, "monitor_best": 0.7, "config": {"n_gpu": 1}}
        torch.save({**extra, "state_dict": state}, path)
    else:
        write_tensors(path, state, {})
    opened = dr.load(path, dtype="float32")
    assert type(opened) is type(model)
    assert opened.config == config
    assert not opened.training
    ours = opened.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in model.state_dict().items())
    x = torch.randn(1, 4 if config is PLAIN else 3, 45, 50)
    with torch.no_grad():
        assert torch.equal(opened(x), model(x))


@pytest.mark.parametrize("config", [PLAIN, DEEP])
def test_folders_there_and_back(tmp_path, config):
    model, _ = made(config)
    opened = dr.load(dr.save(model, tmp_path / "model"), dtype="float32")
    assert opened.config == config
    ours = opened.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("config", [PLAIN, DEEP])
def test_strict(tmp_path, config):
    model, layout = made(config)
    state = layout.revert(model.state_dict(), config)
    last = "final_conv.weight" if config is PLAIN else "conv7.weight"

    def refused(match, **changes):
        changed = {k: v for k, v in (state | changes).items() if v is not None}
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(LayoutError, match=match):
            dr.load(tmp_path / "changed.pth")

    torch.save({**state, "more.weight": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"more\.weight; without strict"):
        dr.load(tmp_path / "more.pth", strict=True)
    refused(last, **{last: None})
    refused("shape", **{last: torch.zeros(3)})
    norm = "middle_conv.1.bias" if config is PLAIN else "layer2.0.bn1.bias"
    refused("norm|middle", **{norm: None})
    refused("shape", **{norm: torch.zeros(7)})


def test_a_deep_stem_is_another_network(tmp_path):
    """Three 3x3 convolutions in place of the 7x7 one: the public repository's own backbones."""
    model, layout = made(DEEP)
    state = layout.revert(model.state_dict(), DEEP)
    state["initial.0.0.weight"] = state.pop("initial.0.weight")
    torch.save(state, tmp_path / "deep.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        dr.load(tmp_path / "deep.pth")
