"""Where diffusers keeps the U-Net of unconditional diffusion, and how its config.json says so."""

from collections.abc import Iterator
from typing import Any

from darkroom.models.unconditional_unet import (
    DDPM_256,
    MNIST,
    MNIST_CONDITIONAL,
    UnconditionalUNet,
    UnconditionalUNetConfig,
    check,
)
from darkroom.weights.configs import Fields, Json
from darkroom.weights.layout import Entry, Layout, under
from darkroom.weights.layouts.autoencoder import attention
from darkroom.weights.layouts.unet import DIFFUSERS_RESIDUAL


def diffusers(config: UnconditionalUNetConfig) -> Iterator[Entry]:
    """The names of diffusers' UNet2DModel; the attention's old names read, too."""
    yield from under("time_embedding", "time", {"linear_1": "linear1", "linear_2": "linear2"})
    yield Entry("class_embedding", "label")
    yield Entry("conv_in", "input")
    levels = len(config.channels)
    index = 0
    for level in range(levels):
        for block in range(config.blocks):
            yield from _stage(f"down_blocks.{level}", block, f"down.{index}")
            index += 1
        yield Entry(f"down_blocks.{level}.downsamplers.0.conv", f"down.{index}.conv")
        index += level < levels - 1
    yield from _stage("mid_block", 0, "middle")
    yield from under("mid_block.resnets.1", "middle_out.residual", DIFFUSERS_RESIDUAL)
    for index in range(levels * (config.blocks + 1)):
        level, block = divmod(index, config.blocks + 1)
        yield from _stage(f"up_blocks.{level}", block, f"up.{index}")
        if block == config.blocks:
            yield Entry(f"up_blocks.{level}.upsamplers.0.conv", f"up.{index}.resize.conv")
    yield from (Entry("conv_norm_out", "norm"), Entry("conv_out", "output"))


def _stage(theirs: str, block: int, ours: str) -> Iterator[Entry]:
    yield from under(f"{theirs}.resnets.{block}", f"{ours}.residual", DIFFUSERS_RESIDUAL)
    yield from attention(f"{theirs}.attentions.{block}", f"{ours}.attention")


PRESETS = {"ddpm-256": DDPM_256, "mnist": MNIST, "mnist-conditional": MNIST_CONDITIONAL}
DIFFUSERS = Layout("diffusers-unconditional", "down_blocks.", diffusers, UnconditionalUNet, PRESETS)
LAYOUTS = (DIFFUSERS,)

FIXED: Json = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": "default",
    "class_embed_type": None,
    "attn_norm_num_groups": None,
    "_class_name": ("UNet2DModel", "UNetUnconditionalModel"),  # the latter in the first releases
}
IGNORED = frozenset(
    {"sample_size", "dropout", "num_train_timesteps"}  # not of a trained network
    | {"decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step"}
    | {"use_ema_warmup"}  # left by diffusers' EMA training
)
DOWN = {"DownBlock2D": False, "AttnDownBlock2D": True}  # whether it attends
UP = {"UpBlock2D": False, "AttnUpBlock2D": True}


def unconditional_unet_config(data: Json, where: str = "config.json") -> UnconditionalUNetConfig:
    """Read the config of a diffusers UNet2DModel.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, FIXED, IGNORED)
    channels = tuple(fields.take("block_out_channels", (224, 448, 672, 896)))
    levels = len(channels)
    down = fields.take("down_block_types", ("DownBlock2D",) + ("AttnDownBlock2D",) * 3)
    up = fields.take("up_block_types", ("AttnUpBlock2D",) * 3 + ("UpBlock2D",))
    for name, kinds, valid in (("down_block_types", down, DOWN), ("up_block_types", up, UP)):
        if len(kinds) != levels or not all(kind in valid for kind in kinds):
            raise fields.error(name, f"must be {levels} of {', '.join(valid)}")
    attends = tuple(DOWN[kind] for kind in down)
    if attends != tuple(UP[kind] for kind in reversed(up)):
        raise fields.error("up_block_types", "must mirror down_block_types")
    config = UnconditionalUNetConfig(
        in_channels=fields.take("in_channels", 3),
        out_channels=fields.take("out_channels", 3),
        channels=channels,
        attention=attends,
        middle_attention=fields.take("add_attention", True),
        blocks=fields.take("layers_per_block", 2),
        head_channels=fields.take("attention_head_dim", 8, also=(type(None),)),
        groups=fields.take("norm_num_groups", 32),
        eps=float(fields.take("norm_eps", 1e-5)),
        classes=fields.take("num_class_embeds", 0, least=0, also=(type(None),)) or 0,
        downsample_padding=fields.take("downsample_padding", 1, least=0),
        frequency_shift=fields.take("freq_shift", 0, least=0),
        sines_first=not fields.take("flip_sin_to_cos", True),
    )
    fields.finish()
    try:
        check(config)
    except ValueError as error:
        raise fields.error("attention_head_dim", str(error)) from None
    return config


def unconditional_unet_json(
    config: UnconditionalUNetConfig, sample_size: int | None = None
) -> dict[str, Any]:
    """The config.json with which diffusers builds the same network."""

    def blocks(kind: str) -> list[str]:
        return [f"Attn{kind}Block2D" if a else f"{kind}Block2D" for a in config.attention]

    return {
        "_class_name": "UNet2DModel",
        "act_fn": "silu",
        "add_attention": config.middle_attention,
        "attention_head_dim": config.head_channels,
        "block_out_channels": list(config.channels),
        "center_input_sample": False,
        "down_block_types": blocks("Down"),
        "downsample_padding": config.downsample_padding,
        "flip_sin_to_cos": not config.sines_first,
        "freq_shift": config.frequency_shift,
        "in_channels": config.in_channels,
        "layers_per_block": config.blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": config.eps,
        "norm_num_groups": config.groups,
        "num_class_embeds": config.classes or None,
        "out_channels": config.out_channels,
        "sample_size": sample_size,
        "time_embedding_type": "positional",
        "up_block_types": blocks("Up")[::-1],
    }
