"""Networks that come alone in a file: no config beside them, the shapes tell their sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.errors import LayoutError
from darkroom.weights.layout import Layout, StateDict, convert
from darkroom.weights.layouts import distilbert, dual_encoder, resnet, segmentation
from darkroom.weights.layouts.annotators import body_pose, dpt, line_segments, scene, soft_edges
from darkroom.weights.layouts.control import controlnet, t2i_adapter
from darkroom.weights.layouts.fastsam import original as fastsam
from darkroom.weights.layouts.sam import original as sam

COUNTER = "num_batches_tracked"  # torchvision's files of 2017 lack it; no output depends on it


@dataclass(frozen=True)
class Alone:
    """How to read one kind of file."""

    sizes: Callable[
        [Mapping[str, Tensor]], Any
    ]  # KeyError: one is missing; ValueError: of no such shape
    layout: Layout[Any]
    part: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None  # None = all of it


ALONE: Mapping[str, Alone] = {  # by the kind that inspect tells
    "ResNet": Alone(resnet.resnet_sizes, resnet.TORCHVISION),
    "DistilBERT": Alone(distilbert.distilbert_sizes, distilbert.TRANSFORMERS),
    "segmentation U-Net": Alone(segmentation.unet_sizes, segmentation.UNET),
    "segmentation U-Net with ResNet": Alone(
        segmentation.unet_resnet_sizes, segmentation.UNET_RESNET
    ),
    "ControlNet": Alone(controlnet.ldm_sizes, controlnet.LDM, controlnet.bare),
    "checkpoint with ControlNet": Alone(controlnet.ldm_sizes, controlnet.LDM, controlnet.bare),
    "ControlNet (diffusers)": Alone(controlnet.diffusers_sizes, controlnet.DIFFUSERS),
    "T2I-adapter": Alone(t2i_adapter.original_sizes, t2i_adapter.ORIGINAL),
    "T2I-adapter (diffusers)": Alone(t2i_adapter.diffusers_sizes, t2i_adapter.DIFFUSERS),
    "annotator: body pose": Alone(body_pose.body_pose_sizes, body_pose.OPENPOSE),
    "annotator: lines": Alone(line_segments.line_segments_sizes, line_segments.MLSD),
    "annotator: segments": Alone(scene.scene_sizes, scene.UPERNET),
    "annotator: soft edges": Alone(soft_edges.soft_edges_sizes, soft_edges.CONTROLNET),
    "depth estimator": Alone(dpt.dpt_sizes, dpt.EITHER),
    "FastSAM": Alone(fastsam.sizes, fastsam.ORIGINAL, fastsam.part),
    "SAM (original)": Alone(sam.sam_sizes, sam.ORIGINAL),
    "MobileSAM": Alone(sam.sam_sizes, sam.ORIGINAL),
    "CLIP from scratch": Alone(dual_encoder.dual_encoder_sizes, dual_encoder.BOOK),
}


def row_of(kind: str, naming: str) -> Alone | None:
    """How to read a file of which ``inspect`` says this kind and layout; None: not at all."""
    return ALONE.get(f"{kind} ({naming})") or ALONE.get(kind)


def read(
    state: Mapping[str, Tensor], row: Alone, aside: list[str] | None = None
) -> tuple[Any, StateDict]:
    """The config and our names for a file's tensors.

    Args:
        aside: is given the keys that touch no part of the network; None = they are an error.

    Raises:
        LayoutError: the file has other tensors than such a network.
    """
    if row.part is not None:
        state = row.part(state)
    try:
        config = row.sizes(state)
    except KeyError as error:
        raise LayoutError(f"layout {row.layout.name}: {error.args[0]} is missing") from None
    except (IndexError, ValueError) as error:
        raise LayoutError(f"layout {row.layout.name}: a tensor's shape: {error}") from None
    converted = convert(state, row.layout.entries(config), aside)
    for name in row.layout.shapes(config):
        if name.endswith(f".{COUNTER}"):
            converted.setdefault(name, torch.zeros((), dtype=torch.int64))
    return config, converted
