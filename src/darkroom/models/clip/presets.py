"""The sizes that published CLIP models have: OpenAI's nine, and open_clip's."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from darkroom.models.clip.modified_resnet import AttentionResNetConfig
from darkroom.models.clip.network import ClipConfig
from darkroom.models.clip.view import View
from darkroom.models.clip.vision_transformer import VisionConfig
from darkroom.models.clip_text import TextConfig

HEAD = 64  # channels of a head, but for these widths of an image tower:
WIDER_HEADS: Mapping[int, int] = MappingProxyType({1280: 80, 1408: 88, 1664: 104, 1792: 112})


def heads_of(width: int) -> int:
    """How many heads the published image transformers of this width have."""
    return width // WIDER_HEADS.get(width, HEAD)


def _texts(width: int, projection: int, layers: int = 12) -> TextConfig:
    return TextConfig(
        channels=width,
        layers=layers,
        heads=width // HEAD,
        hidden=4 * width,
        projection=projection,
    )


def _vit(
    size: int, patch: int, width: int, layers: int, text: TextConfig, hidden: int = 0
) -> ClipConfig:
    image = VisionConfig(
        size=size,
        patch=patch,
        channels=width,
        layers=layers,
        heads=heads_of(width),
        hidden=hidden or 4 * width,
        projection=text.projection,
    )
    return ClipConfig(image=image, text=text, view=View(size=size))


def _resnet(size: int, width: int, blocks: tuple[int, ...], text: TextConfig) -> ClipConfig:
    image = AttentionResNetConfig(
        size=size, channels=width, blocks=blocks, heads=width // 2, projection=text.projection
    )
    return ClipConfig(image=image, text=text, view=View(size=size))


OPENAI: Mapping[str, ClipConfig] = MappingProxyType(
    {
        "RN50": _resnet(224, 64, (3, 4, 6, 3), _texts(512, 1024)),
        "RN101": _resnet(224, 64, (3, 4, 23, 3), _texts(512, 512)),
        "RN50x4": _resnet(288, 80, (4, 6, 10, 6), _texts(640, 640)),
        "RN50x16": _resnet(384, 96, (6, 8, 18, 8), _texts(768, 768)),
        "RN50x64": _resnet(448, 128, (3, 15, 36, 10), _texts(1024, 1024)),
        "ViT-B/32": _vit(224, 32, 768, 12, _texts(512, 512)),
        "ViT-B/16": _vit(224, 16, 768, 12, _texts(512, 512)),
        "ViT-L/14": _vit(224, 14, 1024, 24, _texts(768, 768)),
        "ViT-L/14@336px": _vit(336, 14, 1024, 24, _texts(768, 768)),
    }
)


def with_gelu(config: ClipConfig, quick: bool) -> ClipConfig:
    """The same sizes with QuickGELU, or with GELU, in each tower that has one of them."""
    image = config.image
    if isinstance(image, VisionConfig):
        image = replace(image, quick_gelu=quick)
    return replace(config, image=image, text=replace(config.text, quick_gelu=quick))


OPEN_CLIP: Mapping[str, ClipConfig] = MappingProxyType(
    {
        name: with_gelu(config, quick=False)
        for name, config in {
            "ViT-B-32": OPENAI["ViT-B/32"],
            "ViT-B-32-256": _vit(256, 32, 768, 12, _texts(512, 512)),
            "ViT-B-16": OPENAI["ViT-B/16"],
            "ViT-B-16-plus-240": _vit(240, 16, 896, 12, _texts(640, 640)),
            "ViT-L-14": OPENAI["ViT-L/14"],
            "ViT-L-14-336": OPENAI["ViT-L/14@336px"],
            "ViT-H-14": _vit(224, 14, 1280, 32, _texts(1024, 1024, 24)),
            "ViT-H-14-378": _vit(378, 14, 1280, 32, _texts(1024, 1024, 24)),
            "ViT-g-14": _vit(224, 14, 1408, 40, _texts(1024, 1024, 24), hidden=6144),
            "ViT-bigG-14": _vit(224, 14, 1664, 48, _texts(1280, 1280, 32), hidden=8192),
        }.items()
    }
)
