"""Small CLIPs: those of the vectors, with the weights that made them; and their files."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from darkroom.models.clip import view
from darkroom.models.clip.modified_resnet import AttentionResNetConfig
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.vision_transformer import VisionConfig
from darkroom.models.clip_text import TextConfig
from darkroom.weights.layouts.clip.names import OPENAI_LAYOUT
from vectors.whole_clip import random_state

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "whole_clip.json").read_text())
TEXT = TextConfig(
    vocabulary=96, positions=8, channels=64, layers=2, heads=1, hidden=256, projection=24, end=95
)
CONFIGS = {
    "vit": ClipConfig(
        image=VisionConfig(
            size=32, patch=8, channels=64, layers=2, heads=1, hidden=256, projection=24
        ),
        text=TEXT,
        view=view.View(size=32),
    ),
    "resnet": ClipConfig(
        image=AttentionResNetConfig(
            size=64, channels=8, blocks=(1, 2, 1, 1), heads=4, projection=24
        ),
        text=TEXT,
        view=view.View(size=64),
    ),
    "gelu": ClipConfig(
        image=VisionConfig(
            size=32, patch=8, channels=48, layers=2, heads=2, hidden=124, quick_gelu=False,
            projection=24,
        ),
        text=TextConfig(
            vocabulary=96, positions=8, channels=32, layers=2, heads=4, hidden=128,
            quick_gelu=False, projection=24, end=95,
        ),
        view=view.View(size=32),
    ),
}  # fmt: skip


def theirs(name: str) -> dict[str, Tensor]:
    """The weights of one of them, under OpenAI's and open_clip's names."""
    found = next(row for key, row in VECTORS["small"].items() if key.startswith(f"{name} "))
    return random_state(found["shapes"])


def drawn(name: str) -> Clip:
    """Our network with these weights."""
    model = Clip(CONFIGS[name])
    model.load_state_dict(OPENAI_LAYOUT.convert(theirs(name), CONFIGS[name]))
    return model.eval().requires_grad_(False)


class Part(nn.Module):
    """A module without code of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def archive(state: dict[str, Tensor], path: Path, extras: bool = True) -> Path:
    """Write a TorchScript archive as OpenAI does: half precision, and three numbers beside."""
    root = Part()
    for name, tensor in state.items():
        owner = root
        *parents, leaf = name.split(".")
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, Part())
            owner = owner._modules[parent]
        kept = tensor.half() if tensor.ndim > 1 else tensor
        if tensor.is_floating_point() and "running" not in leaf:
            owner.register_parameter(leaf, nn.Parameter(kept, requires_grad=False))
        else:
            owner.register_buffer(leaf, tensor)
    if extras:
        for number, leaf in enumerate(("input_resolution", "context_length", "vocab_size")):
            root.register_buffer(leaf, torch.tensor(number + 7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(root), path)
    return path
