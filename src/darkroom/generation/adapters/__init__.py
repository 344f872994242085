"""Adapters in a run: LoRAs, textual inversions, hypernetworks."""

from collections.abc import Sequence

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.generation.adapters import embedding, hypernetwork, lora
from darkroom.generation.feature import Feature


def with_adapters(
    model: LatentDiffusion, prompt: str, features: Sequence[Feature]
) -> tuple[Feature, ...]:
    """``features``, and what the prompts ask for by tags and words, if no feature takes those.

    Raises:
        PromptError: it is not there.
    """
    if any(feature.takes_adapters for feature in features):
        return tuple(features)
    negatives = (getattr(feature, "negative", None) for feature in features)
    texts = [prompt, *(text for text in negatives if isinstance(text, str))]
    tagged = hypernetwork.with_tags(prompt, lora.with_tags(prompt, features))
    return embedding.with_embeddings(model, texts, tagged)
