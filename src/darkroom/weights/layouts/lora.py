"""The names that trainers give the parts of a LoRA: each follows from a layout of the model.

kohya      lora_unet_<path with underscores>.lora_down.weight, .lora_up.weight, .alpha
peft       unet.<path>.lora_A.weight, .lora_B.weight
diffusers  unet.<path>.lora.down.weight; older: <path of the attention>.processor.to_q_lora.down
           .weight; of a text tower: text_encoder.<path>.lora_linear_layer.down.weight

<path> is that of a layer in diffusers' layout or in CompVis', in any of the three.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from darkroom.adapters.lora import targets
from darkroom.errors import LayoutError
from darkroom.models.clip_text import ClipTextModel
from darkroom.models.unet import UNet
from darkroom.weights.layout import Entry
from darkroom.weights.layouts import clip_text, unet

PARTS = ("unet", "text", "text2")  # as in a checkpoint: the towers are CLIP-L's and bigG's
FLAT = {  # before a path whose dots are underscores
    "unet": ("lora_unet_",),
    "text": ("lora_te_", "lora_te1_"),
    "text2": ("lora_te2_",),
}
DOTTED = {  # before a path as it is; a file of one part alone may have no prefix
    "unet": ("unet.", "unet.base_model.model.", "base_model.model.", ""),
    "text": ("text_encoder.", "text_encoder.base_model.model.", "base_model.model.", ""),
    "text2": ("text_encoder_2.", "text_encoder_2.base_model.model."),
}
_KEY = re.compile(
    r"(?P<path>.+?)(?:"
    r"\.lora_(?P<kohya>down|up|mid)\.weight"
    r"|\.lora_(?P<peft>[AB])(?:\.\w+)?\.weight"
    r"|(?:\.lora|\.lora_linear_layer|_lora)\.(?P<diffusers>down|up)\.weight"
    r"|(?:\.lora|\.lora_linear_layer|_lora)?\.(?P<alpha>alpha))"
)
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)$")
_TOWER = re.compile(r"\.self_attn\.to_(q|k|v|out)$")
_ROLES = {"A": "down", "B": "up"}


@dataclass(kw_only=True)
class Change:
    """What a file holds for one layer."""

    part: str  # one of PARTS
    path: str  # of our layer
    source: str  # the file's name of it
    down: Tensor | None = None
    up: Tensor | None = None
    mid: Tensor | None = None
    alpha: float | None = None  # None: the rank


def layer_names(parts: Mapping[str, nn.Module]) -> dict[str, tuple[str, str]]:
    """Everything that a file may call a layer of a model: to (part, path of our layer).

    Args:
        parts: the networks by name out of ``PARTS``.
    """
    names: dict[str, tuple[str, str]] = {}
    for part, model in parts.items():
        ours = targets(model)
        for entry in _entries(model):
            if len(entry.targets) != 1 or entry.bare or entry.targets[0] not in ours:
                continue
            place = part, entry.targets[0]
            flat = entry.theirs.replace(".", "_")
            for prefix in FLAT[part]:
                names.setdefault(prefix + flat, place)
            for prefix in DOTTED[part]:
                names.setdefault(prefix + entry.theirs, place)
    return names


def read(state: Mapping[str, Tensor], parts: Mapping[str, nn.Module]) -> list[Change]:
    """The changes that a file makes to a model, in the order of the file.

    Raises:
        LayoutError: listing up to five names that are no layer of the model or no part of a LoRA,
            or of which half is missing.
    """
    names = layer_names(parts)
    changes: dict[tuple[str, str], Change] = {}
    foreign, unknown, twice = [], [], []
    for key in state:
        match = _KEY.fullmatch(key)
        if match is None:
            foreign.append(key)
            continue
        place = names.get(_canonical(match["path"]))
        if place is None:
            unknown.append(key)
            continue
        change = changes.setdefault(place, Change(part=place[0], path=place[1], source=key))
        role = match["kohya"] or _ROLES.get(match["peft"]) or match["diffusers"] or "alpha"
        if getattr(change, role) is not None:
            twice.append(key)
        value = state[key]
        if role != "alpha":
            setattr(change, role, value)
        elif value.numel() == 1:
            change.alpha = float(value)
        else:
            foreign.append(key)
    halves = [c.source for c in changes.values() if c.down is None or c.up is None]
    for found, problem in (
        (foreign, "are no part of a LoRA with down and up"),
        (unknown, "fit no layer of the model"),
        (twice, "give a layer that has one already"),
        (halves, "come without their down or up"),
    ):
        if found:
            raise LayoutError(f"{len(found)} tensors {problem}, such as {', '.join(found[:5])}")
    if not changes:
        raise LayoutError("it holds no tensors")
    return list(changes.values())


def _canonical(path: str) -> str:
    """Old attention processors name what the layer is for; the path is the layer's."""
    path = _PROCESSOR.sub(lambda m: ".to_out.0" if m[1] == "out" else f".to_{m[1]}", path)
    return _TOWER.sub(lambda m: f".self_attn.{m[1]}_proj", path)


def _entries(model: nn.Module) -> Iterator[Entry]:
    layouts: Iterable[Iterable[Entry]] = ()
    if isinstance(model, UNet):
        layouts = unet.diffusers(model.config), unet.ldm(model.config)
    elif isinstance(model, ClipTextModel):
        layouts = (clip_text.huggingface(model.config),)
    for layout in layouts:
        yield from layout
