"""Prompts of any length, cut into chunks that a text tower takes.

A chunk is ``begin, tokens, end, padding``: as many ids as the tower has positions. Nothing is left
out: what does not fit goes to the next chunk, from the last comma on where one is near.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from darkroom.errors import PromptError
from darkroom.text.prompt import Piece
from darkroom.text.tokenizer import SUFFIX, Tokenizer

MOST_TOKENS = 7_500  # of one text, those that fill its chunks included: 100 chunks of CLIP's


class Slot(NamedTuple):
    """One position of a chunk."""

    id: int
    weight: float
    vector: tuple[str, int] | None = None  # an embedding's name, and which of its vectors


@dataclass(frozen=True)
class Chunk:
    """What a tower reads at once. All tuples are as long as the tower has positions."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    vectors: tuple[tuple[int, str, int], ...] = ()  # (position, embedding's name, which vector)
    tokens: int = 0  # without begin, end and padding

    @property
    def weighted(self) -> bool:
        return any(weight != 1.0 for weight in self.weights)


@dataclass(frozen=True)
class Chunker:
    """Cuts weighted text into chunks.

    Args:
        positions: Ids in a chunk, both markers included.
        lengths: Vectors of each embedding, by its name in lower case.
        lookback: How many tokens after a comma may move to the next chunk rather than be parted;
            0 cuts anywhere.
    """

    tokenizer: Tokenizer
    positions: int
    lengths: Mapping[str, int]
    lookback: int = 20

    @property
    def capacity(self) -> int:
        """Tokens of a chunk between its markers."""
        return self.positions - 2

    def __call__(self, sections: Iterable[Sequence[Piece]]) -> list[Chunk]:
        """Chunks of a text; each section starts a new one. There is always at least one.

        Raises:
            PromptError: An embedding has more vectors than a chunk has room for, or the text
                more chunks than any prompt.
        """
        chunks: list[Chunk] = []
        slots: list[Slot] = []
        for number, section in enumerate(sections):
            if number > 0:
                chunks.append(self._chunk(slots))
                slots = []
            self._check_count(chunks)
            slots = self._fill(chunks, slots, section)
        if slots or not chunks:
            chunks.append(self._chunk(slots))
        return chunks

    def empty(self) -> Chunk:
        """The chunk of the empty prompt."""
        return self._chunk([])

    def _check_count(self, chunks: Sequence[Chunk]) -> None:
        if (len(chunks) + 1) * self.capacity > MOST_TOKENS:
            raise PromptError(f"a prompt of more than {len(chunks):,} chunks; shorten it")

    def names(self, text: str) -> list[str]:
        """The embeddings that a text mentions."""
        if not self.lengths:
            return []
        return [name.lower() for name in self._pattern().findall(text)]

    def _fill(self, chunks: list[Chunk], slots: list[Slot], section: Sequence[Piece]) -> list[Slot]:
        comma = self.tokenizer.vocab.get("," + SUFFIX, -1)
        last_comma = -1  # where the chunk could be parted
        for run in self._runs(section):
            if len(run) > self.capacity:
                name = run[0].vector[0] if run[0].vector else ""
                raise PromptError(
                    f"embedding {name!r} has {len(run)} vectors, a chunk holds {self.capacity}: "
                    "use one with fewer"
                )
            if len(slots) + len(run) > self.capacity:
                self._check_count(chunks)
                start = len(slots)
                near = last_comma >= 0 and start - last_comma <= self.lookback
                if near and run[0].id != comma and run[0].vector is None:
                    start = last_comma + 1
                chunks.append(self._chunk(slots[:start]))
                slots = slots[start:]
                last_comma = -1
            elif run[0].id == comma:
                last_comma = len(slots)
            slots.extend(run)
        return slots

    def _runs(self, section: Sequence[Piece]) -> Iterable[list[Slot]]:
        """What must not be parted: single tokens, and whole embeddings."""
        for text, weight in section:
            parts = self._pattern().split(text) if self.lengths else [text]
            for position, part in enumerate(parts):
                if position % 2 == 0:
                    yield from ([Slot(number, weight)] for number in self.tokenizer.encode(part))
                    continue
                name = part.lower()
                placeholder = 1 if self.tokenizer.eos == 0 else 0  # must not look like the end
                count = self.lengths[name]
                yield [Slot(placeholder, weight, (name, index)) for index in range(count)]

    def _pattern(self) -> re.Pattern[str]:
        """Any embedding's name as a word of its own; the longest first."""
        names = sorted(self.lengths, key=lambda name: (-len(name), name))
        return re.compile(r"(?<!\w)(" + "|".join(map(re.escape, names)) + r")(?!\w)", re.IGNORECASE)

    def _chunk(self, slots: Sequence[Slot]) -> Chunk:
        fill = self.capacity - len(slots)
        tokenizer = self.tokenizer
        ids = (slot.id for slot in slots)
        return Chunk(
            (tokenizer.bos, *ids, tokenizer.eos, *(tokenizer.pad,) * fill),
            (1.0, *(slot.weight for slot in slots), 1.0, *(1.0,) * fill),
            tuple((n + 1, *slot.vector) for n, slot in enumerate(slots) if slot.vector),
            len(slots),
        )
