"""Random LoRAs for diffusers' pipelines, under the names that trainers give them, and merged.

from weights import loras
changes = loras.random(pipeline)
save_file(loras.kohya(changes), "fox.safetensors")
loras.merge(pipeline, changes, 0.8)      # the oracle: W + weight * alpha / rank * up @ down
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PARTS = {"unet": "unet", "text_encoder": "te", "text_encoder_2": "te2"}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


@dataclass
class Change:
    part: str  # 'unet', 'text_encoder' or 'text_encoder_2'
    path: str  # in diffusers' or transformers' names, those of text with 'text_model.'
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def delta(self) -> Tensor:
        product = torch.einsum("or,r...->o...", self.up.flatten(1), self.down)
        return self.alpha / self.down.shape[0] * product


def random(pipeline, only=None, rank: int = 3, alpha: float = 2.0, seed: int = 9) -> list[Change]:
    """One for every linear and convolution layer, or those whose names end in one of ``only``."""
    g = torch.Generator().manual_seed(seed)
    changes = []
    for part in PARTS:
        for path, layer in getattr(pipeline, part, nn.Identity()).named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d) or path == "text_projection":
                continue
            if only and not path.endswith(only):
                continue
            out, *rest = layer.weight.shape
            down = torch.randn((rank, *rest), generator=g) / rest[0] ** 0.5
            up = torch.randn((out, rank, *(1 for _ in rest[1:])), generator=g) * 0.1
            changes.append(Change(part, _full(part, path), down, up, alpha))
    return changes


@torch.no_grad()
def merge(pipeline, changes: list[Change], weight: float, text: float | None = None) -> None:
    """Add the changes to the pipeline's own weights."""
    for change in changes:
        model = getattr(pipeline, change.part)
        paths = dict(model.named_modules())
        layer = paths.get(change.path) or paths[change.path.removeprefix("text_model.")]
        scale = weight if change.part == "unet" or text is None else text
        layer.weight += scale * change.delta.reshape(layer.weight.shape)


def kohya(changes: list[Change], one_tower: bool = True) -> dict[str, Tensor]:
    names = PARTS if one_tower else {**PARTS, "text_encoder": "te1"}
    state = {}
    for change in changes:
        stem = f"lora_{names[change.part]}_{change.path.replace('.', '_')}"
        state[f"{stem}.lora_down.weight"] = change.down
        state[f"{stem}.lora_up.weight"] = change.up
        state[f"{stem}.alpha"] = torch.tensor(change.alpha)
    return state


def dotted(changes: list[Change], down: str, up: str, alpha: bool = True) -> dict[str, Tensor]:
    """peft's and diffusers' later names: ``down`` and ``up`` go behind the layer's own."""
    state = {}
    for change in changes:
        stem = f"{change.part}.{change.path}"
        state[f"{stem}.{down}.weight"] = change.down
        state[f"{stem}.{up}.weight"] = change.up
        if alpha:
            state[f"{stem}.alpha"] = torch.tensor(change.alpha)
    return state


def processors(changes: list[Change]) -> dict[str, Tensor]:
    """diffusers' first names, of attention alone; scale 1."""
    state = {}
    for change in changes:
        path, _, leaf = change.path.replace("to_out.0", "to_out").rpartition(".")
        leaf = leaf if leaf.startswith("to_") else f"to_{leaf.removesuffix('_proj')}"
        middle = "processor." if change.part == "unet" else ""
        for role in ("down", "up"):
            key = f"{change.part}.{path}.{middle}{leaf}_lora.{role}.weight"
            state[key] = getattr(change, role)
    return state


def _full(part: str, path: str) -> str:
    if part == "unet" or path.startswith("text_model."):
        return path
    return f"text_model.{path}"
