"""Where checkpoints keep CLIP's text tower: as transformers or as OpenCLIP write it."""

from collections.abc import Iterator

from darkroom.models.clip_text import (
    CLIP_L,
    OPENCLIP_BIGG,
    OPENCLIP_H,
    ClipTextModel,
    TextConfig,
)
from darkroom.weights.layout import TRANSPOSED, Entry, Layout, Table, under, unused

HUGGINGFACE_BLOCK: Table = {
    "layer_norm1": "norm1",
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.out_proj": "attention.out",
    "layer_norm2": "norm2",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
}
OPENCLIP_BLOCK: Table = {
    "ln_1": "norm1",
    "attn.out_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}


def huggingface(config: TextConfig, prefix: str = "text_model.") -> Iterator[Entry]:
    """The names of transformers' CLIPTextModel and CLIPTextModelWithProjection.

    Files have the prefix ``text_model.`` or not, according to the version that wrote them; both
    are read, and the prefix is written.
    """
    for start in (prefix, ""):
        yield Entry(f"{start}embeddings.token_embedding", "token")
        yield Entry(f"{start}embeddings.position_embedding", "position")
        for n in range(config.layers):
            yield from under(f"{start}encoder.layers.{n}", f"blocks.{n}", HUGGINGFACE_BLOCK)
        yield Entry(f"{start}final_layer_norm", "norm")
        yield from unused(f"{start}embeddings.position_ids")
    if config.projection:
        yield Entry("text_projection", "projection")
    else:
        yield from unused("text_projection")
    yield from unused("logit_scale", "vision_model", "visual_projection")  # of a whole CLIP


def openclip(config: TextConfig) -> Iterator[Entry]:
    """OpenCLIP, without the prefix ``cond_stage_model.model.`` or the like.

    q, k and v are one parameter; the projection is a (width, projection) parameter, used as
    ``x @ p``. Stable Diffusion 2 uses 23 of 24 layers and no projection: a tower may have
    fewer layers than the file.
    """
    yield Entry("token_embedding", "token")
    yield Entry("positional_embedding", "position.weight", bare=True)
    for n in range(config.layers):
        yield from openclip_block(f"transformer.resblocks.{n}", f"blocks.{n}")
    yield from unused(f"transformer.resblocks.{config.layers}")  # the one that SD 2 leaves out
    yield Entry("ln_final", "norm")
    if config.projection:
        yield Entry("text_projection", "projection.weight", TRANSPOSED, bare=True)
    else:
        yield from unused("text_projection")
    yield from unused("logit_scale", "attn_mask", "visual")


def openclip_block(theirs: str, ours: str) -> Iterator[Entry]:
    """One block of a tower of OpenCLIP's, whose q, k and v are one parameter."""
    yield from under(theirs, ours, OPENCLIP_BLOCK)
    for leaf in ("weight", "bias"):
        parts = tuple(f"{ours}.attention.{name}.{leaf}" for name in "qkv")
        yield Entry(f"{theirs}.attn.in_proj_{leaf}", parts, bare=True)


PRESETS = {"clip-l": CLIP_L, "openclip-h": OPENCLIP_H, "openclip-bigg": OPENCLIP_BIGG}
HUGGINGFACE = Layout("transformers", "text_model.embeddings.", huggingface, ClipTextModel, PRESETS)
HUGGINGFACE_BARE = Layout("transformers", "embeddings.", huggingface, ClipTextModel, PRESETS)
OPENCLIP = Layout("openclip", "transformer.resblocks.", openclip, ClipTextModel, PRESETS)
LAYOUTS = (HUGGINGFACE, HUGGINGFACE_BARE, OPENCLIP)
