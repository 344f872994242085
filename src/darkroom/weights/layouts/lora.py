"""The names that trainers give the parts of a LoRA: each follows from a layout of the model.

kohya      lora_unet_<path with underscores>.lora_down.weight, .lora_up.weight, .alpha
LyCORIS    the same paths; .hada_*, .lokr_*, .diff, .w_norm, .oft_blocks, .dora_scale, ...
peft       unet.<path>.lora_A.weight, .lora_B.weight, .lora_magnitude_vector
diffusers  unet.<path>.lora.down.weight; older: <path of the attention>.processor.to_q_lora.down
           .weight; of a text tower: text_encoder.<path>.lora_linear_layer.down.weight

<path> is that of a layer in diffusers' layout or in CompVis', in any of the four.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from darkroom.adapters.lora import norms, targets
from darkroom.errors import LayoutError
from darkroom.models.clip_text import ClipTextModel
from darkroom.models.unet import UNet
from darkroom.weights.layout import Entry
from darkroom.weights.layouts import clip_text, unet

PARTS = ("unet", "text", "text2")  # as in a checkpoint: the towers are CLIP-L's and bigG's
FLAT = {  # before a path whose dots are underscores
    "unet": ("lora_unet_", "lycoris_"),
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
    r"|\.lora_(?P<magnitude>magnitude_vector)(?:\.\w+)?"
    r"|\.(?P<other>hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|diff|diff_b|[wb]_norm"
    r"|oft_blocks|oft_diag|rescale|dora_scale)(?:\.default)?"
    r"|(?:\.lora|\.lora_linear_layer|_lora)?(?:\.(?:down|up)(?:\.weight)?)?\.(?P<alpha>alpha)"
    r")"
)
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)$")
_TOWER = re.compile(r"\.self_attn\.to_(q|k|v|out)$")
_ROLES = {"A": "down", "B": "up", "magnitude_vector": "magnitude"}
_PAIRS = (("down", "up"), ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"}
PEFT = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}


@dataclass(kw_only=True)
class Change:
    """What a file holds for one layer."""

    part: str  # one of PARTS
    path: str  # of our layer
    source: str  # the file's name of it
    tensors: dict[str, Tensor] = field(default_factory=dict)  # by role: down, hada_w1_a, diff, ...
    alpha: float | None = None  # None: the rank

    @property
    def is_whole(self) -> bool:
        """Whether no half of a product is missing."""
        roles = set(self.tensors)
        if any(not roles.isdisjoint(pair) and not roles.issuperset(pair) for pair in _PAIRS):
            return False
        if any(role.startswith("lokr") for role in roles):
            sides = ((f"lokr_{side}", f"lokr_{side}_a", f"lokr_{side}_b") for side in ("w1", "w2"))
            return all(whole in roles or {a, b} <= roles for whole, a, b in sides)
        starts = ("down", "hada_w1_a", "diff", "w_norm", "oft_blocks", "oft_diag")
        return not roles.isdisjoint(starts)


def layer_names(parts: Mapping[str, nn.Module]) -> dict[str, tuple[str, str]]:
    """Everything that a file may call a layer of a model: to (part, path of our layer).

    Args:
        parts: the networks by name out of ``PARTS``.
    """
    names: dict[str, tuple[str, str]] = {}
    for part, model in parts.items():
        ours = {*targets(model), *norms(model)}
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
        role = next(value for name, value in match.groupdict().items() if value and name != "path")
        role, value = _ROLES.get(role, role), state[key]
        if role == "alpha":
            if value.numel() != 1:
                foreign.append(key)
            elif change.alpha is not None:
                twice.append(key)
            else:
                change.alpha = float(value)
        elif role in change.tensors:
            twice.append(key)
        else:
            change.tensors[role] = value
    halves = [change.source for change in changes.values() if not change.is_whole]
    for found, problem in (
        (foreign, "are no part of a LoRA"),
        (unknown, "fit no layer of the model"),
        (twice, "give a layer that has one already"),
        (halves, "come without their other half"),
    ):
        if found:
            raise LayoutError(f"{len(found)} tensors {problem}, such as {', '.join(found[:5])}")
    if not changes:
        raise LayoutError("it holds no tensors")
    return list(changes.values())


def write(
    changes: Iterable[Change], parts: Mapping[str, nn.Module], spelling: str, convolutional: bool
) -> dict[str, Tensor]:
    """A file's tensors for ``changes``, as ``read`` takes them.

    Args:
        spelling: "kohya" (A1111 reads it, too), "diffusers" (as its pipelines save) or "peft".
        convolutional: the U-Net's projections around attention are 1x1 convolutions, as in SD 1.x.

    Raises:
        LayoutError: the spelling has no name for a layer or for this kind of change.
    """
    state: dict[str, Tensor] = {}
    theirs = {part: their_names(model, convolutional) for part, model in parts.items()}
    for change in changes:
        entry = theirs[change.part].get(change.path)
        if entry is None:
            raise LayoutError(f"{change.path}: the spelling {spelling!r} has no name for it")
        if spelling == "kohya":
            prefix = FLAT[change.part][1 if change.part == "text" and "text2" in parts else 0]
            stem = prefix + entry.theirs.replace(".", "_")
        elif spelling == "diffusers":
            stem = DOTTED[change.part][0] + entry.theirs
        else:
            stem = f"base_model.model.{entry.theirs}"
        for ours, own in change.tensors.items():
            role, tensor = _lengths(ours, own, change.tensors, spelling)
            if role in ("down", "up") and entry.change is not None:
                tensor = entry.change.save(tensor)
            name = KOHYA.get(role, role) if spelling == "kohya" else PEFT.get(role)
            if name is None:
                raise LayoutError(
                    f"{change.path}: the spelling {spelling!r} has no name for {role}; save it as "
                    "'kohya'"
                )
            state[f"{stem}.{name}"] = tensor
        if change.alpha is not None and spelling == "kohya":
            state[f"{stem}.alpha"] = torch.tensor(change.alpha)
    return state


def _lengths(
    role: str, tensor: Tensor, beside: Mapping[str, Tensor], spelling: str
) -> tuple[str, Tensor]:
    """DoRA's lengths of rows as the spelling has them (of columns: kohya's alone); others as is."""
    kernel = [1] * (beside["down"].ndim - 2) if "down" in beside else []
    if spelling == "kohya" and role == "magnitude":
        return "dora_scale", tensor.reshape(-1, 1, *kernel)
    if spelling != "kohya" and role == "dora_scale" and tensor.numel() == len(tensor):
        return "magnitude", tensor.reshape(1, -1, *kernel) if kernel else tensor.flatten()
    return role, tensor


def their_names(model: nn.Module, convolutional: bool) -> dict[str, Entry]:
    """The first name of each of our layers, with diffusers' shapes."""
    if isinstance(model, UNet):
        layout = unet.diffusers_sd1 if convolutional else unet.diffusers
        entries: Iterable[Entry] = layout(model.config)
    else:
        entries = _entries(model)
    found: dict[str, Entry] = {}
    for entry in entries:
        if len(entry.targets) == 1 and not entry.bare:
            found.setdefault(entry.targets[0], entry)
    return found


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
