"""What a picture file says about how it was drawn."""

from darkroom.generation.metadata.files import read_params
from darkroom.generation.metadata.params import (
    Origin,
    Params,
    SourceImage,
    UsedAnnotator,
    UsedControl,
    UsedDepth,
    UsedEmbedding,
    UsedHypernetwork,
    UsedInpaint,
    UsedLora,
    UsedNoise,
    UsedRefiner,
    UsedSelection,
    UsedSizes,
)

__all__ = [
    "Origin",
    "Params",
    "SourceImage",
    "UsedAnnotator",
    "UsedControl",
    "UsedDepth",
    "UsedEmbedding",
    "UsedHypernetwork",
    "UsedInpaint",
    "UsedLora",
    "UsedNoise",
    "UsedRefiner",
    "UsedSelection",
    "UsedSizes",
    "read_params",
]
