"""Where diffusers and TencentARC keep T2I-Adapters."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from darkroom.models.control.t2i_adapter import FULL, FULL_XL, LIGHT, T2IAdapter, T2IAdapterConfig
from darkroom.weights.configs import Fields, Json
from darkroom.weights.layout import Entry, Layout, under
from darkroom.weights.layouts.control.controlnet import Shapes

BLOCK = {"block1": "conv1", "block2": "conv2"}
UNSHUFFLED = {192: (3, 8), 64: (1, 8), 768: (3, 16), 256: (1, 16)}  # -> hint's channels, factor


def diffusers(config: T2IAdapterConfig) -> Iterator[Entry]:
    """The names of diffusers' T2IAdapter."""
    yield Entry("adapter.conv_in", "input")
    for i in range(len(config.channels)):
        theirs, ours = f"adapter.body.{i}", f"body.{i}"
        yield Entry(f"{theirs}.in_conv", f"{ours}.input")
        for j in range(config.blocks):
            yield from under(f"{theirs}.resnets.{j}", f"{ours}.blocks.{j}", BLOCK)
        yield Entry(f"{theirs}.out_conv", f"{ours}.output")


def original(config: T2IAdapterConfig) -> Iterator[Entry]:
    """The names of TencentARC's files; only the light adapter nests its blocks."""
    yield Entry("conv_in", "input")
    for i in range(len(config.channels)):
        ours = f"body.{i}"
        yield Entry(f"body.{i if config.narrow else i * config.blocks}.in_conv", f"{ours}.input")
        for j in range(config.blocks):
            theirs = f"body.{i}.body.{j}" if config.narrow else f"body.{i * config.blocks + j}"
            yield from under(theirs, f"{ours}.blocks.{j}", BLOCK)
        if config.narrow:
            yield Entry(f"body.{i}.out_conv", f"{ours}.output")


PRESETS = {"full": FULL, "full-xl": FULL_XL, "light": LIGHT}
DIFFUSERS = Layout("t2i-adapter-diffusers", "adapter.", diffusers, T2IAdapter, PRESETS)
ORIGINAL = Layout("t2i-adapter-original", "body.0.", original, T2IAdapter, PRESETS)


def diffusers_sizes(state: Mapping[str, Tensor]) -> T2IAdapterConfig:
    """The config that the shapes of a file in diffusers' names tell.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the hint's channels are none that are known.
    """
    shapes = Shapes(state)
    last = "resnets.0.block1" if shapes.has("adapter.conv_in.") else "out_conv"
    levels = shapes.numbers("adapter.body.{}.")
    return _config(
        shapes, "adapter.", [shapes.outputs(f"adapter.body.{i}.{last}") for i in levels],
        len(shapes.numbers("adapter.body.0.resnets.{}.")),
    )  # fmt: skip


def original_sizes(state: Mapping[str, Tensor]) -> T2IAdapterConfig:
    """``diffusers_sizes`` of a file in TencentARC's names."""
    shapes = Shapes(state)
    bodies = shapes.numbers("body.{}.")
    if not shapes.has("conv_in."):
        widths = [shapes.outputs(f"body.{i}.out_conv") for i in bodies]
        return _config(shapes, "", widths, len(shapes.numbers("body.0.body.{}.")))
    blocks = FULL.blocks  # as in every file of theirs
    widths = [shapes.outputs(f"body.{i}.block1") for i in bodies[::blocks]]
    return _config(shapes, "", widths, blocks)


def _config(shapes: Shapes, prefix: str, widths: list[int], blocks: int) -> T2IAdapterConfig:
    narrow = not shapes.has(f"{prefix}conv_in.")
    given = shapes.inputs(f"{prefix}body.0.in_conv" if narrow else f"{prefix}conv_in")
    if given not in UNSHUFFLED:
        raise ValueError(f"{given} channels of the hint's cells; known are {sorted(UNSHUFFLED)}")
    channels, factor = UNSHUFFLED[given]
    known = LIGHT if narrow else FULL if factor == 8 else FULL_XL
    return T2IAdapterConfig(
        in_channels=channels,
        channels=tuple(widths),
        blocks=blocks,
        factor=factor,
        halved=known.halved,
        narrow=narrow,
    )


TYPES = {"full_adapter": FULL, "full_adapter_xl": FULL_XL, "light_adapter": LIGHT}


def t2i_adapter_config(data: Json, where: str = "config.json") -> T2IAdapterConfig:
    """Read the config of a T2IAdapter.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, {"adapter_type": tuple(TYPES)}, frozenset())
    kind = TYPES[fields.take("adapter_type", "full_adapter")]
    channels = tuple(fields.take("channels", FULL.channels))
    config = T2IAdapterConfig(
        in_channels=fields.take("in_channels", 3),
        channels=(*channels, channels[-1]) if kind.narrow else channels,
        blocks=fields.take("num_res_blocks", 2),
        factor=fields.take("downscale_factor", 8),
        halved=kind.halved,
        narrow=kind.narrow,
    )
    fields.finish()
    return config


def t2i_adapter_json(config: T2IAdapterConfig) -> dict[str, Any]:
    """The config.json with which diffusers builds the same adapter."""
    same = (known for known in TYPES.items() if known[1].narrow == config.narrow)
    kind = next(name for name, known in same if known.halved == config.halved)
    return {
        "_class_name": "T2IAdapter",
        "adapter_type": kind,
        "channels": list(config.channels[:-1] if config.narrow else config.channels),
        "downscale_factor": config.factor,
        "in_channels": config.in_channels,
        "num_res_blocks": config.blocks,
    }
