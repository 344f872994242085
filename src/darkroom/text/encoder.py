"""Prompts to Conditioning: one text tower (Stable Diffusion 1 and 2) or two (XL).

Shapes: B prompts, U different chunks, S positions, C channels of all towers together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from darkroom.diffusion.conditioning import Conditioning
from darkroom.errors import ModelMismatchError, PromptError
from darkroom.models.clip_text import ClipTextModel
from darkroom.nn.embedding import sinusoid
from darkroom.text.chunks import Chunk, Chunker
from darkroom.text.plan import Part, PromptPlan, Report, Segment
from darkroom.text.prompt import (
    LoraRequest,
    Piece,
    Subprompt,
    check_text,
    extract_loras,
    parse_emphasis,
    parse_parts,
    parse_schedule,
    sections,
)
from darkroom.text.sizes import Sizes
from darkroom.text.tokenizer import Tokenizer

MOST_SIDES = 32  # of AND: each is a call of the network at every step
MOST_LETTERS = 1_000_000  # of the different texts of one prompt
MOST_ENCODED = 2_000  # chunks of them
_BATCH = 16  # chunks that a tower encodes at once


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How prompts are read."""

    clip_skip: int = 0  # layers left out at the end, beyond those that the checkpoint leaves out
    weighting: Literal["a1111", "no_norm", "none"] = "a1111"  # none: brackets are characters
    lookback: int = 20  # tokens after a comma that may move to the next chunk
    sizes: Sizes = field(default_factory=Sizes)  # what XL is told besides
    negative_sizes: Sizes | None = None  # of what guidance compares with; None = the same, unscored

    def __post_init__(self) -> None:
        if self.weighting not in ("a1111", "no_norm", "none"):
            raise ValueError(f"weighting is {self.weighting!r}: a1111, no_norm or none is expected")
        if self.clip_skip < 0 or self.lookback < 0:
            raise ValueError(
                f"clip_skip is {self.clip_skip}, lookback {self.lookback}: neither may be negative"
            )


class Tower(nn.Module):
    """A text model with its tokenizer, and what the checkpoint takes from it.

    Args:
        layer: Which of the hidden states: -1 is the last (Stable Diffusion 1, and 2 in the usual
            form without its last layer), -2 the one before (XL).
        norm: Whether the final layer norm follows. XL leaves it out.
    """

    def __init__(
        self, model: ClipTextModel, tokenizer: Tokenizer, layer: int = -1, norm: bool = True
    ) -> None:
        super().__init__()
        config = model.config
        if not -config.layers <= layer <= -1:
            raise ValueError(f"layer is {layer}: -1 to -{config.layers} is expected")
        if max(tokenizer.vocab.values()) >= config.vocabulary:
            raise ModelMismatchError(
                f"the tokenizer has ids up to {max(tokenizer.vocab.values())}, the text tower a "
                f"vocabulary of {config.vocabulary}: use the tokenizer of this checkpoint"
            )
        self.model, self.tokenizer, self.layer, self.norm = model, tokenizer, layer, norm

    def encode(
        self, chunks: Sequence[Chunk], embeddings: Mapping[str, Tensor], clip_skip: int
    ) -> tuple[Tensor, Tensor | None]:
        """Features (U, S, C) of chunks, and their projected pooled output where there is one."""
        config = self.model.config
        layer = self.layer - clip_skip
        if -layer > config.layers:
            raise ValueError(
                f"clip_skip is {clip_skip}: this tower of {config.layers} layers allows at most "
                f"{config.layers + self.layer}"
            )
        weight = self.model.token.weight
        ids = torch.tensor([chunk.ids for chunk in chunks], device=weight.device)
        embeds = None
        if any(chunk.vectors for chunk in chunks):
            embeds = self.model.token(ids)
            for row, chunk in enumerate(chunks):
                for position, name, which in chunk.vectors:
                    embeds[row, position] = embeddings[name][which].to(weight)
        output = self.model(ids, embeds)
        if layer == -1 and self.norm:
            return output.last, output.projected
        features = output.hidden[layer]
        return self.model.norm(features) if self.norm else features, output.projected


