"""Words that others wrote about pictures: how they are decoded, in every format of a set.

UTF-8, with a byte-order mark or without, and UTF-16 that says so by its mark. Nothing else is
guessed: cp932 and Latin-1 decode each other's bytes without complaint, and a model would learn the
nonsense. Bytes that are no UTF-8 stay in the text as lone surrogates, so that the other fields of a
row can still be used; a caption with one is left out, and ``darkroom data check`` lists it.
"""

import codecs
import re
from collections.abc import Iterable
from io import BufferedReader, TextIOWrapper

LOST = "have captions that are neither UTF-8 nor marked UTF-16"
_LOST = re.compile("[\ud800-\udfff\ufffd]")


def decoded(data: bytes) -> str:
    """The text of a file or of a part of one; see above for what is not Unicode."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def reading(file: BufferedReader) -> TextIOWrapper:
    """The text of a file, as ``decoded``, line by line."""
    if file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return TextIOWrapper(file, "utf-16", "replace", newline="")
    return TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")


def is_lost(text: str) -> bool:
    """Whether a text holds what could not be decoded."""
    return _LOST.search(text) is not None


def kept(texts: Iterable[str]) -> tuple[str, ...]:
    """Those that could be decoded."""
    return tuple(text for text in texts if not is_lost(text))
