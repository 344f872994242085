"""Where checkpoints keep both towers of CLIP.

OpenAI's archives and open_clip have the same names; transformers has its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from darkroom.models.clip.modified_resnet import AttentionResNetConfig
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.presets import OPEN_CLIP, OPENAI
from darkroom.models.clip.vision_transformer import VisionConfig, VisionTransformer
from darkroom.weights.layout import TRANSPOSED, Entry, Layout, Table, under, unused
from darkroom.weights.layouts import clip_text

EXTRAS = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI's archives hold
VISION: Table = {
    "conv1": "patches",
    "ln_pre": "norm_before",
    "ln_post": "norm_after",
}
STEM: Table = {
    "conv1": "stem.0", "bn1": "stem.1",
    "conv2": "stem.3", "bn2": "stem.4",
    "conv3": "stem.6", "bn3": "stem.7",
}  # fmt: skip
BOTTLENECK: Table = {
    "conv1": "conv1", "bn1": "norm1",
    "conv2": "conv2", "bn2": "norm2",
    "conv3": "conv3", "bn3": "norm3",
    "downsample.0": "skip.0", "downsample.1": "skip.1",
}  # fmt: skip
POOL: Table = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "c_proj": "out"}
HUGGINGFACE_VISION: Table = {
    "embeddings.patch_embedding": "patches",
    "pre_layrnorm": "norm_before",
    "post_layernorm": "norm_after",
}


def openai(config: ClipConfig) -> Iterator[Entry]:
    """OpenAI's names, and open_clip's: q, k and v are one, projections are (width, P)."""
    if isinstance(config.image, VisionConfig):
        yield from _vision(config.image)
    else:
        yield from _resnet(config.image)
    yield from _inside(clip_text.openclip(config.text))
    yield Entry("logit_scale", "log_scale", bare=True)
    yield from unused("attn_mask", *EXTRAS)


def _vision(config: VisionConfig) -> Iterator[Entry]:
    yield from under("visual", "image", VISION)
    yield Entry("visual.class_embedding", "image.token", bare=True)
    yield Entry("visual.positional_embedding", "image.position", bare=True)
    for n in range(config.layers):
        yield from clip_text.openclip_block(
            f"visual.transformer.resblocks.{n}", f"image.blocks.{n}"
        )
    yield Entry("visual.proj", "image.projection.weight", TRANSPOSED, bare=True)


def _resnet(config: AttentionResNetConfig) -> Iterator[Entry]:
    yield from under("visual", "image", STEM)
    for stage, count in enumerate(config.blocks):
        for block in range(count):
            yield from under(
                f"visual.layer{stage + 1}.{block}", f"image.stage.{stage}.{block}", BOTTLENECK
            )
    yield Entry("visual.attnpool.positional_embedding", "image.pool.position", bare=True)
    yield from under("visual.attnpool", "image.pool", POOL)


def huggingface(config: ClipConfig) -> Iterator[Entry]:
    """The names of transformers' CLIPModel."""
    assert isinstance(config.image, VisionConfig), "transformers has no CLIP with a ResNet"
    yield from _huggingface_vision(config.image, "vision_model.", "image.")
    yield from _inside(clip_text.huggingface(config.text))
    yield Entry("logit_scale", "log_scale", bare=True)
    yield from unused("text_model.embeddings.position_ids")


def huggingface_vision(config: VisionConfig) -> Iterator[Entry]:
    """The names of transformers' CLIPVisionModel and CLIPVisionModelWithProjection.

    Files have the prefix ``vision_model.`` or not, according to the version that wrote them.
    """
    for start in ("vision_model.", ""):
        yield from _huggingface_vision(config, start, "")
    yield from unused("logit_scale", "text_model", "text_projection")  # of a whole CLIP


def _huggingface_vision(config: VisionConfig, theirs: str, ours: str) -> Iterator[Entry]:
    for a, b in HUGGINGFACE_VISION.items():
        yield Entry(f"{theirs}{a}", f"{ours}{b}")
    yield Entry(f"{theirs}embeddings.class_embedding", f"{ours}token", bare=True)
    yield Entry(f"{theirs}embeddings.position_embedding.weight", f"{ours}position", bare=True)
    yield from unused(f"{theirs}embeddings.position_ids")
    for n in range(config.layers):
        yield from under(
            f"{theirs}encoder.layers.{n}", f"{ours}blocks.{n}", clip_text.HUGGINGFACE_BLOCK
        )
    if config.projection:
        yield Entry("visual_projection", f"{ours}projection")
    else:
        yield from unused("visual_projection")


def _inside(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries of a text tower alone, for one that is a part; what it leaves out, it names not."""
    for entry in entries:
        if entry.targets:
            yield replace(entry, ours=tuple(f"text.{target}" for target in entry.targets))


OPENAI_LAYOUT = Layout("openai", "visual.", openai, Clip, {**OPENAI, **OPEN_CLIP})
HUGGINGFACE = Layout("transformers", "vision_model.", huggingface, Clip, OPENAI)
HUGGINGFACE_VISION_LAYOUT = Layout(
    "transformers",
    "vision_model.",
    huggingface_vision,
    VisionTransformer,
    {"ViT-B/32": VisionConfig()},
)
