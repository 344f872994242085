"""``Key: value, Key: "value", ...``: the settings in a text of A1111, in linear time.

A value with a comma, colon or newline is a JSON string; some programs write JSON as it is. Where
quotes are not closed, a value ends at the next comma, as A1111 has it.
"""

import json
import re
from collections.abc import Iterator

_BLANK = re.compile(r"\s*+")
_KEY = re.compile(r"([^\W\d_][^,:\n\"]{0,79}+):[^\S\n]*+")  # starts with a letter
_QUOTED = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_END = re.compile(r"[^\S\n]*+(?:,|\n|\Z)")
_PLAIN = re.compile(r"[^,\n]*+")
_REST = re.compile(r"[^,\n]*+[,\n]?")
_JSON_TRIES = 8  # texts that look like JSON and are not, before JSON is no longer tried


def pairs(text: str, place: int = 0) -> Iterator[tuple[str, str]]:
    """Every key with its value; a JSON string is read, other JSON stays as it is written.

    What lies between commas or line ends and is no pair is passed over.

    Args:
        place: where to begin.
    """
    quotes, tries = True, _JSON_TRIES
    decode = json.JSONDecoder().raw_decode
    while place < len(text):
        blank = _BLANK.match(text, place)
        place = blank.end() if blank else place
        key = _KEY.match(text, place)
        if key is None:
            found = _REST.match(text, place)
            place = found.end() if found and found.end() > place else place + 1
            continue
        start = key.end()
        head = text[start : start + 1]
        value, end = "", -1
        if head == '"' and quotes:
            quoted = _QUOTED.match(text, start)
            if quoted is None:
                quotes = False  # none is closed from here on
            elif closing := _END.match(text, quoted.end()):
                value, end = _unquoted(quoted.group()), closing.end()
        elif head in ("{", "[") and tries:
            try:
                closed = decode(text, start)[1]
            except (ValueError, RecursionError):
                closed = start
            if closed > start and (closing := _END.match(text, closed)):
                value, end = text[start:closed], closing.end()
            else:
                tries -= 1
        if end < 0:
            plain = _PLAIN.match(text, start)
            assert plain is not None
            value, end = plain.group().strip(), plain.end() + 1
        yield key[1].strip(), value
        place = end


def quote(value: object) -> str:
    """``value`` as it is written: a JSON string where it needs to be one."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value[1:-1]
