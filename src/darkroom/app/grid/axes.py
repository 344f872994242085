"""What ``--x steps=10,20,30`` says: a named list of changes to a request. No torch."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import typer

from darkroom.app import values
from darkroom.app.drawing.request import Request
from darkroom.app.drawing.styles import Style
from darkroom.app.outcome import usage
from darkroom.names import did_you_mean
from darkroom.text.prompt import LoraRequest

RANGE = re.compile(r"(-?[\d.]+?)\.\.(-?[\d.]+)/([\d.]+)")
MOST = 1000  # values of one axis
NAMES = (
    "steps", "guidance", "sampler", "spacing", "timesteps", "seed", "prompt", "replace", "negative",
    "lora:NAME", "model", "size", "strength", "style", "clip-skip", "refiner-start",
)  # fmt: skip

Change = Callable[[Request], Request]


@dataclass(frozen=True)
class Value:
    """One place on an axis."""

    label: str
    change: Change


@dataclass(frozen=True)
class Axis:
    """A parameter and its values, in order."""

    name: str
    values: tuple[Value, ...]


NOTHING = Axis("", (Value("", lambda request: request),))  # an axis that was not said


def axis(text: str, styles: dict[str, Style]) -> Axis:
    """Read NAME=VALUES.

    VALUES are separated by commas; one that holds a comma stands in double quotes. Numbers may be
    a range, ``3..9/3`` for 3, 6, 9. ``replace=fox,cat,dog`` takes "fox" in the prompts as it is,
    then puts "cat" and "dog" in its place.

    Args:
        styles: by name.

    Raises:
        UsageError: the name is no axis, or a value is none of it.
    """
    name, sign, rest = text.partition("=")
    name = name.strip()
    if not sign or not rest.strip():
        raise usage(f"{text!r}: expected NAME=VALUES, such as steps=10,20,30", "axis")
    said = _split(rest)
    if name == "replace":
        found = _replacing(said)
    else:
        found = tuple(_value(name, value, styles) for value in _ranged(name, said))
    labels = [value.label for value in found]
    if doubled := next((label for label in labels if labels.count(label) > 1), None):
        raise usage(f"{name}: {doubled!r} is there twice", "axis")
    return Axis(name, found)


def against(words: str) -> Axis:
    """The prompt as it is, and with ``words`` after it: an A/B comparison."""
    return Axis(
        "prompt",
        (
            Value("as it is", lambda request: request),
            Value(f"+ {words}", _prompts(lambda prompt: f"{prompt}, {words}")),
        ),
    )


def _split(text: str) -> list[str]:
    row = next(csv.reader([text.strip()], skipinitialspace=True))
    return [value.strip() for value in row]


def _ranged(name: str, said: list[str]) -> list[str]:
    """``said`` with ranges written out."""
    if name not in ("steps", "guidance", "seed", "strength", "clip-skip", "refiner-start") and not (
        name.startswith("lora:")
    ):
        return said
    found: list[str] = []
    for value in said:
        match = RANGE.fullmatch(value)
        if not match:
            found.append(value)
            continue
        try:
            start, end, step = map(float, match.groups())
        except ValueError:
            raise usage(f"{value!r}: expected START..END/STEP, such as 3..9/3", name) from None
        count = int((end - start) / step + 1e-9) + 1 if step > 0 and end >= start else 0
        if not 1 <= count <= MOST:
            raise usage(f"{value!r}: expected START..END/STEP that rises, 1 to {MOST} values", name)
        found += [f"{round(start + i * step, 10):.10g}" for i in range(count)]
    return found


def _value(name: str, text: str, styles: dict[str, Style]) -> Value:
    label = text or "none"
    if name == "prompt":
        return Value(label, lambda request: replace(request, prompts=(text,)))
    if name == "negative":
        return Value(label, lambda request: replace(request, negative=text or None))
    if name == "style":
        if text in ("", "none"):
            return Value("none", lambda request: request)
        if text not in styles:
            hint = did_you_mean(text, styles)
            raise usage(f"no style {text!r}{hint}; known: {', '.join(styles)}", name)
        return Value(text, lambda request: request.styled((styles[text],)))
    if name.startswith("lora:"):
        return _lora(name.removeprefix("lora:"), text)
    field, parser = _field(name)
    try:
        value = parser(text)
    except (typer.BadParameter, ValueError) as error:
        raise usage(str(error) or f"{text!r} is no value", name) from None
    changes = {field: value}
    return Value(label, lambda request: replace(request, **changes))


def _field(name: str) -> tuple[str, Callable[[str], Any]]:
    """The field of a request and the reader of its values.

    Raises:
        UsageError: there is no such axis.
    """
    fields: dict[str, tuple[str, Callable[[str], Any]]] = {
        "steps": ("steps", _whole(1, 1000)),
        "guidance": ("guidance", values.guidance),
        "sampler": ("sampler", values.sampler),
        "spacing": ("spacing", values.spacing),
        "timesteps": ("timesteps", values.timesteps),
        "seed": ("seed", values.seed),
        "model": ("model", str),
        "size": ("size", values.size),
        "strength": ("strength", values.strength),
        "clip-skip": ("clip_skip", _whole(1, 12)),
        "refiner-start": ("refiner_start", values.refiner_start),
    }
    if name not in fields:
        raise usage(f"{name!r}{did_you_mean(name, NAMES)}; one of {' '.join(NAMES)}", "axis")
    return fields[name]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"{text!r}: expected a whole number from {low} to {high}")
        return int(text)

    return read


def _lora(name: str, text: str) -> Value:
    request = values.lora(f"{name}:{text}")
    if request.name != name:
        raise usage(f"{text!r}: expected weights, such as lora:{name}=0,0.5,1", "axis")

    def change(drawn: Request) -> Request:
        others = tuple(lora for lora in drawn.loras if lora.name != name)
        given = LoraRequest(name, request.unet, request.text, "")
        return replace(drawn, loras=(*others, given) if request.unet or request.text else others)

    return Value(text, change)


def _replacing(said: list[str]) -> tuple[Value, ...]:
    if len(said) < 2 or not said[0]:
        raise usage("expected what to look for, then what to put there: replace=fox,cat", "axis")
    searched = said[0]

    def put(word: str) -> Change:
        def change(request: Request) -> Request:
            texts = (*request.prompts, request.negative or "")
            if not any(searched in text for text in texts):
                raise usage(f"{searched!r} is in none of the prompts", "replace")
            changed = _prompts(lambda prompt: prompt.replace(searched, word))(request)
            if not request.negative:
                return changed
            return replace(changed, negative=request.negative.replace(searched, word) or None)

        return change

    return tuple(Value(word or "nothing", put(word)) for word in said)


def _prompts(edit: Callable[[str], str]) -> Change:
    return lambda request: replace(request, prompts=tuple(map(edit, request.prompts)))
