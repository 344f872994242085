"""Networks that come alone in a file: no config beside them, the shapes tell their sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.errors import LayoutError
from darkroom.weights.layout import Layout, StateDict, convert
from darkroom.weights.layouts import distilbert, dual_encoder, resnet, segmentation
from darkroom.weights.layouts.annotators import dpt

COUNTER = "num_batches_tracked"  # torchvision's files of 2017 lack it; no output depends on it
PARALLEL = "module."  # before every name, where DataParallel wrote the file


@dataclass(frozen=True)
class Alone:
    """How to read one kind of file."""

    sizes: Callable[
        [Mapping[str, Tensor]], Any
    ]  # KeyError: one is missing; ValueError: of no such shape
    layout: Layout[Any]


ALONE: Mapping[str, Alone] = {  # by the kind that inspect tells
    "ResNet": Alone(resnet.resnet_sizes, resnet.TORCHVISION),
    "DistilBERT": Alone(distilbert.distilbert_sizes, distilbert.TRANSFORMERS),
    "segmentation U-Net": Alone(segmentation.unet_sizes, segmentation.UNET),
    "segmentation U-Net with ResNet": Alone(
        segmentation.unet_resnet_sizes, segmentation.UNET_RESNET
    ),
    "depth estimator": Alone(dpt.dpt_sizes, dpt.EITHER),
    "CLIP from scratch": Alone(dual_encoder.dual_encoder_sizes, dual_encoder.BOOK),
}


def read(state: Mapping[str, Tensor], row: Alone) -> tuple[Any, StateDict]:
    """The config and our names for a file's tensors.

    Raises:
        LayoutError: the file has other tensors than such a network.
    """
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): state[name] for name in state}
    try:
        config = row.sizes(state)
    except KeyError as error:
        raise LayoutError(f"layout {row.layout.name}: {error.args[0]} is missing") from None
    except (IndexError, ValueError) as error:
        raise LayoutError(f"layout {row.layout.name}: a tensor's shape: {error}") from None
    converted = convert(state, row.layout.entries(config))
    for name in row.layout.shapes(config):
        if name.endswith(f".{COUNTER}"):
            converted.setdefault(name, torch.zeros((), dtype=torch.int64))
    return config, converted
