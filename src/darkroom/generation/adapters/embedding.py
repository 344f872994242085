"""Textual inversions in a run: words of a prompt that stand for trained vectors."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from torch import Tensor

from darkroom.arguments import items, shown
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ArgumentError, ConfigError, ModelMismatchError, ModelNotFoundError
from darkroom.generation.adapters.lora import Lora
from darkroom.generation.feature import Feature, Run
from darkroom.generation.metadata.params import Params, UsedEmbedding
from darkroom.text.encoder import PromptEncoder, Tower
from darkroom.weights.adapters.embeddings import (
    EmbeddingFile,
    fit_embedding,
    is_mentioned,
    mentioned,
    open_embedding,
)
from darkroom.weights.adapters.lora import FAMILIES


class Embedding(Feature):
    """Let a word of the prompts stand for a textual inversion.

    ``generate`` finds those in model folders by itself, by their files' names; this is for others.

    Args:
        source: a path, a registered name, a file's name in a model folder; or vectors (n, C), for
            each text tower.
        name: the word; None is the file's name, and the token that it was trained as. Vectors
            need one.

    Raises:
        ConfigError: vectors without a name.
        ModelNotFoundError: there is no such file.
        CheckpointError: it is no textual inversion; at the run: it is for another model.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Tensor | Sequence[Tensor],
        name: str | None = None,
    ) -> None:
        if isinstance(source, str | os.PathLike):
            self.file = open_embedding(source)
            if name is not None:
                self.file = replace(self.file, words=(name,))
        elif name is None:
            raise ConfigError("Embedding of vectors: name=... is missing, the word for them")
        else:
            some = "a file, a name, or tensors (n, C)"
            given = [source] if isinstance(source, Tensor) else items("embedding", source, some)
            vectors = tuple(given)
            if not vectors or not all(isinstance(one, Tensor) for one in vectors):
                raise ArgumentError(f"embedding {shown(source)}: expected {some}")
            self.file = EmbeddingFile(name=name, words=(name,), vectors=vectors)
        self.found = False  # by a word of the prompt, rather than asked for
        self.used = True
        self.bundled = False  # it lies in the file of a LoRA, which metadata name

    @classmethod
    def of(cls, file: EmbeddingFile) -> Self:
        """One that lies in the file of a LoRA, for prompts that have its word."""
        embedding = cls(file.vectors, file.name)
        embedding.found = embedding.bundled = True
        return embedding

    def among(self, texts: Sequence[str]) -> Self:
        """Itself, knowing whether these prompts use it."""
        known = copy.copy(self)
        known.used = any(is_mentioned(word, text) for word in self.file.words for text in texts)
        return known

    def prepare(self, run: Run) -> Run:
        words, encoder = ", ".join(map(repr, self.file.words)), run.model.text_encoder
        if not self.used and self.found:
            return run
        if not self.used:
            note = f"textual inversion {self.file.name}: no prompt has its word, {words}"
            return replace(run, notes=(*run.notes, note))
        if not isinstance(encoder, PromptEncoder):
            raise ModelMismatchError(
                f"{self.file.name}: this model's text encoder takes no textual inversion"
            )
        towers = [tower for tower in encoder.towers if isinstance(tower, Tower)]
        widths = [tower.model.config.channels for tower in towers]
        try:
            vectors = fit_embedding(self.file, widths, FAMILIES.get(run.model.family, ""))
        except ModelMismatchError as error:
            if not self.found:
                raise
            self.used = False
            return replace(run, notes=(*run.notes, f"{words} is read as words: {error}"))
        encoder = encoder.with_embeddings(dict.fromkeys(self.file.words, vectors))
        return replace(run, model=replace(run.model, text_encoder=encoder), encoded={})

    def describe(self) -> Mapping[str, Any]:
        if not self.used or self.bundled:
            return {}
        used = UsedEmbedding(name=self.file.name, sha256=self.file.sha256)
        return {"embeddings": (used,)}


def with_embeddings(
    model: LatentDiffusion, texts: Sequence[str], features: Sequence[Feature]
) -> tuple[Feature, ...]:
    """``features``, and before them the textual inversions that prompts call by name.

    Those in the file of a LoRA among ``features`` come first, then those in model folders.
    """
    bundled = [
        Embedding.of(file) for f in features if isinstance(f, Lora) for file in f.file.embeddings
    ]
    given = [f.among(texts) if isinstance(f, Embedding) else f for f in (*bundled, *features)]
    if not isinstance(model.text_encoder, PromptEncoder):
        return tuple(given)
    taken = {word.lower() for f in given if isinstance(f, Embedding) for word in f.file.words}
    taken |= model.text_encoder.embeddings.keys()
    found: dict[object, Embedding] = {}
    for word, path in mentioned(texts):
        if word not in taken and path not in found:
            found[path] = Embedding(path)
            found[path].found = True
    return (*found.values(), *given)


def again(params: Params, *, exact: bool = True) -> list[Feature]:
    """The textual inversions of a picture.

    Args:
        exact: refuse another file of the same name.

    Raises:
        ModelNotFoundError: one is missing.
        ModelMismatchError: one is another file than it was.
        ConfigError: one was given as vectors.
    """
    features: list[Feature] = []
    for used in params.embeddings:
        said = f"the picture was drawn with the textual inversion {used.name!r}"
        if not used.sha256:
            raise ConfigError(f"{said}, given as vectors: pass the Embedding to generate()")
        try:
            embedding = Embedding(used.name)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{said} (SHA-256 {used.sha256[:10]}...): {error}") from None
        if exact and embedding.file.sha256 != used.sha256:
            raise ModelMismatchError(
                f"{said} of SHA-256 {used.sha256[:10]}..., the one found has "
                f"{embedding.file.sha256[:10]}...: put that file back, or draw another picture "
                "with exact=False"
            )
        embedding.found = not exact  # another prompt may have other words
        features.append(embedding)
    return features


def check_same(drawn: Params, wanted: Params) -> None:
    """Refuse a redraw whose words mean other textual inversions than they did.

    Raises:
        ModelMismatchError: naming them.
    """
    new = {used.name for used in drawn.embeddings} - {used.name for used in wanted.embeddings}
    if new:
        raise ModelMismatchError(
            f"the prompt's {', '.join(map(repr, sorted(new)))} is a textual inversion now, which "
            "it was not when the picture was drawn: take the file away, or draw with exact=False"
        )
