"""Where the post, and yassouali/pytorch-segmentation at its time, keep the segmentation U-Nets."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NoReturn

from torch import Tensor

from darkroom.errors import ConfigError
from darkroom.models.segmentation.unet import SegmentationUNet, SegmentationUNetConfig
from darkroom.models.segmentation.unet import check as check_unet
from darkroom.models.segmentation.unet_resnet import (
    SegmentationUNetResNet,
    SegmentationUNetResNetConfig,
)
from darkroom.models.segmentation.unet_resnet import check as check_unet_resnet
from darkroom.weights.layout import Entry, Layout, Table, under
from darkroom.weights.layouts import resnet

PAIR: Table = {str(index): str(index) for index in (0, 1, 3, 4)}


def unet(config: SegmentationUNetConfig) -> Iterator[Entry]:
    """The names of the post's UNet."""
    yield from under("start_conv", "input", PAIR)
    for index in range(len(config.channels) - 1):
        yield from under(f"down{index + 1}.down_conv", f"down.{index}", PAIR)
        yield Entry(f"up{index + 1}.up", f"up.{index}.resize")
        yield from under(f"up{index + 1}.up_conv", f"up.{index}.pair", PAIR)
    yield from under("middle_conv", "middle", PAIR)
    yield Entry("final_conv", "output")


def unet_resnet(config: SegmentationUNetResNetConfig) -> Iterator[Entry]:
    """The names of the post's UNetResnet; the encoder's are torchvision's, but for the stem."""
    yield Entry("initial.0", "encoder.input")
    yield Entry("initial.1", "encoder.norm")
    yield from resnet.stages(config.encoder, ours="encoder.")
    steps = len(config.channels) - 1
    for index in range(steps):
        yield Entry(f"conv{index + 1}", f"up.{index}.conv")
        yield Entry(f"upconv{index + 1}", f"up.{index}.resize")
    yield Entry(f"conv{steps + 1}", "last")
    yield Entry(f"conv{steps + 2}", "output")


UNET = Layout(
    "segmentation-unet", "start_conv.", unet, SegmentationUNet, {"post": SegmentationUNetConfig()}
)
UNET_RESNET = Layout(
    "segmentation-unet-resnet",
    "upconv1.",
    unet_resnet,
    SegmentationUNetResNet,
    {"post": SegmentationUNetResNetConfig()},
)


def unet_sizes(state: Mapping[str, Tensor]) -> SegmentationUNetConfig:
    """The config of a file without one, by its names and shapes.

    Raises:
        KeyError: a tensor that tells a size is missing.
        ValueError: a shape is not a convolution's, or no such network has these sizes.
    """
    inner, in_channels, *_ = _kernel(state, "start_conv.0.weight")
    channels = [_kernel(state, "start_conv.3.weight")[0]]
    while (name := f"down{len(channels)}.down_conv.3.weight") in state:
        channels.append(_kernel(state, name)[0])
    config = SegmentationUNetConfig(
        in_channels=in_channels,
        classes=_kernel(state, "final_conv.weight")[0],
        channels=tuple(channels),
        narrowing=channels[0] // max(1, inner),
    )
    check_unet(config)
    return config


def unet_resnet_sizes(state: Mapping[str, Tensor]) -> SegmentationUNetResNetConfig:
    """The config of a file without one, by its names and shapes. Raises as ``unet_sizes``."""
    stem = {"conv1.weight": state["initial.0.weight"]}
    steps = sum(bool(re.fullmatch(r"upconv\d\.weight", name)) for name in state)
    channels = (_kernel(state, f"conv{index + 1}.weight")[0] for index in range(steps + 1))
    config = SegmentationUNetResNetConfig(
        classes=_kernel(state, f"conv{steps + 2}.weight")[0],
        channels=tuple(channels),
        encoder=replace(resnet.resnet_sizes({**state, **stem}), classes=0),
    )
    check_unet_resnet(config)
    return config


def segmentation_json(config: SegmentationUNetConfig | SegmentationUNetResNetConfig) -> NoReturn:
    """There is no library with such a config.json: it is written in our own words.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"no library describes {config}")


def _kernel(state: Mapping[str, Tensor], name: str) -> tuple[int, int, int, int]:
    out, into, height, width = state[name].shape
    return out, into, height, width
