"""The texts inside a picture file, by the name of their chunk, and the JSON in them. All capped."""

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from PIL import Image

from darkroom.errors import ConfigFileError
from darkroom.generation.metadata import exif

LARGEST = 1_000_000  # characters of one text
OURS = "darkroom"  # the chunk of our own JSON
THEIRS = "parameters"  # the chunk of A1111's text; EXIF has it as the user's comment
_NAMED = re.compile(r"(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)  # ComfyUI, in EXIF


def texts_of(picture: Image.Image) -> dict[str, str]:
    """Every text of a picture that is open, by chunk; those of EXIF by the name PNG has for them.

    Raises:
        ConfigFileError: one is larger than a million characters, or the EXIF block is damaged and
            there is no other text.
    """
    found: dict[str, str] = {}
    for name, value in picture.info.items():
        text = exif.decoded(value) if name == "comment" and isinstance(value, bytes) else value
        if type(text) is str and name != OURS and not text.isascii():  # an iTXt is no str alone
            text = _as_meant(text)
        if isinstance(name, str) and isinstance(text, str) and text:
            found[name] = capped(text, name)
    if "exif" not in picture.info:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what it leaves out
            tags = exif.tags(picture)
    except Exception as error:  # Pillow raises almost anything on damage
        if found:
            return found
        raise ConfigFileError(
            "the picture carries no generation parameters: its EXIF block is damaged "
            f"({' '.join(str(error).split())[:80]})"
        ) from None
    if ours := exif.unpacked(tags):
        found.setdefault(OURS, ours)
    for tag, name in exif.TEXTS.items():
        text = exif.text(tags, tag)
        if not text:
            continue
        capped(text, name)
        if match := _NAMED.match(text):
            found.setdefault(match[1].lower(), text[match.end() :])
        elif tag == exif.USER_COMMENT:
            found.setdefault(THEIRS, text)
        else:
            found.setdefault(name, text)
    inner = mapping(found.get(THEIRS, ""))
    if isinstance(inner.get("Comment"), str):  # NovelAI keeps all its chunks in the comment
        found |= {key: value for key, value in inner.items() if isinstance(value, str)}
        del found[THEIRS]
    return found


def _as_meant(text: str) -> str:
    """A text chunk that is UTF-8, though PNG has it as Latin-1 and so it was read."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def capped(text: str, name: str) -> str:
    """``text``, if it is not too large.

    Raises:
        ConfigFileError: it is.
    """
    if len(text) > LARGEST:
        raise ConfigFileError(
            f"the picture's text {shown(name)} has {len(text):,} characters; at most "
            f"{LARGEST:,} are read"
        )
    return text


def mapping(text: str) -> dict[str, Any]:
    """The JSON object in a text; an empty one where there is none. No depth stalls it."""
    found = parsed(text) if text.lstrip().startswith("{") else None
    return found if isinstance(found, dict) else {}


def parsed(text: str) -> Any:
    """What a JSON text says; None where it is none, or too deep."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def described(texts: Mapping[str, str]) -> str:
    """What the texts hold, for one line: "Title, Comment (JSON: steps, seed, and 3 more)"."""
    return listed(_kinds(texts)) or "nothing"


def _kinds(texts: Mapping[str, str]) -> Iterator[str]:
    for name, text in texts.items():
        if keys := mapping(text):
            yield f"{shown(name)} (JSON: {listed(map(shown, keys))})"
        else:
            yield shown(name)


def listed(words: Iterable[str], most: int = 8) -> str:
    """The first few words, and how many more there are."""
    every = list(words)
    rest = f", and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def shown(text: Any, most: int = 60) -> str:
    """A stranger's text for one line: printable, and cut short."""
    flat = " ".join(str(text)[: 4 * most].split())
    flat = "".join(c if c.isprintable() else "?" for c in flat)
    return flat if len(flat) <= most else f"{flat[: most - 3]}..."


def text_in(data: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that is a text; "" = none is."""
    return next((data[name] for name in names if isinstance(data.get(name), str)), "")


def number(value: Any) -> float | None:
    """A finite number, also one that is written as text; None = it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number below 2**64, exact, also one that is written as text; None = it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,20}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        return None
    return value


def stem(name: str) -> str:
    """A model's file name without folders and ending, as most programs name it."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft"):
        if last.lower().endswith(suffix):
            return last[: -len(suffix)]
    return last


def unsaid(**fields: Any) -> dict[str, str]:
    """A question (see ``Origin``) for each field that a program's text leaves open."""
    return {name: f"it does not say its {name}" for name, value in fields.items() if value is None}
