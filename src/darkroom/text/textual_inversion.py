"""The files of textual inversion (Gal et al., arXiv:2208.01618): a name, and vectors for it.

Four forms are public: A1111's ``string_to_param`` pickles, ``emb_params``, ``clip_l`` with
``clip_g`` for XL, and diffusers' ``learned_embeds``, which are named by their only key.
"""

from collections.abc import Mapping

from torch import Tensor

from darkroom.errors import CheckpointError


def read_embedding(content: object, stem: str) -> tuple[str, tuple[Tensor, ...]]:
    """The name under which prompts find an embedding, and its vectors.

    Args:
        content: What the file holds, read by ``darkroom.weights.files``.
        stem: The file's name without its ending: the embedding's name, except in diffusers' form.

    Returns:
        The name, and vectors (n, C) for each text tower that the embedding was made for; for
        ``PromptEncoder.with_embeddings``.

    Raises:
        CheckpointError: The content is of none of the public forms.
    """
    if isinstance(content, Mapping):
        nested = content.get("string_to_param")
        if isinstance(nested, Mapping) and len(nested) == 1:  # its key is "*", or another token
            return stem, (_vectors(next(iter(nested.values())), stem),)
        if "emb_params" in content:
            return stem, (_vectors(content["emb_params"], stem),)
        if "clip_l" in content and "clip_g" in content:
            return stem, tuple(_vectors(content[key], stem) for key in ("clip_l", "clip_g"))
        if "clip_g" in content:
            return stem, (_vectors(content["clip_g"], stem),)
        if len(content) == 1:
            ((name, value),) = content.items()
            return str(name), (_vectors(value, stem),)
    raise CheckpointError(
        f"{stem}: not a textual inversion; expected string_to_param, emb_params, clip_l with "
        "clip_g, or one named tensor"
    )


def _vectors(value: object, stem: str) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or not value.numel():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"{stem}: vectors of shape (n, width) are expected, got {shape}")
    return value.detach().reshape(-1, value.shape[-1])
