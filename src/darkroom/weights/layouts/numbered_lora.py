"""LoRAs of the first trainer, cloneofsimo's: layers have numbers rather than names.

    unet:0:up, unet:0:down, text_encoder:7:up, ...     matrices of the layer of this number
    <s1>                                                vectors that the word <s1> stands for

The metadata say which classes of diffusers' modules were trained (``{"unet": '["CrossAttention",
"GEGLU"]'}``) and which names are words (``{"<s1>": "<embed>"}``). The numbers count the layers of
these classes as diffusers' networks hold them: down, up, middle. Since its release 0.12 a block's
feed-forward layer stands behind the second attention, before that between the two; the shapes tell
which order a file has.
"""

import functools
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from darkroom import foreign
from darkroom.errors import LayoutError
from darkroom.weights.layouts.lora import DOTTED, layer_names

PARTS = {"unet": "unet", "text_encoder": "text"}  # their name to ours
TARGETS = {  # a class of diffusers' or transformers' modules, and the layers in it
    "CrossAttention": "attn",
    "Attention": "attn",
    "GEGLU": "ff",
    "ResnetBlock2D": "resnet",
    "CLIPAttention": "self_attn",
    "CLIPMLP": "mlp",
}
USUAL = {"unet": ("CrossAttention", "GEGLU"), "text_encoder": ("CLIPAttention",)}
_KEY = re.compile(r"(unet|text_encoder):(\d{1,4}):(up|down)")
_WORD = re.compile(r"<[^<>\s]{1,60}>")
_BLOCK = re.compile(
    r"(down|up|mid)_block(?:s\.(\d+))?\.(attentions|resnets)\.(\d+)\."
    r"(?:transformer_blocks\.(\d+)\.)?(.+)"
)
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(self_attn|mlp)\.(.+)")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_RESNET = ("conv1", "time_emb_proj", "conv2", "conv_shortcut")
_TOWER = ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2")
_ORDERS = (("attn1", "attn2", "ff"), ("attn1", "ff", "attn2"))


def is_numbered(names: Iterable[str]) -> bool:
    """Whether a file is of this form."""
    return any(_KEY.fullmatch(name) for name in names)


def words(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vectors that lie beside the matrices, by the word that stands for them."""
    return {name: tensor for name, tensor in state.items() if _WORD.fullmatch(name)}


def named(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], parts: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """The matrices of a file, in diffusers' names of the model's layers.

    Raises:
        LayoutError: the numbers or shapes do not fit the model, or a class is not known.
    """
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, tensor in state.items():
        match = _KEY.fullmatch(name)
        if match is None:
            raise LayoutError(f"{name} is no part of a numbered LoRA")
        part, number, side = match.groups()
        found.setdefault(part, {}).setdefault(int(number), {})[side] = tensor
    result: dict[str, Tensor] = {}
    for part, layers in found.items():
        if half := [number for number, sides in layers.items() if len(sides) < 2]:
            raise LayoutError(f"{part}:{half[0]} comes without its other half")
        network = parts.get(PARTS[part])
        if network is None:
            raise LayoutError(f"it changes a {part}, which the model has not")
        path = _paths(part, layers, _targets(part, metadata), network)
        for number, sides in layers.items():
            for side, tensor in sides.items():
                result[f"{path[number]}.lora.{side}.weight"] = tensor
    return result


def _targets(part: str, metadata: Mapping[str, str]) -> set[str]:
    classes: object = USUAL[part]
    if part in metadata:
        classes = foreign.parse_json(metadata[part], f"its metadata {part!r}", LayoutError)
    if not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes):
        raise LayoutError(f"its metadata {part!r}: expected a list of classes of modules")
    if unknown := sorted(set(classes) - TARGETS.keys()):
        known = ", ".join(TARGETS)
        raise LayoutError(f"it was trained on {unknown[0]!r:.60}; numbers are known for {known}")
    return {TARGETS[name] for name in classes}


def _paths(
    part: str, layers: Mapping[int, Mapping[str, Tensor]], targets: set[str], network: nn.Module
) -> list[str]:
    """The path of each number's layer, in the first order in which every shape fits."""
    ours, prefix = PARTS[part], DOTTED[PARTS[part]][0]
    first: dict[str, str] = {}  # of the names of each layer, the first that has a place
    for name, (_, path) in layer_names({ours: network}).items():
        if name.startswith(prefix) and _place(name, targets, _ORDERS[0]):
            first.setdefault(path, name)
    names = {name: path for path, name in first.items()}
    for order in _ORDERS:
        paths = sorted(names, key=functools.partial(_place, targets=targets, order=order))
        if set(layers) == set(range(len(paths))) and all(
            _fits(layers[number], network.get_submodule(names[path]))
            for number, path in enumerate(paths)
        ):
            return paths
    raise LayoutError(
        f"its {len(layers)} numbered layers of the {part} do not fit the model's {len(names)}"
    )


def _place(name: str, targets: set[str], order: tuple[str, ...]) -> tuple[int, ...]:
    """Where a layer stands in diffusers' order; () for one that was not trained."""
    if match := _BLOCK.search(name):
        side, block, kind, index, layer, tail = match.groups()
        outer = (("down", "up", "mid").index(side), int(block or 0), kind == "resnets", int(index))
        if kind == "resnets":
            known = "resnet" in targets and tail in _RESNET
            return (*outer, 0, _RESNET.index(tail)) if known else ()
        head, _, rest = tail.partition(".")
        if head in ("attn1", "attn2") and "attn" in targets and rest in _ATTENTION:
            return (*outer, int(layer or 0), order.index(head), _ATTENTION.index(rest))
        if tail == "ff.net.0.proj" and "ff" in targets:
            return (*outer, int(layer or 0), order.index("ff"))
    elif match := _LAYER.search(name):
        layer, kind, tail = match.groups()
        if kind in targets and tail in _TOWER:
            return (int(layer), _TOWER.index(tail))
    return ()


def _fits(sides: Mapping[str, Tensor], layer: nn.Module) -> bool:
    weight, up, down = layer.weight, sides["up"], sides["down"]
    return (
        isinstance(weight, Tensor)
        and min(up.ndim, down.ndim) >= 2
        and (up.shape[0], down.shape[1]) == (weight.shape[0], weight.shape[1])
    )
