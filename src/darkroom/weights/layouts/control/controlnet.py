"""Where diffusers, lllyasviel and Stability keep ControlNets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from darkroom.models.control.controlnet import ControlNet, ControlNetConfig
from darkroom.models.unet import SD15, SD21, SDXL, UNetConfig
from darkroom.weights.configs import Fields, Json, is_convolutional, unet_config, unet_json
from darkroom.weights.layout import (
    AS_CONVOLUTION,
    AS_LINEAR,
    Change,
    Entry,
    Layout,
    StateDict,
    convert,
)
from darkroom.weights.layouts import unet

PREFIX = "control_model."  # before each name in lllyasviel's files
MARKS = ("difference", "lora_controlnet")  # tensors without a value that say how to read a file
WAY_UP = ("output_blocks", "out.", "up_blocks", "conv_norm_out", "conv_out")  # of a U-Net alone


def ldm(config: ControlNetConfig, projection: Change = AS_LINEAR) -> Iterator[Entry]:
    """The names of lllyasviel's and Stability's files, after the ``control_model.`` of some."""
    for entry in unet.ldm(config.unet, projection):
        if not entry.theirs.startswith(WAY_UP):
            yield entry
    last = 2 * len(config.hint_channels) - 2
    yield Entry("input_hint_block.0", "hint.input")
    for i in range(last):
        yield Entry(f"input_hint_block.{2 * i + 2}", f"hint.blocks.{i}")
    yield Entry(f"input_hint_block.{2 * last + 2}", "hint.output")
    for i in range(len(list(unet.down_stages(config.unet))) + 1):
        yield Entry(f"zero_convs.{i}.0", f"zero.{i}")
    yield Entry("middle_block_out.0", "zero_middle")


def diffusers(config: ControlNetConfig, projection: Change = AS_LINEAR) -> Iterator[Entry]:
    """The names of diffusers' ControlNetModel."""
    for entry in unet.diffusers(config.unet, projection):
        if not entry.theirs.startswith(WAY_UP):
            yield entry
    hint = "controlnet_cond_embedding"
    yield Entry(f"{hint}.conv_in", "hint.input")
    for i in range(2 * len(config.hint_channels) - 2):
        yield Entry(f"{hint}.blocks.{i}", f"hint.blocks.{i}")
    yield Entry(f"{hint}.conv_out", "hint.output")
    for i in range(len(list(unet.down_stages(config.unet))) + 1):
        yield Entry(f"controlnet_down_blocks.{i}", f"zero.{i}")
    yield Entry("controlnet_mid_block", "zero_middle")


def ldm_sd1(config: ControlNetConfig) -> Iterator[Entry]:
    """``ldm`` with 1x1 convolutions around attention, as SD 1.x has them."""
    return ldm(config, AS_CONVOLUTION)


def diffusers_sd1(config: ControlNetConfig) -> Iterator[Entry]:
    """``diffusers`` where config.json says ``use_linear_projection: false``."""
    return diffusers(config, AS_CONVOLUTION)


SD1_PRESETS = {"sd15": ControlNetConfig(unet=SD15)}
PRESETS = {"sd21": ControlNetConfig(unet=SD21), "sdxl": ControlNetConfig(unet=SDXL)}
LDM_SD1 = Layout("controlnet-ldm-sd1", "input_hint_block.", ldm_sd1, ControlNet, SD1_PRESETS)
LDM = Layout("controlnet-ldm", "input_hint_block.", ldm, ControlNet, PRESETS)
DIFFUSERS_SD1 = Layout(
    "controlnet-diffusers-sd1", "controlnet_", diffusers_sd1, ControlNet, SD1_PRESETS
)
DIFFUSERS = Layout("controlnet-diffusers", "controlnet_", diffusers, ControlNet, PRESETS)
LAYOUTS = (LDM_SD1, LDM, DIFFUSERS_SD1, DIFFUSERS)


def layout_of(config: ControlNetConfig) -> Layout[ControlNetConfig]:
    """Diffusers' layout for a network of these sizes."""
    return DIFFUSERS_SD1 if is_convolutional(config.unet) else DIFFUSERS


def bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's own tensors: without the checkpoint beside it, the prefix and the marks."""
    if any(name.startswith(PREFIX) for name in state):
        state = {n.removeprefix(PREFIX): state[n] for n in state if n.startswith(PREFIX)}
    return {name: state[name] for name in state if name not in MARKS}


def is_difference(state: Mapping[str, Any]) -> bool:
    """Whether what the file shares with the U-Net is to be added to the U-Net's weights."""
    return MARKS[0] in state or f"{PREFIX}{MARKS[0]}" in state


@dataclass(frozen=True)
class Shapes:
    """Widths of the layers of a file, whether they are whole, or products of two matrices."""

    state: Mapping[str, Tensor]

    def outputs(self, layer: str) -> int:
        """Channels that come out.

        Raises:
            KeyError: there is no such layer.
        """
        for leaf in ("weight", "up", "bias"):
            if f"{layer}.{leaf}" in self.state:
                return self.state[f"{layer}.{leaf}"].shape[0]
        raise KeyError(f"{layer}.weight")

    def inputs(self, layer: str) -> int:
        """Channels that go in.

        Raises:
            KeyError: there is no such layer.
        """
        leaf = "down" if f"{layer}.down" in self.state else "weight"
        return self.state[f"{layer}.{leaf}"].shape[1]

    def has(self, start: str) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(start) for name in self.state)

    def numbers(self, form: str, first: int = 0, step: int = 1) -> list[int]:
        """The numbers from ``first`` on for which a name begins with ``form``."""
        return list(takewhile(lambda n: self.has(form.format(n)), count(first, step)))

    def first(self, part: str) -> str:
        """The layer that the first name with ``part`` in it belongs to.

        Raises:
            KeyError: there is none.
        """
        for name in self.state:
            if part in name:
                return name.rpartition(".")[0]
        raise KeyError(part)


