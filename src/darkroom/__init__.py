"""Darkroom: generate, edit, control, segment, search and train with latent-diffusion models.

    import darkroom as dr
    model = dr.load("emoji")
    pictures = dr.develop(model, "a red fox", dr.Guidance(7.5), seeds=[7])

Importing costs nothing: each name is fetched from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.app.drawing.replace import replace
    from darkroom.errors import DarkroomError
    from darkroom.generation.adapters.embedding import Embedding
    from darkroom.generation.adapters.hypernetwork import Hypernetwork
    from darkroom.generation.adapters.lora import Lora
    from darkroom.generation.control import Control
    from darkroom.generation.control.depth import DepthGuide
    from darkroom.generation.generate import develop, generate
    from darkroom.generation.guidance import Guidance
    from darkroom.generation.image import ImageToImage
    from darkroom.generation.inpaint import Inpaint
    from darkroom.generation.picture import Picture
    from darkroom.generation.xl.refiner import Refiner
    from darkroom.generation.xl.sizes import SizeConditioning
    from darkroom.masks import Mask
    from darkroom.tracing import summary, trace
    from darkroom.vision.encoder import open_encoder
    from darkroom.vision.segment import Prompt, open_segmenter
    from darkroom.vision.select import select
    from darkroom.weights.load import load
    from darkroom.weights.save import save

__version__ = "0.1.0"
__all__ = [
    "Control",
    "DarkroomError",
    "DepthGuide",
    "Embedding",
    "Guidance",
    "Hypernetwork",
    "ImageToImage",
    "Inpaint",
    "Lora",
    "Mask",
    "Picture",
    "Prompt",
    "Refiner",
    "SizeConditioning",
    "develop",
    "generate",
    "load",
    "open_encoder",
    "open_segmenter",
    "replace",
    "save",
    "select",
    "summary",
    "trace",
]

_HOMES = {
    "Control": "generation.control",
    "DarkroomError": "errors",
    "DepthGuide": "generation.control.depth",
    "Embedding": "generation.adapters.embedding",
    "Guidance": "generation.guidance",
    "Hypernetwork": "generation.adapters.hypernetwork",
    "ImageToImage": "generation.image",
    "Inpaint": "generation.inpaint",
    "Lora": "generation.adapters.lora",
    "Mask": "masks",
    "Picture": "generation.picture",
    "Prompt": "vision.segment",
    "Refiner": "generation.xl.refiner",
    "SizeConditioning": "generation.xl.sizes",
    "develop": "generation.generate",
    "generate": "generation.generate",
    "load": "weights.load",
    "open_encoder": "vision.encoder",
    "open_segmenter": "vision.segment",
    "replace": "app.drawing.replace",
    "save": "weights.save",
    "select": "vision.select",
    "summary": "tracing",
    "trace": "tracing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from darkroom.keywords import instead

        raise AttributeError(instead("module 'darkroom'", name))
    value = getattr(import_module(f"darkroom.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
