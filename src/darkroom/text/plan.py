"""What a prompt becomes: conditioning over time, and a report on what was understood."""

from dataclasses import dataclass

from darkroom.diffusion.conditioning import Conditioning
from darkroom.text.prompt import LoraRequest


@dataclass(frozen=True)
class Part:
    """One side of an AND."""

    cond: Conditioning  # of one image
    weight: float


@dataclass(frozen=True)
class Segment:
    """What holds up to and with step ``until``, counted from 1."""

    until: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Report:
    """What the encoder made of a prompt, so that nothing is dropped silently."""

    tokens: int  # of the longest text in the prompt, markers and padding not counted
    chunks: int  # that the longest text takes
    capacity: int  # tokens that fit into those chunks
    texts: int  # different texts over time and AND
    unknown: tuple[str, ...] = ()  # pieces of text for which the vocabulary has no token
    embeddings: tuple[str, ...] = ()  # found by name
    loras: tuple[LoraRequest, ...] = ()  # asked for

    def __str__(self) -> str:
        lines = [f"{self.tokens} tokens of {self.capacity} in {self.chunks} chunk(s)"]
        if self.texts > 1:
            lines.append(f"{self.texts} different texts")
        notes = {
            "not in the vocabulary": self.unknown,
            "embeddings": self.embeddings,
            "LoRAs": tuple(lora.name for lora in self.loras),
        }
        lines += [f"{note}: {', '.join(map(repr, what))}" for note, what in notes.items() if what]
        return "; ".join(lines)


@dataclass(frozen=True)
class PromptPlan:
    """A prompt over the steps of a run. The last segment reaches to the last step."""

    segments: tuple[Segment, ...]
    report: Report

    @property
    def loras(self) -> tuple[LoraRequest, ...]:
        """What the prompt asks of its caller."""
        return self.report.loras
