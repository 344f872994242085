"""What a built-in model was taught: the words it read, and how well what it knows fits. No torch.

``knowledge.json`` beside the model says what it is for, ``captions.json`` what it read. Both are
written by ``benchmarks/emoji_knowledge.py`` from the training data.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.locate import ASSETS, built_in_names

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
TAG = re.compile(r"<[^<>]*>")  # of the prompt language
LIKE = 0.8  # ratio of difflib from which a word is offered in the place of another
MOST = 16  # words at most to which others are looked for
LONGEST = 20_000  # characters of a text that are looked at
STOP_WORDS = """
a an the this that these those some any all and or nor but not no of in on at by to from for with
without into onto over under near next as is are was were be been being am do does did has have had
having it its itself he she they him his her their there here i you we my your our me us very so too
than then such just also only more most much many few one which who whose what when where while if
up down out off about around between through during both each every other another own same can could
will would should may might must break
"""


@dataclass(frozen=True)
class Unseen:
    """A word that is in no caption, and the nearest that are."""

    word: str
    near: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a text fits what a model has read."""

    unseen: tuple[Unseen, ...] = ()
    apart: tuple[str, ...] = ()  # words that it read, but never of one thing
    near: tuple[str, ...] = ()  # names of things that fit the text best, where it does not fit well

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        words = [{"word": one.word, "near": list(one.near)} for one in self.unseen]
        return {"unseen": words, "never_together": list(self.apart), "near": list(self.near)}

    def line(self, name: str) -> str:
        """One sentence, or "" where all is known."""
        told = []
        if self.unseen:
            words = (
                f"{one.word!r}" + (f" (near: {', '.join(one.near)})" if one.near else "")
                for one in self.unseen[:8]
            )
            more = f" and {len(self.unseen) - 8} more" if len(self.unseen) > 8 else ""
            several = "s" * (len(self.unseen) > 1)
            told.append(f"never saw the word{several} {', '.join(words)}{more}")
        if self.apart:
            *first, last = map(repr, self.apart[:8])
            told.append(f"knows {', '.join(first)} and {last}, but not together")
        if told and self.near:
            told.append(f"nearest that it knows: {', '.join(map(repr, self.near))}")
        return f"{name} {'; '.join(told)}" if told else ""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What a built-in model knows."""

    name: str
    about: str  # "emoji by their names, 64x64 pixels"
    instead: str  # a command that brings one for anything else
    likely: float | None = None  # the cosine of a picture and a text from which a fit is likely
    never: frozenset[str] = frozenset()  # words of the captions that this model did not read
    captions: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name of a thing -> tags
    frame: frozenset[str] = frozenset()  # words that went around any of them

    @property
    def line(self) -> str:
        """One sentence."""
        return f"{self.name} (built in, small) knows {self.about}; for more: {self.instead}"

    @cached_property
    def words(self) -> frozenset[str]:
        """All that it read."""
        texts = (text for name, tags in self.captions.items() for text in (name, *tags))
        return frozenset(word for text in texts for word in words_of(text)) | self.frame

    def read(self, text: str) -> Reading:
        """Which words of a text it never read, and which never of one thing."""
        if not self.captions:
            return Reading()
        stops = STOP_WORDS.split()
        words = [word for word in words_of(text) if word not in stops]
        known = self.words - self.never
        new = [word for word in words if word not in known]
        unseen = tuple(
            Unseen(word, tuple(self._near(word, known)) if i < MOST else ())
            for i, word in enumerate(new)
        )
        seen = [word for word in words if word in known and word not in self.frame]
        together, near = self._nearest([*seen, *(one.near[0] for one in unseen if one.near)])
        apart = tuple(seen) if len(seen) > 1 and not together >= set(seen) else ()
        if not unseen and not apart:
            return Reading()
        return Reading(unseen=unseen, apart=apart, near=tuple(near))

    def _near(self, word: str, known: frozenset[str]) -> list[str]:
        """Words spelled alike; a word's own forms ("robots") first."""
        stem = word[:-1] if word.endswith("s") else word + "s"
        if stem in known:
            return [stem]
        if len(word) < 4:
            return []
        alike = [other for other in known if abs(len(other) - len(word)) < 4]
        return difflib.get_close_matches(word, alike, 2, LIKE)

    def _nearest(self, words: Sequence[str]) -> tuple[set[str], list[str]]:
        """The words of the thing that has most of them, and the names of the best three things."""
        wanted = set(words)
        if not wanted:
            return set(), []
        ranked: list[tuple[int, int, int, str]] = []
        best: set[str] = set()
        for name, said, told in self._things:
            here = wanted & (said | told)
            if here:
                ranked.append((-len(here), -len(wanted & said), len(said), name))
                best = here if len(here) > len(best) else best
        return best, [name for *_, name in sorted(ranked)[:3]]

    @cached_property
    def _things(self) -> list[tuple[str, frozenset[str], frozenset[str]]]:
        """(name, its words, the words of its tags)."""
        return [
            (name, frozenset(words_of(name)), frozenset(w for tag in tags for w in words_of(tag)))
            for name, tags in self.captions.items()
        ]


def words_of(text: str) -> list[str]:
    """Words in lower case, each once; tags of the prompt language are none."""
    plain = TAG.sub(" ", text[:LONGEST])
    return list(dict.fromkeys(word.lower().replace("\u2019", "'") for word in WORD.findall(plain)))


def knowledge_of(name: str) -> Knowledge | None:
    """What the built-in model of this name knows; None for any other."""
    folder = ASSETS / name
    if name not in built_in_names() or not (folder / "knowledge.json").is_file():
        return None
    said = _json(folder / "knowledge.json")
    read: dict[str, Any] = {}
    if said.get("captions"):
        read = _json(ASSETS / said["captions"] / "captions.json")
    return Knowledge(
        name=name,
        about=said["about"],
        instead=said["instead"],
        likely=(said.get("likely") or {}).get("cosine"),
        never=frozenset(said.get("never", ())),
        captions=read.get("things", {}),
        frame=frozenset(read.get("frame", ())),
    )


def _json(path: Path) -> dict[str, Any]:
    return foreign.read_object(path, CheckpointError)
