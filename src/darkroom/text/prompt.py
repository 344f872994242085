r"""A1111's prompt language, as text in and data out; nothing here knows tokens or tensors.

    (a)  (a:1.3)  [a]          a counts 1.1, 1.3 or 1/1.1 times as much; brackets nest
    [from:to:when]             one text up to step ``when``, another from there on
    [to:when]  [from::when]    the same with nothing before, or nothing after
    [a|b]                      a and b in turn, step by step
    BREAK                      what follows starts a new chunk
    a AND b:0.7                two prompts, each guiding with its weight
    <lora:name:0.8>            a request for a LoRA; <lora:name:te:unet> weighs its halves apart,
                               and so does <lora:name:te=1:unet=0.5>
    <hypernet:name:0.7>        a request for a hypernetwork
    \( \) \[ \] \: \| \\       the character itself

What does not fit the grammar is text, except for a tag: one that is not understood would be words
where its writer meant none, so it is an error. Everything runs in linear time and without
recursion, so neither long nor deep prompts can stall it; ``check_text`` says how long they may
be.
"""

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from darkroom.errors import PromptError

LONGEST = 50_000  # letters of a prompt
MOST_TAGS = 200  # <lora:...> and <hypernet:...>: each is a file to be opened
MOST_CHOICES = 200_000  # readings of brackets that depend on the step, over all steps
ROUND, SQUARE = 1.1, 1 / 1.1
LARGEST_WEIGHT = 1e6  # deeper nesting stops here, so no weight is ever infinite