Blocks = list[list[tuple[int, int]]]  # of each level: (width, transformer depth) of its blocks


def ldm_sizes(state: Mapping[str, Tensor]) -> ControlNetConfig:
    """The config that the shapes of a file in LDM names tell.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the levels are of no U-Net of ours.
    """
    shapes, levels = Shapes(state), [[]]
    for i in shapes.numbers("input_blocks.{}.", 1):
        if shapes.has(f"input_blocks.{i}.0.op."):
            levels.append([])
            continue
        width = shapes.outputs(f"input_blocks.{i}.0.out_layers.3")
        depth = len(shapes.numbers(f"input_blocks.{i}.1.transformer_blocks.{{}}."))
        levels[-1].append((width, depth))
    *hints, _ = (shapes.outputs(f"input_hint_block.{i}") for i in shapes.numbers(
        "input_hint_block.{}.", 0, 2
    ))  # fmt: skip
    sizes = _unet(shapes, levels, "input_blocks.0.0", "label_emb.0.0", "middle_block.1")
    return ControlNetConfig(
        unet=sizes,
        conditioning_channels=shapes.inputs("input_hint_block.0"),
        hint_channels=tuple(hints[::2]),
    )


def diffusers_sizes(state: Mapping[str, Tensor]) -> ControlNetConfig:
    """``ldm_sizes`` of a file in diffusers' names."""
    shapes, levels = Shapes(state), []
    for level in shapes.numbers("down_blocks.{}."):
        start = f"down_blocks.{level}"
        levels.append([])
        for i in shapes.numbers(f"{start}.resnets.{{}}."):
            blocks = shapes.numbers(f"{start}.attentions.{i}.transformer_blocks.{{}}.")
            levels[-1].append((shapes.outputs(f"{start}.resnets.{i}.conv2"), len(blocks)))
    hint = "controlnet_cond_embedding"
    hints = [shapes.outputs(f"{hint}.conv_in")]
    odd = shapes.numbers(f"{hint}.blocks.{{}}.", 1, 2)
    hints += [shapes.outputs(f"{hint}.blocks.{i}") for i in odd]
    sizes = _unet(shapes, levels, "conv_in", "add_embedding.linear_1", "mid_block.attentions.0")
    return ControlNetConfig(
        unet=sizes,
        conditioning_channels=shapes.inputs(f"{hint}.conv_in"),
        hint_channels=tuple(hints),
    )


def _unet(shapes: Shapes, levels: Blocks, first: str, vector: str, middle: str) -> UNetConfig:
    if len({len(blocks) for blocks in levels}) != 1 or any(len(set(b)) != 1 for b in levels):
        raise ValueError(f"blocks of each level (width, transformer depth): {levels}")
    widths = tuple(blocks[0][0] for blocks in levels)
    projection = shapes.first(".proj_in.")
    whole = shapes.state.get(f"{projection}.weight", shapes.state.get(f"{projection}.down"))
    convolution = whole is not None and whole.ndim == 4  # so SD 1.x, whose heads are 8 everywhere
    return UNetConfig(
        in_channels=shapes.inputs(first),
        channels=widths,
        heads=tuple(8 if convolution else max(width // 64, 1) for width in widths),
        depth=tuple(blocks[0][1] for blocks in levels),
        middle_depth=len(shapes.numbers(f"{middle}.transformer_blocks.{{}}.")),
        blocks=len(levels[0]),
        text_channels=shapes.inputs(shapes.first(".attn2.to_k.")),
        vector_channels=shapes.inputs(vector) if shapes.has(f"{vector}.") else 0,
    )


def change(state: Mapping[str, Tensor]) -> tuple[ControlNetConfig, StateDict]:
    """The config and, by our names, the tensors of a difference file or a Control-LoRA.

    Raises:
        LayoutError: the file has names of no layer.
        KeyError: a tensor is missing that tells the sizes.
    """
    own = bare(state)
    config = ldm_sizes(own)
    converted = convert(own, ldm(config))
    return config, converted


# --- config.json

FIXED: Json = {"controlnet_conditioning_channel_order": "rgb"}


def controlnet_config(data: Json, where: str = "config.json") -> ControlNetConfig:
    """Read the config of a ControlNetModel.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    own = ("conditioning_channels", "conditioning_embedding_out_channels", "global_pool_conditions")
    fields = Fields({k: data[k] for k in (*own, *FIXED) if k in data}, where, FIXED, frozenset())
    down = data.get("down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",))
    down = down if isinstance(down, list | tuple) else ()  # which unet_config refuses
    up = [str(name).replace("Down", "Up") for name in reversed(down)]
    rest = {k: v for k, v in data.items() if k not in (*own, *FIXED)}
    return ControlNetConfig(
        unet=unet_config({**rest, "up_block_types": up}, where),
        conditioning_channels=fields.take(own[0], 3),
        hint_channels=tuple(fields.take(own[1], (16, 32, 96, 256))),
        pooled=fields.take(own[2], False),
    )


def controlnet_json(config: ControlNetConfig) -> dict[str, Any]:
    """The config.json with which diffusers builds the same network."""
    described = unet_json(config.unet)
    for name in ("up_block_types", "out_channels", "sample_size", "center_input_sample"):
        del described[name]
    return {
        **described,
        "_class_name": "ControlNetModel",
        "conditioning_channels": config.conditioning_channels,
        "conditioning_embedding_out_channels": list(config.hint_channels),
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": config.pooled,
    }
