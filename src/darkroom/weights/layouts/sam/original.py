"""The names of segment-anything's own files, as sam_vit_b_01ec64.pth, and of MobileSAM's."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt

from torch import Tensor

from darkroom.models.sam.config import (
    MOBILE_SAM,
    SAM_B,
    SAM_H,
    SAM_L,
    DecoderConfig,
    SamConfig,
    TinyVitConfig,
    VitConfig,
)
from darkroom.models.sam.network import Sam
from darkroom.weights.layout import Entry, Layout, Table, under, unused

ENCODER, PROMPTS, DECODER = "image_encoder", "prompt_encoder", "mask_decoder"
BLOCK: Table = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "norm2",
    "mlp.lin1": "up",
    "mlp.lin2": "down",
}
NECK: Table = {"0": "conv1", "1": "norm1", "2": "conv2", "3": "norm2"}
MASKS: Table = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2", "6": "conv3"}
TOKENS: Table = {
    "point_embeddings.0": "outside",
    "point_embeddings.1": "inside",
    "point_embeddings.2": "first_corner",
    "point_embeddings.3": "last_corner",
    "not_a_point_embed": "no_point",
    "no_mask_embed": "no_mask",
}
ATTENTION: Table = {f"{name}_proj": name for name in ("q", "k", "v", "out")}
ATTENTIONS: Table = {
    "self_attn": "own",
    "cross_attn_token_to_image": "to_picture",
    "cross_attn_image_to_token": "to_tokens",
}
TWO_WAY: Table = {
    **{f"norm{n}": f"norm{n}" for n in (1, 2, 3, 4)},
    "mlp.lin1": "up",
    "mlp.lin2": "down",
}
UPSCALING: Table = {"0": "up1", "1": "up_norm", "3": "up2"}
NORMED: Table = {"c": "conv", "bn": "norm"}
TINY_BLOCK: Table = {
    "attn.norm": "attention.norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.norm": "norm",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
    "local_conv.c": "local.conv",
    "local_conv.bn": "local.norm",
}


def original(config: SamConfig) -> Iterator[Entry]:
    """All names, by the kind of image encoder."""
    encoder = config.encoder
    yield from tiny(encoder) if isinstance(encoder, TinyVitConfig) else vit(encoder)
    yield from under(f"{ENCODER}.neck", f"{ENCODER}.neck", NECK)
    matrix = "pe_layer.positional_encoding_gaussian_matrix"
    yield Entry(f"{PROMPTS}.{matrix}", f"{PROMPTS}.position.frequencies", bare=True)
    yield from bare(PROMPTS, TOKENS)
    yield from under(f"{PROMPTS}.mask_downscaling", f"{PROMPTS}.mask", MASKS)
    yield from bare(DECODER, {"iou_token": "iou_token", "mask_tokens": "mask_tokens"})
    yield from transformer(config.decoder, TWO_WAY, "norm_final_attn")
    yield from under(f"{DECODER}.output_upscaling", DECODER, UPSCALING)
    heads = [f"output_hypernetworks_mlps.{n}" for n in range(config.decoder.candidates + 1)]
    for n, head in enumerate(heads):
        layers = {f"layers.{m}": f"layers.{m}" for m in range(3)}
        yield from under(f"{DECODER}.{head}", f"{DECODER}.mask_heads.{n}", layers)
    layers = {f"layers.{m}": f"layers.{m}" for m in range(config.decoder.iou_layers)}
    yield from under(f"{DECODER}.iou_prediction_head", f"{DECODER}.iou_head", layers)


def vit(config: VitConfig) -> Iterator[Entry]:
    """The plain vision transformer."""
    yield Entry(f"{ENCODER}.patch_embed.proj", f"{ENCODER}.patches")
    yield Entry(f"{ENCODER}.pos_embed", f"{ENCODER}.position", bare=True)
    for n in range(config.layers):
        theirs = ours = f"{ENCODER}.blocks.{n}"
        yield from under(theirs, ours, BLOCK)
        yield from relative(theirs, ours)


def tiny(config: TinyVitConfig) -> Iterator[Entry]:
    """TinyViT; its classifier is of no use here."""
    for theirs, ours in (("0", "stem1"), ("2", "stem2")):
        yield from under(f"{ENCODER}.patch_embed.seq.{theirs}", f"{ENCODER}.{ours}", NORMED)
    convolutions = [f"conv{n}" for n in (1, 2, 3)]
    for stage, count in enumerate(config.blocks):
        theirs = f"{ENCODER}.layers.{stage}"
        for n in range(count):
            block, ours = f"{theirs}.blocks.{n}", f"{ENCODER}.stages.{stage}.{n}"
            if stage:
                yield from under(block, ours, TINY_BLOCK)
                biases = f"{block}.attn.attention_biases"
                yield Entry(biases, f"{ours}.attention.biases", bare=True)
            else:
                for name in convolutions:
                    yield from under(f"{block}.{name}", f"{ours}.{name}", NORMED)
        if stage < len(config.blocks) - 1:
            for name in convolutions:
                ours = f"{ENCODER}.between.{stage}.{name}"
                yield from under(f"{theirs}.downsample.{name}", ours, NORMED)
    yield from unused(f"{ENCODER}.norm_head", f"{ENCODER}.head")


def relative(theirs: str, ours: str) -> Iterator[Entry]:
    """The relative positions of one block; all files call them the same."""
    for a, b in (("rel_pos_h", "rows"), ("rel_pos_w", "columns")):
        yield Entry(f"{theirs}.attn.{a}", f"{ours}.attention.{b}", bare=True)


def bare(part: str, table: Table) -> Iterator[Entry]:
    """Embeddings, which are bare tensors here."""
    for a, b in table.items():
        yield Entry(f"{part}.{a}.weight", f"{part}.{b}", bare=True)


def transformer(config: DecoderConfig, block: Table, last_norm: str) -> Iterator[Entry]:
    """The decoder's transformer; files differ in what they call norms."""
    theirs = f"{DECODER}.transformer"
    for n in range(config.layers):
        layer, ours = f"{theirs}.layers.{n}", f"{DECODER}.blocks.{n}"
        yield from under(layer, ours, block)
        for a, b in ATTENTIONS.items():
            yield from under(f"{layer}.{a}", f"{ours}.{b}", ATTENTION)
    yield from under(f"{theirs}.final_attn_token_to_image", f"{DECODER}.last_attention", ATTENTION)
    yield Entry(f"{theirs}.{last_norm}", f"{DECODER}.last_norm")


