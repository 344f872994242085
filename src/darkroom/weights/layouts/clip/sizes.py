"""The sizes of a CLIP by its names and shapes, for files that come without a config.

Shapes do not tell heads, nor which GELU: heads go by width, as in all published models; the GELU
is for the caller to say.
"""

import re
from collections.abc import Iterable, Mapping
from math import isqrt

from torch import Tensor

from darkroom.models.clip.modified_resnet import STRIDE, AttentionResNetConfig
from darkroom.models.clip.network import ClipConfig
from darkroom.models.clip.presets import HEAD, heads_of
from darkroom.models.clip.view import View
from darkroom.models.clip.vision_transformer import VisionConfig
from darkroom.models.clip_text import TextConfig

State = Mapping[str, Tensor]


def openai_sizes(state: State, quick_gelu: bool) -> ClipConfig:
    """Of OpenAI's or open_clip's names.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a shape is that of no CLIP.
    """
    if "visual.layer1.0.conv1.weight" in state:
        image: VisionConfig | AttentionResNetConfig = _resnet(state)
    else:
        image = _vision(
            state,
            ("visual.conv1.weight", "visual.positional_embedding"),
            ("visual.transformer.resblocks.", "mlp.c_fc.weight"),
            _shape(state, "visual.proj", 2)[1],
            quick_gelu,
        )
    text = _text(
        state,
        ("token_embedding.weight", "positional_embedding"),
        ("transformer.resblocks.", "mlp.c_fc.weight"),
        _shape(state, "text_projection", 2)[1],
        quick_gelu,
    )
    return ClipConfig(image=image, text=text, view=View(size=image.size))


def huggingface_sizes(state: State, quick_gelu: bool) -> ClipConfig:
    """Of transformers' names; raises as ``openai_sizes``."""
    places = ("embeddings.position_embedding.weight", "encoder.layers.", "mlp.fc1.weight")
    position, layers, up = places
    image = _vision(
        state,
        ("vision_model.embeddings.patch_embedding.weight", f"vision_model.{position}"),
        (f"vision_model.{layers}", up),
        _shape(state, "visual_projection.weight", 2)[0],
        quick_gelu,
    )
    text = _text(
        state,
        ("text_model.embeddings.token_embedding.weight", f"text_model.{position}"),
        (f"text_model.{layers}", up),
        _shape(state, "text_projection.weight", 2)[0],
        quick_gelu,
    )
    return ClipConfig(image=image, text=text, view=View(size=image.size))


def _vision(
    state: State,
    names: tuple[str, str],
    blocks: tuple[str, str],
    projection: int,
    quick_gelu: bool,
) -> VisionConfig:
    width, _, patch, _ = _shape(state, names[0], 4)
    places, _ = _shape(state, names[1], 2)
    if isqrt(places - 1) ** 2 != places - 1:
        raise ValueError(f"{places} places are no square of patches and one more")
    heads = heads_of(width)
    if not heads or width % heads:
        raise ValueError(f"{width} channels; how many heads they have, only a config can say")
    return VisionConfig(
        size=isqrt(places - 1) * patch,
        patch=patch,
        channels=width,
        layers=_count(state, blocks[0]),
        heads=heads,
        hidden=_shape(state, f"{blocks[0]}0.{blocks[1]}", 2)[0],
        quick_gelu=quick_gelu,
        projection=projection,
    )


def _resnet(state: State) -> AttentionResNetConfig:
    width = _shape(state, "visual.layer1.0.conv1.weight", 4)[0]
    places, _ = _shape(state, "visual.attnpool.positional_embedding", 2)
    if isqrt(places - 1) ** 2 != places - 1:
        raise ValueError(f"{places} places are no square")
    stages = _count(state, "visual.layer")  # counted from 1
    return AttentionResNetConfig(
        size=isqrt(places - 1) * STRIDE,
        channels=width,
        blocks=tuple(_count(state, f"visual.layer{stage}.") for stage in range(1, stages + 1)),
        heads=max(width * 32 // HEAD, 1),
        projection=_shape(state, "visual.attnpool.c_proj.weight", 2)[0],
    )


def _text(
    state: State,
    names: tuple[str, str],
    blocks: tuple[str, str],
    projection: int,
    quick_gelu: bool,
) -> TextConfig:
    vocabulary, width = _shape(state, names[0], 2)
    return TextConfig(
        vocabulary=vocabulary,
        positions=_shape(state, names[1], 2)[0],
        channels=width,
        layers=_count(state, blocks[0]),
        heads=max(width // HEAD, 1),
        hidden=_shape(state, f"{blocks[0]}0.{blocks[1]}", 2)[0],
        quick_gelu=quick_gelu,
        projection=projection,
        end=vocabulary - 1,  # the largest id, as their ``argmax`` has it
    )


def _shape(state: State, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise ValueError(f"{name} {shape} should have {dimensions} dimensions")
    return shape


def _count(names: Iterable[str], prefix: str) -> int:
    """How many different numbers follow the prefix."""
    numbered = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in names if (match := numbered.match(name))})
