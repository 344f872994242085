"""Where timm and torchvision keep a ResNet."""

from collections.abc import Iterator

from darkroom.models.resnet import RESNET50, RESNET101, RESNET152, ResNet, ResNetConfig
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
