"""What a file belongs to and its particulars, by the shapes of a few tensors."""

import re
from collections import Counter
from collections.abc import Mapping
from math import isqrt
from typing import Any

from darkroom.weights.files import TensorInfo
from darkroom.weights.inspect.rule import Names, Rule
from darkroom.weights.readers.faults import printable

Tensors = Mapping[str, TensorInfo]

# The width of the text features that a U-Net attends to tells its family.
BY_TEXT_WIDTH = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL", 1280: "SDXL refiner"}
BY_INPUTS = {
    5: "depth to image",
    7: "4x upscaler",
    8: "instruct: edits by instruction",
    9: "inpainting",
}
BY_LORA_VERSION = (
    ("sdxl", "SDXL"),
    ("stable-diffusion-xl", "SDXL"),
    ("sd_v2", "SD 2.x"),
    ("stable-diffusion-v2", "SD 2.x"),
    ("sd_v1", "SD 1.x"),
    ("stable-diffusion-v1", "SD 1.x"),
)
# LoRAs of transformers: a part of their names. None of these bases is opened.
BY_LORA_NAME = (
    ("double_blocks", "FLUX.1"),
    ("single_blocks", "FLUX.1"),
    ("single_transformer_blocks", "FLUX.1"),
    ("joint_blocks", "SD 3"),
    ("transformer.transformer_blocks.0.attn.add_q_proj.", "SD 3"),
    ("lora_unet_blocks_0_cross_attn", "Wan"),
)
BY_HINT_CELL = {64: "SD 1.x", 192: "SD 1.x", 256: "SDXL", 768: "SDXL"}  # 8 or 16 pixels wide
CLIP_SIZES = {768: "B", 896: "B+", 1024: "L", 1280: "H", 1408: "g", 1664: "bigG"}
_PLACES = (
    "visual.positional_embedding",
    "visual.attnpool.positional_embedding",
    "vision_model.embeddings.position_embedding.weight",
)
SAM_SIZES = {768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H"}
_CROSS = re.compile(r"attn2[._](?:processor\.)?to_[kv]")
_NUMBERED = re.compile(r"unet:\d+:down")  # of any layer: only text is 768, 1024 or 2048 wide
_WORD = re.compile(r"bundle_emb\.([^.]+)\.|(<[^<>\s]+>$)")  # textual inversions in a LoRA's file
_OVER_TIME = ("temp_attentions", "transformer_in", "motion_modules")  # they attend to frames


def text_width(tensors: Tensors) -> int | None:
    """The width of the text features a U-Net, ControlNet or LoRA takes."""
    for name, info in tensors.items():
        attends = _CROSS.search(name) and not any(part in name for part in _OVER_TIME)
        if attends and (width := _input_width(name, info, tensors)):
            return width
        if _NUMBERED.fullmatch(name) and info.shape[1:2] in ((768,), (1024,), (2048,)):
            return info.shape[1]
    return None


def _input_width(name: str, info: TensorInfo, tensors: Tensors) -> int | None:
    """Columns of the matrix that this tensor is, or is the input side of."""
    if len(info.shape) < 2:
        return None
    if name.endswith((".lokr_w2", ".lokr_w2_b")):
        first = name.rpartition(".")[0]
        other = tensors.get(first + ".lokr_w1") or tensors.get(first + ".lokr_w1_b")
        return info.shape[1] * other.shape[1] if other and len(other.shape) > 1 else None
    if name.endswith(("down.weight", "lora_A.weight", "lora_A.default.weight", ".hada_w1_b")):
        return info.shape[1]
    if name.endswith((".diff", "to_k.weight", "to_v.weight", "to_k.down", "to_v.down")):
        return info.shape[1]
    return None


def base_of(rule: Rule, tensors: Tensors, names: Names, metadata: Mapping[str, str]) -> str:
    """The family, as users call it; "" where the file does not say."""
    if base := BY_TEXT_WIDTH.get(text_width(tensors) or 0):
        return base
    if rule.kind == "LoRA":
        for word, base in BY_LORA_NAME:
            if names.have(word):
                return base
        said = metadata.get("ss_base_model_version", "") + metadata.get(
            "modelspec.architecture", ""
        )
        for word, base in BY_LORA_VERSION:
            if word in said.lower():
                return base
        if names.have("^lora_te2_") or names.have("^text_encoder_2."):
            return "SDXL"
        width = _text_tower_width(tensors)
        return BY_TEXT_WIDTH.get(width, "") if width in (768, 1024) else ""
    if rule.kind == "textual inversion":
        if names.have("^clip_g$"):
            return "SDXL"
        widths = {info.shape[-1] for info in tensors.values() if info.shape}
        return BY_TEXT_WIDTH.get(widths.pop(), "") if len(widths) == 1 else ""
    if rule.kind == "T2I-adapter":
        return BY_HINT_CELL.get(_hint_cell(tensors), "")
    if rule.kind == "hypernetwork":
        sizes = {int(name.split(".")[0]) for name in names.all if name[0].isdigit()}
        return "SD 1.x" if 768 in sizes else "SD 2.x" if 1024 in sizes else ""
    return ""


def _hint_cell(tensors: Tensors) -> int:
    """Numbers that a T2I-adapter takes of one cell of the hint."""
    for ending in ("conv_in.weight", "body.0.in_conv.weight"):
        for name in (ending, f"adapter.{ending}"):
            if name in tensors:
                return tensors[name].shape[1]
    return 0


def _text_tower_width(tensors: Tensors) -> int:
    for name, info in tensors.items():
        if "q_proj" in name and name.endswith(("lora_down.weight", "lora_A.weight")):
            return info.shape[-1]
    return 0


def input_channels(tensors: Tensors) -> int | None:
    """Channels that the U-Net's first convolution takes."""
    for ending in ("model.diffusion_model.input_blocks.0.0.weight", "input_blocks.0.0.weight"):
        if ending in tensors:
            return tensors[ending].shape[1]
    info = tensors.get("conv_in.weight")
    return info.shape[1] if info and len(info.shape) == 4 else None


def particulars(rule: Rule, tensors: Tensors, names: Names) -> dict[str, Any]:
    """What else is worth saying of this kind: rank, vectors, size, latent channels, ..."""
    if rule.kind == "LoRA":
        return _lora(tensors, names)
    if rule.kind == "textual inversion":
        shapes = [info.shape for info in tensors.values()]
        return {"vectors": max((s[0] if len(s) > 1 else 1) for s in shapes)}
    if rule.kind == "hypernetwork":
        sizes = sorted({int(name.split(".")[0]) for name in names.all if name[0].isdigit()})
        return {"sizes": tuple(sizes)}
    if "autoencoder" in rule.kind:
        name = names.first("decoder.conv_in.weight", "decoder.layers.0.weight")
        return {"latent_channels": tensors[name].shape[1]} if name else {}
    if rule.kind.startswith("SAM"):
        name = names.first("image_encoder.patch_embed.proj.weight", "patch_embed.projection.weight")
        return {"size": SAM_SIZES.get(tensors[name].shape[0], "")} if name else {}
    if rule.kind == "FastSAM" or rule.kind.startswith("YOLO"):
        name = names.first("model.0.conv.weight", "stem.conv.weight")
        sizes = {16: "n", 32: "s", 48: "m", 64: "l", 80: "x"}
        return {"size": sizes.get(tensors[name].shape[0], "")} if name else {}
    if rule.kind in ("CLIP", "CLIP image encoder") or rule.layout == "open_clip":
        return _clip(tensors)
    if rule.kind.startswith("CLIP text") and (
        name := names.first("embeddings.token_embedding.weight")
    ):
        return {"width": tensors[name].shape[1]}
    if rule.kind == "ResNet":
        convolutions = (".conv1.weight", ".conv2.weight", ".conv3.weight")
        layers = 2 + sum(name.endswith(convolutions) for name in names.all)
        classes = tensors["fc.bias"].count if "fc.bias" in tensors else 0
        return {"size": f"ResNet-{layers}", "classes": classes}
    if rule.kind == "DistilBERT" and (name := names.first("sa_layer_norm.bias")):
        return {"width": tensors[name].count}
    return {}


def _lora(tensors: Tensors, names: Names) -> dict[str, Any]:
    ranks: Counter[int] = Counter()
    convolutions = False
    for name, info in tensors.items():
        ending = ("down.weight", "lora_A.weight", "lora_A.default.weight", ":down")
        if name.endswith(ending) and info.shape:
            ranks[info.shape[0]] += 1
            convolutions |= len(info.shape) == 4 and info.shape[2:] != (1, 1)
        elif name.endswith((".hada_w1_b", ".lokr_w2_b")) and info.shape:
            ranks[info.shape[0]] += 1
    method = "LoCon" if convolutions else "LoRA"
    for pattern, called in (
        (".hada_w1_a$", "LoHa"),
        (".lokr_w", "LoKr"),
        (".oft_", "OFT"),
        (".diff$", "full difference"),
    ):
        if names.have(pattern) and not (called == "full difference" and ranks):
            method = called
    method += " with DoRA" if names.have(".dora_scale$") else ""
    parts = [
        part
        for part, patterns in {
            "U-Net": ("^lora_unet_", "^unet.", "up_blocks.", "^unet:"),
            "text encoder": ("^lora_te_", "^lora_te1_", "^text_encoder.", "^text_encoder:"),
            "second text encoder": ("^lora_te2_", "^text_encoder_2."),
        }.items()
        if any(map(names.have, patterns))
    ]
    found: dict[str, Any] = {"method": method, "changes": tuple(parts)}
    words = [match[1] or match[2] for name in names.all if (match := _WORD.match(name))]
    if words:
        found["textual inversions"] = tuple(printable(word) for word in dict.fromkeys(words))
    if ranks:
        found["rank"] = ranks.most_common(1)[0][0]
        if len(ranks) > 1:
            found["ranks"] = tuple(sorted(ranks))
    return found


def _clip(tensors: Tensors) -> dict[str, Any]:
    """The image tower and the sizes of a whole CLIP, in either naming."""
    patches = tensors.get("visual.conv1.weight") or tensors.get(
        "vision_model.embeddings.patch_embedding.weight"
    )
    places = next((tensors[name] for name in _PLACES if name in tensors), None)
    text = tensors.get("token_embedding.weight") or tensors.get(
        "text_model.embeddings.token_embedding.weight"
    )
    grid = isqrt(max(places.shape[0] - 1, 0)) if places and places.shape else 0
    found: dict[str, Any] = {}
    if patches and "visual.layer1.0.conv1.weight" in tensors:
        found |= {"size": f"ResNet, {patches.shape[0] * 2} channels", "pixels": 32 * grid}
    elif patches and len(patches.shape) == 4:
        letter = CLIP_SIZES.get(patches.shape[0], f"{patches.shape[0]} channels")
        found["size"] = f"ViT-{letter}/{patches.shape[-1]}"
        found["pixels"] = patches.shape[-1] * grid
    if text and len(text.shape) == 2:
        found["text_width"] = text.shape[1]
    return found