# Possessive quantifiers (++ *+ ?+): no backtracking, hence linear.
_NUMBER = r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+"
_IS_NUMBER = re.compile(rf"\s*+({_NUMBER})\s*+")
_CLOSE = rf":\s*+({_NUMBER})\s*+\)"
_NOT_CLOSE = rf":(?!\s*+{_NUMBER}\s*+\))"
_EMPHASIS = re.compile(
    rf"([()\[\]]|{_CLOSE}|(?:[^\\()\[\]:]++|\\.|\\\Z|{_NOT_CLOSE})++)", re.DOTALL
)
_SCHEDULE = re.compile(r"[()\[\]:|]|(?:[^\\()\[\]:|]++|\\.|\\\Z)++", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TEXT, _OPEN_ROUND, _CLOSE_ROUND, _OPEN_SQUARE, _CLOSE_SQUARE = range(5)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a letter: what Python makes of other encodings
_BREAK = re.compile(r"(?<!\\)\bBREAK\b")
_AND = re.compile(r"\bAND\b")
_TAG = re.compile(r"<(\w++):([^<>]*+)(>?+)")
_TAGS = ("lora", "lyco", "hypernet")


class Piece(NamedTuple):
    """A run of text with one weight."""

    text: str
    weight: float


BREAK = Piece("BREAK", -1.0)  # compared by identity


class Subprompt(NamedTuple):
    """One side of an AND."""

    text: str
    weight: float


class LoraRequest(NamedTuple):
    """``<lora:name:...>`` in a prompt: a wish that the caller of the encoder carries out."""

    name: str
    unet: float
    text: float
    source: str  # the tag as it was written


class HypernetworkRequest(NamedTuple):
    """``<hypernet:name:weight>`` in a prompt."""

    name: str
    weight: float
    source: str  # the tag as it was written


def check_text(text: str) -> str:
    """The prompt itself, if it is one that can be drawn.

    Raises:
        PromptError: it is longer than any prompt, or has bytes that are no UTF-8.
    """
    if lost := _SURROGATE.search(text):
        before = text[max(0, lost.start() - 20) : lost.start()]
        raise PromptError(
            f"prompt: not UTF-8 after {before!r} (letter {lost.start() + 1:,}); set the "
            "terminal or the file to UTF-8"
        )
    if len(text) > LONGEST:
        raise PromptError(f"a prompt of {len(text):,} letters; expected at most {LONGEST:,}")
    return text


def parse_emphasis(text: str) -> list[Piece]:
    r"""Runs of text with their weights, and BREAK where a chunk ends.

    ``\`` makes the next character literal. Brackets that are never closed reach to the end; a
    closing bracket that was never opened is text.

    Returns:
        At least one piece; neighbours differ in weight.
    """
    tokens = _EMPHASIS.findall(text)  # pairs of a token and, for "a weight and a bracket", it
    kinds, factors = _match_brackets(tokens)
    rounds, squares = [1.0], [1.0]  # products of the open brackets' factors
    runs: list[tuple[list[str], float]] = []  # the words of a run, and their weight
    weight = 1.0
    for index, kind in enumerate(kinds):
        if kind == _TEXT:
            _append(runs, tokens[index][0], weight)
            continue
        products = rounds if kind in (_OPEN_ROUND, _CLOSE_ROUND) else squares
        if kind in (_OPEN_ROUND, _OPEN_SQUARE):
            products.append(_limited(products[-1] * factors[index]))
        else:
            products.pop()
        weight = _limited(rounds[-1] * squares[-1])
    pieces = [Piece("".join(words), weight) if words else BREAK for words, weight in runs]
    return pieces or [Piece("", 1.0)]


def format_emphasis(pieces: Iterable[Piece]) -> str:
    """Pieces in the language: parsing the result gives ``pieces`` again."""
    written = []
    for piece in pieces:
        if piece is BREAK:
            written.append(" BREAK ")
            continue
        text = re.sub(r"([\\()\[\]]|\bBREAK\b)", r"\\\1", piece.text)
        written.append(text if piece.weight == 1 else f"({text}:{piece.weight!r})")
    return "".join(written)


def sections(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """``pieces`` cut at each BREAK."""
    result: list[list[Piece]] = [[]]
    for piece in pieces:
        if piece is BREAK:
            result.append([])
        else:
            result[-1].append(piece)
    return result


def parse_schedule(text: str, steps: int) -> list[tuple[int, str]]:
    """Resolve ``[from:to:when]`` and ``[a|b]`` for a run of so many steps.

    ``when`` with a point is a fraction of ``steps``, otherwise a step. Emphasis stays in the text.

    Returns:
        ``(until, text)`` in order: the text holds up to and with step ``until``, counted from 1.
        The last ``until`` is ``steps``.

    Raises:
        ValueError: ``steps`` is less than 1.
        PromptError: there are more choices over the steps than can be read.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: at least 1 is needed")
    tokens = _SCHEDULE.findall(text)
    choices = _choices(tokens)
    if not choices:
        return [(steps, text)]
    whens = {index: _step(choice.when, steps) for index, choice in choices.items() if choice.when}
    untils = {steps, *(when for when in whens.values() if when >= 1)}
    if len(whens) < len(choices):
        untils.update(range(1, steps + 1))
    if len(choices) * len(untils) > MOST_CHOICES:
        raise PromptError(
            f"{len(choices):,} brackets that change over {len(untils):,} steps; expected at most "
            f"{MOST_CHOICES // len(untils):,}"
        )
    offsets = [0, *itertools.accumulate(map(len, tokens))]
    starts = sorted(choices)

    def said(step: int) -> Iterator[str]:
        spans = [(0, len(tokens))]  # what is left to read, in tokens, outermost first
        while spans:
            index, end = spans.pop()
            following = bisect.bisect_left(starts, index)
            start = starts[following] if following < len(starts) else end
            yield text[offsets[index] : offsets[min(start, end)]]
            if start < end:
                choice = choices[start]
                arm = int(step > whens[start]) if choice.when else (step - 1) % len(choice.arms)
                spans += [(choice.close + 1, end), choice.arms[arm]]

    return [(until, "".join(said(until))) for until in sorted(untils)]


def parse_parts(text: str) -> list[Subprompt]:
    """Split at AND; each side may end in ``: weight``. A prompt without AND is one part."""
    sides = _AND.split(text)
    if len(sides) == 1:
        return [Subprompt(text, 1.0)]
    return [_weighted(side) for side in sides]


def extract_loras(text: str) -> tuple[str, list[LoraRequest]]:
    """Take the tags out of a prompt, and list those for LoRAs.

    Raises:
        PromptError: a tag is not understood.
    """
    words, requests = _extract(text)
    return words, [request for request in requests if isinstance(request, LoraRequest)]


def extract_hypernetworks(text: str) -> list[HypernetworkRequest]:
    """The tags of a prompt for hypernetworks.

    Raises:
        PromptError: a tag is not understood.
    """
    return [found for found in _extract(text)[1] if isinstance(found, HypernetworkRequest)]


def _extract(text: str) -> tuple[str, list[LoraRequest | HypernetworkRequest]]:
    requests: list[LoraRequest | HypernetworkRequest] = []

    def take(match: re.Match[str]) -> str:
        kind, arguments, closed = match.groups()
        if not closed and kind not in _TAGS:
            return match.group()  # "<3: a heart", say
        try:
            if not closed:
                raise ValueError("it has no '>' at its end")
            requests.append(_request(kind, arguments.split(":"), match.group()))
        except ValueError as error:
            raise PromptError(f"prompt tag {match.group()!r:.80}: {error}") from None
        return ""

    words = _TAG.sub(take, text)
    if len(requests) > MOST_TAGS:
        raise PromptError(f"{len(requests):,} tags in one prompt; expected at most {MOST_TAGS}")
    return words, requests


def _match_brackets(tokens: Sequence[tuple[str, str]]) -> tuple[bytearray, dict[int, float]]:
    """What each token is, and the factor of each opening bracket."""
    kinds = bytearray(len(tokens))  # _TEXT
    factors: dict[int, float] = {}
    rounds: list[int] = []  # open ones; round and square do not mind each other
    squares: list[int] = []
    for index, (token, weight) in enumerate(tokens):
        if token == "(":
            kinds[index] = _OPEN_ROUND
            factors[index] = ROUND
            rounds.append(index)
        elif token == "[":
            kinds[index] = _OPEN_SQUARE
            factors[index] = SQUARE
            squares.append(index)
        elif token == "]":
            if squares:
                squares.pop()
                kinds[index] = _CLOSE_SQUARE
        elif (weight or token == ")") and rounds:
            opened = rounds.pop()
            kinds[index] = _CLOSE_ROUND
            if weight:
                factors[opened] = float(weight)
    return kinds, factors


def _limited(weight: float) -> float:
    return max(-LARGEST_WEIGHT, min(LARGEST_WEIGHT, weight))


def _append(runs: list[tuple[list[str], float]], token: str, weight: float) -> None:
    parts = _BREAK.split(token) if "BREAK" in token else (token,)
    for position, part in enumerate(parts):
        if position > 0:
            _trim(runs)
            runs.append(([], -1.0))
        if "\\" in part:
            part = _ESCAPE.sub(r"\1", part)
        words, before = runs[-1] if runs else (None, 0.0)
        if words == []:
            part = part.lstrip()  # no white space after a BREAK
        if part and words and before == weight:
            words.append(part)
        elif part:
            runs.append(([part], weight))


def _trim(runs: list[tuple[list[str], float]]) -> None:
    """No white space before a BREAK."""
    while runs and runs[-1][0]:
        words, weight = runs.pop()
        text = "".join(words).rstrip()
        if text:
            runs.append(([text], weight))
            return


@dataclass(slots=True)
class _Choice:
    """A bracket whose content depends on the step. Numbers are positions in the tokens."""

    arms: list[tuple[int, int]]  # first and past-the-last token of each text
    close: int
    when: str = ""  # as written; empty for an alternation


@dataclass(slots=True)
class _Open:
    start: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def _choices(tokens: Sequence[str]) -> dict[int, _Choice]:
    """The scheduled and alternating brackets, by the position of their opening bracket."""
    found: dict[int, _Choice] = {}
    waiting: list[_Open] = []
    for index, token in enumerate(tokens):
        if token in ("(", "["):
            waiting.append(_Open(index))
        elif token in (")", "]"):
            if not waiting or tokens[waiting[-1].start] != ("(" if token == ")" else "["):
                waiting.clear()  # nothing open around a stray bracket can be balanced
                continue
            bracket = waiting.pop()
            choice = _choice(tokens, bracket, index) if token == "]" else None
            if choice is not None:
                found[bracket.start] = choice
        elif waiting and token == ":":
            waiting[-1].colons.append(index)
        elif waiting and token == "|":
            waiting[-1].bars.append(index)
    return found


def _choice(tokens: Sequence[str], bracket: _Open, close: int) -> _Choice | None:
    colons = bracket.colons
    first = bracket.start + 1
    if 1 <= len(colons) <= 2 and close - colons[-1] == 2:
        when = _IS_NUMBER.fullmatch(tokens[close - 1])
        if when is not None:
            after = (first if len(colons) == 1 else colons[0] + 1, colons[-1])
            before = (first, first if len(colons) == 1 else colons[0])
            return _Choice([before, after], close, when[1])
    if bracket.bars:
        edges = [bracket.start, *bracket.bars, close]
        return _Choice([(a + 1, b) for a, b in itertools.pairwise(edges)], close)
    return None


def _step(when: str, steps: int) -> int:
    value = float(when) * (steps if "." in when else 1)
    return int(max(0.0, min(float(steps), value)))


def _weighted(side: str) -> Subprompt:
    text, colon, tail = side.rpartition(":")
    number = _IS_NUMBER.fullmatch(tail) if colon else None
    if number is None:
        return Subprompt(side.strip(), 1.0)
    return Subprompt(text.strip(), _limited(float(number[1])))


def _request(kind: str, arguments: list[str], source: str) -> LoraRequest | HypernetworkRequest:
    """What a tag asks for.

    Raises:
        ValueError: saying why it is not understood.
    """
    if kind not in _TAGS:
        raise ValueError(
            f"no tag is called {kind!r}; known: {', '.join(_TAGS)}; for words, leave out the colon"
        )
    name, *values = (argument.strip() for argument in arguments)
    if not name:
        raise ValueError(f"it names no file; write <{kind}:NAME:WEIGHT>")
    if kind == "hypernet":
        positional, _ = _weights(values, 1, ())
        return HypernetworkRequest(name, positional[0] if positional else 1.0, source)
    positional, named = _weights(values, 2, ("te", "unet"))
    text = named.get("te", positional[0] if positional else 1.0)
    unet = named.get("unet", positional[1] if len(positional) > 1 else text)
    return LoraRequest(name, unet, text, source)


def _weights(
    values: list[str], most: int, names: tuple[str, ...]
) -> tuple[list[float], dict[str, float]]:
    """A tag's weights: at most ``most`` by their places, and those that are given by name."""
    positional: list[float] = []
    named: dict[str, float] = {}
    for value in values:
        name, equals, tail = value.rpartition("=")
        name = name.strip()
        if equals and name not in names:
            known = f"; known: {', '.join(names)}" if names else ""
            raise ValueError(f"{name + '='!r} is not supported{known}")
        number = _IS_NUMBER.fullmatch(tail)
        if number is None:
            raise ValueError(f"{tail!r} is no weight; expected a number, such as 0.8")
        if name in named:
            raise ValueError(f"{name + '='!r} is given twice")
        if equals:
            named[name] = _limited(float(number[1]))
        else:
            positional.append(_limited(float(number[1])))
    if len(positional) > most:
        places = "its weight" if most == 1 else "the text's and the U-Net's"
        raise ValueError(f"{len(positional)} weights; expected at most {most}: {places}")
    return positional, named
