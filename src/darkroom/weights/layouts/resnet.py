"""Where timm and torchvision keep a ResNet, and how timm's config.json says so."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from darkroom.errors import ConfigError
from darkroom.models.resnet import RESNET50, RESNET101, RESNET152, ResNet, ResNetConfig
from darkroom.weights.configs import Fields, Json
from darkroom.weights.layout import Entry, Layout, Table, under

BLOCK: Table = {
    "conv1": "conv1",
    "bn1": "norm1",
    "conv2": "conv2",
    "bn2": "norm2",
    "conv3": "conv3",
    "bn3": "norm3",
    "downsample.0": "skip.0",
    "downsample.1": "skip.1",
}


def torchvision(config: ResNetConfig, theirs: str = "", ours: str = "") -> Iterator[Entry]:
    """The names of torchvision and timm, which agree.

    Args:
        theirs, ours: prefixes with their final dot, for a ResNet inside another network.
    """
    yield Entry(f"{theirs}conv1", f"{ours}input")
    yield Entry(f"{theirs}bn1", f"{ours}norm")
    yield from stages(config, theirs, ours)
    if config.classes:
        yield Entry(f"{theirs}fc", f"{ours}classifier")


def stages(config: ResNetConfig, theirs: str = "", ours: str = "") -> Iterator[Entry]:
    """The part of ``torchvision`` after the stem: ``layer1`` to ``layer4``."""
    for stage, count in enumerate(config.blocks):
        for block in range(count):
            yield from under(
                f"{theirs}layer{stage + 1}.{block}", f"{ours}stage.{stage}.{block}", BLOCK
            )


PRESETS = {"resnet50": RESNET50, "resnet101": RESNET101, "resnet152": RESNET152}
TORCHVISION = Layout("torchvision-resnet", "layer1.0.conv1", torchvision, ResNet, PRESETS)

FIXED: Json = {"global_pool": "avg"}
IGNORED = frozenset({"num_features", "pretrained_cfg", "label_names", "label_descriptions"})


def resnet_config(data: Json, where: str = "config.json") -> ResNetConfig:
    """Read the config of a timm model.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, FIXED, IGNORED)
    name = fields.take("architecture", "resnet50")
    if name not in PRESETS:
        raise fields.error("architecture", f"is not supported, expected {' or '.join(PRESETS)}")
    classes = fields.take("num_classes", 1000, least=0)
    arguments = Fields(
        fields.part("model_args"),
        f"{where}: model_args",
        {**FIXED, "num_classes": classes},
        frozenset(),
    )
    in_channels = arguments.take("in_chans", 3)
    for read in (fields, arguments):
        read.finish()
    return replace(PRESETS[name], classes=classes, in_channels=in_channels)


def resnet_json(config: ResNetConfig) -> dict[str, Any]:
    """The config.json with which timm builds the same network.

    Raises:
        ConfigError: timm has no network of these sizes.
    """
    plain = replace(config, classes=0, in_channels=3)
    name = next((name for name, preset in PRESETS.items() if preset == plain), None)
    if name is None:
        raise ConfigError(f"timm has no ResNet of {config}")
    return {
        "architecture": name,
        "num_classes": config.classes,
        "num_features": config.widths[-1],
        "global_pool": "avg",
        "model_args": {"in_chans": config.in_channels},
        "pretrained_cfg": {
            "classifier": "fc",
            "first_conv": "conv1",
            "input_size": [config.in_channels, 224, 224],
            "num_classes": config.classes,
        },
    }


def resnet_sizes(state: Mapping[str, Tensor], prefix: str = "") -> ResNetConfig:
    """The config of a file without one, by its names and shapes.

    Args:
        prefix: what comes before ``conv1`` and ``layer1``.

    Raises:
        KeyError: the first convolution is missing.
    """
    channels, in_channels = state[f"{prefix}conv1.weight"].shape[:2]
    count: dict[str, set[str]] = {}
    for name in state:
        stage, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(f"{prefix}layer"):
            count.setdefault(stage, set()).add(rest.split(".")[0])
    classifier = state.get(f"{prefix}fc.weight")
    return ResNetConfig(
        in_channels=in_channels,
        channels=channels,
        blocks=tuple(len(count[stage]) for stage in sorted(count)),
        classes=0 if classifier is None else classifier.shape[0],
    )