class PromptEncoder(nn.Module):
    """The text encoder of a latent-diffusion model.

    Calling it takes prompts as they stand, as in training or in diffusers; ``plan`` reads them in
    the prompt language.

    Args:
        towers: In the order in which the U-Net expects their channels. The last one with a
            projection gives the pooled output.
        options: How prompts are read; see ``with_options``.
        size_channels: Width of the features of each size number that the U-Net is told, 256 for
            XL; 0 = it is told no size.
        scored: Whether the last two of them are one aesthetic score, as for the XL refiner.
        zero_unconditional: Whether the unconditional text is zeros rather than the empty prompt
            (``force_zeros_for_empty_prompt``).
        embeddings: Textual inversions by name: vectors (n, C) for each tower in turn.
    """

    def __init__(
        self,
        towers: Sequence[Tower],
        options: TextOptions | None = None,
        *,
        size_channels: int = 0,
        scored: bool = False,
        zero_unconditional: bool = False,
        embeddings: Mapping[str, Tensor | Sequence[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        if not towers:
            raise ValueError("a prompt encoder needs at least one text tower")
        self.towers = nn.ModuleList(towers)
        self.options = options or TextOptions()
        self.size_channels, self.scored = size_channels, scored
        self.zero_unconditional = zero_unconditional
        self.embeddings = {
            name.lower(): self._checked(name, vectors)
            for name, vectors in (embeddings or {}).items()
        }

    def with_options(self, **changes: object) -> "PromptEncoder":
        """The same towers, read with other options (the fields of ``TextOptions``)."""
        return self._changed(options=replace(self.options, **changes))  # pyright: ignore[reportArgumentType]

    def with_embeddings(
        self, embeddings: Mapping[str, Tensor | Sequence[Tensor]]
    ) -> "PromptEncoder":
        """The same towers with further textual inversions, found by name in any prompt.

        Args:
            embeddings: Vectors (n, C) by name; for two towers, one such tensor for each.

        Raises:
            ModelMismatchError: The vectors are not of the towers' width.
        """
        return self._changed(embeddings={**self.embeddings, **embeddings})

    def forward(self, prompts: Sequence[str], size: tuple[int, int] | None = None) -> Conditioning:
        """Encode prompts as they stand: brackets are characters.

        Args:
            prompts: Texts of any length; shorter ones are filled up with empty chunks.
            size: (height, width) of the picture; needed by models that are told it.

        Returns:
            text (B, chunks * S, C), and vector where the model takes one.
        """
        texts = [[[Piece(prompt, 1.0)]] for prompt in prompts]
        if isinstance(prompts, str) or not texts:
            raise ValueError(f"a list of prompts is expected, got {prompts!r:.40}")
        encoded = self._encode(texts, size, together=True)
        return encoded[0].stacked(*encoded[1:])

    def plan(
        self,
        prompt: str | None,
        steps: int,
        size: tuple[int, int] | None = None,
        negative: bool = False,
    ) -> PromptPlan:
        """Encode a prompt in the language of ``darkroom.text.prompt``, each different text once.

        Args:
            prompt: None is the unconditional prompt.
            steps: Of the run.
            size: (height, width) of the picture; needed by models that are told it.
            negative: Told the negative sizes; the unconditional prompt always is.

        Raises:
            PromptError: An embedding is longer than a chunk.
        """
        if prompt is None:
            cond = self.unconditional(size)
            return PromptPlan((Segment(steps, (Part(cond, 1.0),)),), self._report("", [""], ()))
        words, loras = extract_loras(check_text(prompt))
        parts = _sides(words)
        schedules = [parse_schedule(part.text, steps) for part in parts]
        texts = _distinct(schedules)
        encoded = self._encode([self._sections(text) for text in texts], size, negative=negative)
        conds = dict(zip(texts, encoded, strict=True))
        segments: list[Segment] = []
        said: tuple[str, ...] = ()
        for until in sorted({until for schedule in schedules for until, _ in schedule}):
            saying = tuple(_at(schedule, until) for schedule in schedules)
            if segments and saying == said:
                segments[-1] = replace(segments[-1], until=until)
                continue
            said = saying
            pairs = zip(said, parts, strict=True)
            sides = tuple(Part(conds[text], part.weight) for text, part in pairs)
            segments.append(Segment(until, sides))
        return PromptPlan(tuple(segments), self._report(words, texts, tuple(loras)))

    def unconditional(self, size: tuple[int, int] | None = None) -> Conditioning:
        """What guidance compares with when there is no negative prompt: (1, S, C)."""
        cond = self._encode([[[Piece("", 1.0)]]], size, negative=True)[0]
        if not self.zero_unconditional:
            return cond
        vector = cond.vector
        if vector is not None:
            pooled = vector.shape[1] - (5 if self.scored else 6) * self.size_channels
            vector = torch.cat((torch.zeros_like(vector[:, :pooled]), vector[:, pooled:]), dim=1)
        return replace(cond, text=torch.zeros_like(cond.text), vector=vector)

    def report(self, prompt: str, steps: int = 20) -> Report:
        """What ``plan`` would make of a prompt, without running the towers."""
        words, loras = extract_loras(check_text(prompt))
        schedules = [parse_schedule(part.text, steps) for part in _sides(words)]
        return self._report(words, _distinct(schedules), tuple(loras))

    def _report(self, words: str, texts: Sequence[str], loras: tuple[LoraRequest, ...]) -> Report:
        chunker = self._chunkers()[0]
        chunked = [chunker(self._sections(text)) for text in texts]
        chunks = max(map(len, chunked))
        pieces = [piece for text in texts for section in self._sections(text) for piece in section]
        unknown = (part for piece in pieces for part in chunker.tokenizer.unknown(piece.text))
        names = (name for piece in pieces for name in chunker.names(piece.text))
        return Report(
            tokens=max(sum(chunk.tokens for chunk in text) for text in chunked),
            chunks=chunks,
            capacity=chunks * chunker.capacity,
            texts=len(texts),
            unknown=tuple(dict.fromkeys(unknown)),
            embeddings=tuple(dict.fromkeys(names)),
            loras=loras,
        )

    def _sections(self, text: str) -> list[list[Piece]]:
        if self.options.weighting == "none":
            return [[Piece(text, 1.0)]]
        return sections(parse_emphasis(text))

    def _chunkers(self) -> list[Chunker]:
        lengths = {name: len(vectors[0]) for name, vectors in self.embeddings.items()}
        lookback = self.options.lookback
        return [
            Chunker(tower.tokenizer, tower.model.config.positions, lengths, lookback)
            for tower in self._towers()
        ]

    def _encode(
        self,
        texts: Sequence[Sequence[Sequence[Piece]]],
        size: tuple[int, int] | None,
        together: bool = False,
        negative: bool = False,
    ) -> list[Conditioning]:
        """One conditioning (B = 1) a text; ``together`` makes them equally long."""
        chunkers = self._chunkers()
        chunked = [[chunker(text) for chunker in chunkers] for text in texts]
        counts = [max(map(len, towers)) for towers in chunked]
        if sum(counts) > MOST_ENCODED and not together:
            raise PromptError(
                f"a prompt of {sum(counts):,} chunks over its steps; expected at most "
                f"{MOST_ENCODED:,}: write it shorter, or with fewer changes"
            )
        if together:
            counts = [max(counts)] * len(counts)
        features, pooled = [], None
        for index, tower in enumerate(self._towers()):
            empty = chunkers[index].empty()
            rows = [
                [*towers[index], *[empty] * (count - len(towers[index]))]
                for towers, count in zip(chunked, counts, strict=True)
            ]
            embeddings = {name: vectors[index] for name, vectors in self.embeddings.items()}
            seen, projected = self._run(tower, rows, embeddings)
            features.append([self._weighted(row, seen) for row in rows])
            if projected:
                pooled = [projected[_key(row[0])] for row in rows]
        numbers = self._size_features(size, negative)
        result = []
        for position in range(len(texts)):
            text = torch.cat([tower[position] for tower in features], dim=-1)
            vector = None
            if numbers is not None and pooled is not None:
                vector = torch.cat((pooled[position], numbers.to(pooled[position])))[None]
            result.append(Conditioning(text=text[None], vector=vector))
        return result

    def _run(
        self, tower: Tower, rows: Iterable[Sequence[Chunk]], embeddings: Mapping[str, Tensor]
    ) -> tuple[dict[object, Tensor], dict[object, Tensor]]:
        """Features (S, C) and pooled output of each different chunk."""
        distinct = {_key(chunk): chunk for row in rows for chunk in row}
        keys = list(distinct)
        features: dict[object, Tensor] = {}
        pooled: dict[object, Tensor] = {}
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            chunks = [distinct[key] for key in part]
            found, projected = tower.encode(chunks, embeddings, self.options.clip_skip)
            features.update(zip(part, found, strict=True))
            if projected is not None:
                pooled.update(zip(part, projected, strict=True))
        return features, pooled

    def _weighted(self, row: Sequence[Chunk], features: Mapping[object, Tensor]) -> Tensor:
        """The chunks of one text, weighted: (chunks * S, C)."""
        parts = []
        for chunk in row:
            plain = features[_key(chunk)]
            if not chunk.weighted:
                parts.append(plain)
                continue
            weighted = plain * torch.tensor(chunk.weights).to(plain)[:, None]
            if self.options.weighting == "a1111":
                before, after = plain.float().mean(), weighted.float().mean()
                if after.abs() > 1e-12:  # all weights 0: there is no mean to restore
                    weighted = weighted * (before / after).to(plain.dtype)
            parts.append(weighted)
        return torch.cat(parts)

    def _size_features(self, size: tuple[int, int] | None, negative: bool) -> Tensor | None:
        """Original size, crop and target size as sinusoids (Podell et al., arXiv:2307.01952)."""
        if not self.size_channels:
            return None
        if size is None:
            raise ValueError("this model is told the picture's size: pass size=(height, width)")
        told, options = self.options.sizes, self.options
        if negative:
            told = options.negative_sizes or replace(told, score=None)
        numbers = told.numbers(size, scored=self.scored, negative=negative)
        return sinusoid(torch.tensor(numbers, dtype=torch.float32), self.size_channels).flatten()

    def _towers(self) -> list[Tower]:
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    def _changed(
        self,
        options: TextOptions | None = None,
        embeddings: Mapping[str, Tensor | Sequence[Tensor]] | None = None,
    ) -> "PromptEncoder":
        return PromptEncoder(
            self._towers(),
            options or self.options,
            size_channels=self.size_channels,
            scored=self.scored,
            zero_unconditional=self.zero_unconditional,
            embeddings=self.embeddings if embeddings is None else embeddings,
        )

    def _checked(self, name: str, vectors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        each = (vectors,) if isinstance(vectors, Tensor) else tuple(vectors)
        widths = [tower.model.config.channels for tower in self._towers()]
        shapes = [tuple(part.shape) for part in each]
        fits = [len(shape) == 2 and shape[0] > 0 for shape in shapes]
        if not all(fits) or [s[1] for s in shapes] != widths or len({s[0] for s in shapes}) != 1:
            raise ModelMismatchError(
                f"embedding {name!r} has vectors of shapes {shapes}: this model takes (n, width) "
                f"with widths {widths}"
            )
        return each


def _key(chunk: Chunk) -> object:
    """What the towers see of a chunk; weights come after them."""
    return chunk.ids, chunk.vectors


def _sides(words: str) -> list[Subprompt]:
    """As ``parse_parts``. Raises PromptError where there are too many."""
    parts = parse_parts(words)
    if len(parts) > MOST_SIDES:
        raise PromptError(f"{len(parts):,} prompts joined by AND; expected at most {MOST_SIDES}")
    return parts


def _distinct(schedules: Iterable[Sequence[tuple[int, str]]]) -> list[str]:
    """The different texts that a prompt is over time and AND.

    Raises:
        PromptError: more letters than can be encoded.
    """
    texts = list(dict.fromkeys(text for schedule in schedules for _, text in schedule))
    letters = sum(map(len, texts))
    if letters > MOST_LETTERS:
        raise PromptError(
            f"a prompt of {letters:,} letters over its steps; expected at most {MOST_LETTERS:,}: "
            "write it shorter, or with fewer changes"
        )
    return texts


def _at(schedule: Sequence[tuple[int, str]], step: int) -> str:
    return next(text for until, text in schedule if step <= until)