PRESETS = {"sam-vit-b": SAM_B, "sam-vit-l": SAM_L, "sam-vit-h": SAM_H, "mobile-sam": MOBILE_SAM}
ORIGINAL = Layout("segment-anything", f"{ENCODER}.", original, Sam, PRESETS)


def sam_sizes(state: Mapping[str, Tensor]) -> SamConfig:
    """The config of a file without one, by its names and shapes.

    The decoder's heads are taken to be 8, and of MobileSAM's kind strides and size those that it
    was published with: no shape tells them.

    Raises:
        KeyError: a tensor that tells a size is missing.
        ValueError: the sizes do not fit each other.
    """
    channels, iou = state[f"{DECODER}.iou_token.weight"].shape[1], f"{DECODER}.iou_prediction_head"
    two_way = f"{DECODER}.transformer.layers"
    inner = state[f"{two_way}.0.cross_attn_token_to_image.q_proj.weight"].shape[0]
    decoder = DecoderConfig(
        layers=count(state, f"{two_way}."),
        hidden=state[f"{two_way}.0.mlp.lin1.weight"].shape[0],
        narrowing=channels // max(1, inner),
        candidates=state[f"{DECODER}.mask_tokens.weight"].shape[0] - 1,
        iou_hidden=state[f"{iou}.layers.0.weight"].shape[0],
        iou_layers=count(state, f"{iou}.layers."),
    )
    config = replace(
        MOBILE_SAM,
        channels=channels,
        mask_channels=state[f"{PROMPTS}.mask_downscaling.3.weight"].shape[0],
        decoder=decoder,
    )
    if f"{ENCODER}.pos_embed" not in state:
        return replace(config, encoder=tiny_sizes(state))
    encoder, grid = vit_sizes(state)
    return replace(config, encoder=encoder, size=grid * encoder.patch)


def vit_sizes(state: Mapping[str, Tensor]) -> tuple[VitConfig, int]:
    """The sizes of a plain encoder, and how many patches a side of the picture has."""
    _, grid, _, channels = state[f"{ENCODER}.pos_embed"].shape
    layers = range(count(state, f"{ENCODER}.blocks."))
    tables = [state[f"{ENCODER}.blocks.{n}.attn.rel_pos_h"].shape for n in layers]
    sides = [(length + 1) // 2 for length, _ in tables]
    config = VitConfig(
        patch=state[f"{ENCODER}.patch_embed.proj.weight"].shape[-1],
        channels=channels,
        layers=len(layers),
        heads=channels // max(1, tables[0][1]),
        hidden=state[f"{ENCODER}.blocks.0.mlp.lin1.weight"].shape[0],
        window=next((side for side in sides if side != grid), grid),
        global_layers=tuple(n for n in layers if sides[n] == grid),
    )
    return config, grid


def tiny_sizes(state: Mapping[str, Tensor]) -> TinyVitConfig:
    """The sizes of MobileSAM's kind of encoder."""
    layers = f"{ENCODER}.layers"
    stages = range(count(state, f"{layers}."))
    widths = [state[f"{ENCODER}.patch_embed.seq.2.c.weight"].shape[0]]
    widths += [state[f"{layers}.{n}.downsample.conv3.c.weight"].shape[0] for n in stages[:-1]]
    biases = [state[f"{layers}.{n}.blocks.0.attn.attention_biases"].shape for n in stages[1:]]
    return TinyVitConfig(
        channels=tuple(widths),
        blocks=tuple(count(state, f"{layers}.{n}.blocks.") for n in stages),
        heads=tuple(heads for heads, _ in biases),
        windows=tuple(isqrt(places) for _, places in biases),
        strides=(*(2 for _ in stages[2:]), 1),
        expansion=state[f"{layers}.0.blocks.0.conv1.c.weight"].shape[0] // max(1, widths[0]),
    )


def count(state: Mapping[str, Tensor], start: str) -> int:
    """How many different parts of names follow ``start``."""
    return len({name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)})
