"""Where the CompVis ('ldm') and diffusers checkpoints keep the KL autoencoder."""

from collections.abc import Iterator

from darkroom.models.autoencoder import (
    SD_AUTOENCODER,
    SDXL_AUTOENCODER,
    Autoencoder,
    AutoencoderConfig,
)
from darkroom.weights.layout import (
    AS_CONVOLUTION,
    AS_LINEAR,
    Entry,
    Layout,
    Table,
    under,
    unused,
)

RESIDUAL: Table = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
LDM_RESIDUAL: Table = {**RESIDUAL, "nin_shortcut": "skip"}
DIFFUSERS_RESIDUAL: Table = {**RESIDUAL, "conv_shortcut": "skip"}
ENDS: Table = {"conv_in": "input", "conv_out": "output"}


def ldm(config: AutoencoderConfig) -> Iterator[Entry]:
    """CompVis names, without the prefix ``first_stage_model.``; attention is 1x1 convolutions."""
    yield from (Entry("quant_conv", "quantize"), Entry("post_quant_conv", "unquantize"))
    for half in ("encoder", "decoder"):
        yield from under(half, half, {**ENDS, "norm_out": "norm"})
        yield from under(f"{half}.mid.block_1", f"{half}.middle.0", LDM_RESIDUAL)
        yield Entry(f"{half}.mid.attn_1.norm", f"{half}.middle.1.norm")
        for theirs, ours in {"q": "q", "k": "k", "v": "v", "proj_out": "out"}.items():
            path = f"{half}.mid.attn_1.{theirs}", f"{half}.middle.1.attention.{ours}"
            yield Entry(*path, AS_CONVOLUTION)
        yield from under(f"{half}.mid.block_2", f"{half}.middle.2", LDM_RESIDUAL)
    for ours, level, block in down_layers(config):
        if block is None:
            yield Entry(f"encoder.down.{level}.downsample.conv", f"{ours}.conv")
        else:
            yield from under(f"encoder.down.{level}.block.{block}", ours, LDM_RESIDUAL)
    for ours, level, block in up_layers(config):  # LDM counts levels from the finest here, too
        if block is None:
            yield Entry(f"decoder.up.{level}.upsample.conv", f"{ours}.conv")
        else:
            yield from under(f"decoder.up.{level}.block.{block}", ours, LDM_RESIDUAL)
    yield from unused("loss", "model_ema")  # of the training


def diffusers(config: AutoencoderConfig) -> Iterator[Entry]:
    """The names of diffusers' AutoencoderKL; the attention's names of before v0.18 read, too."""
    yield from (Entry("quant_conv", "quantize"), Entry("post_quant_conv", "unquantize"))
    for half in ("encoder", "decoder"):
        yield from under(half, half, {**ENDS, "conv_norm_out": "norm"})
        middle = f"{half}.mid_block"
        yield from under(f"{middle}.resnets.0", f"{half}.middle.0", DIFFUSERS_RESIDUAL)
        yield from attention(f"{middle}.attentions.0", f"{half}.middle.1")
        yield from under(f"{middle}.resnets.1", f"{half}.middle.2", DIFFUSERS_RESIDUAL)
    for ours, level, block in down_layers(config):
        theirs = f"encoder.down_blocks.{level}"
        if block is None:
            yield Entry(f"{theirs}.downsamplers.0.conv", f"{ours}.conv")
        else:
            yield from under(f"{theirs}.resnets.{block}", ours, DIFFUSERS_RESIDUAL)
    for ours, level, block in up_layers(config):
        theirs = f"decoder.up_blocks.{len(config.channels) - 1 - level}"
        if block is None:
            yield Entry(f"{theirs}.upsamplers.0.conv", f"{ours}.conv")
        else:
            yield from under(f"{theirs}.resnets.{block}", ours, DIFFUSERS_RESIDUAL)


def attention(theirs: str, ours: str) -> Iterator[Entry]:
    """Attention over pixels in diffusers: today's names, then the old ones."""
    yield Entry(f"{theirs}.group_norm", f"{ours}.norm")
    for new, old, name in (
        ("to_q", "query", "q"),
        ("to_k", "key", "k"),
        ("to_v", "value", "v"),
        ("to_out.0", "proj_attn", "out"),
    ):
        yield Entry(f"{theirs}.{new}", f"{ours}.attention.{name}", AS_LINEAR)
        yield Entry(f"{theirs}.{old}", f"{ours}.attention.{name}", AS_LINEAR)


def down_layers(config: AutoencoderConfig) -> Iterator[tuple[str, int, int | None]]:
    """(our path, level, block) of each layer of the encoder; block None = downsampling."""
    index = 0
    for level in range(len(config.channels)):
        last = level == len(config.channels) - 1
        for block in (*range(config.blocks), *(() if last else (None,))):
            yield f"encoder.down.{index}", level, block
            index += 1


def up_layers(config: AutoencoderConfig) -> Iterator[tuple[str, int, int | None]]:
    """(our path, level, block) of each layer of the decoder; block None = upsampling."""
    index = 0
    for level in reversed(range(len(config.channels))):
        for block in (*range(config.blocks + 1), *((None,) if level else ())):
            yield f"decoder.up.{index}", level, block
            index += 1


PRESETS = {"sd": SD_AUTOENCODER, "sdxl": SDXL_AUTOENCODER}  # equal shapes: the scale differs
LDM = Layout("ldm-autoencoder", "encoder.down.", ldm, Autoencoder, PRESETS)
DIFFUSERS = Layout("diffusers-autoencoder", "encoder.down_blocks.", diffusers, Autoencoder, PRESETS)
LAYOUTS = (LDM, DIFFUSERS)
