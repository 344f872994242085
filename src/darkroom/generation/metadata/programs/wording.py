r"""Other programs' ways of weighting words, put into A1111's, which is Darkroom's.

What is a character with them and a sign with us is escaped. AND and BREAK are written small, which
CLIP does not see. All in linear time.
"""

import re

from darkroom.text.prompt import parse_emphasis

_SIGNS = re.compile(r"\b(?:AND|BREAK)\b|<(?=(?:lora|lyco|hypernet):)", re.IGNORECASE)
_EMBEDDING = re.compile(r"\bembedding:([\w./\\-]++)", re.IGNORECASE)
_SQUARE = re.compile(r"\\[()]|[\\\[\]]")
_COMPEL = re.compile(
    r"\\.|\(|\)(?:[+]++|-++|[0-9]{1,8}+(?:\.[0-9]{1,8}+)?)?|[^()\\\s]++|\s++|\\", re.DOTALL
)
_FUNCTION = re.compile(r"\)\s*+\.(?:blend|and|swap)\s*+\(|\.swap\(")
_NOVELAI = re.compile(
    r"-?[0-9]{1,8}+(?:\.[0-9]{1,8}+)?::|::|[{}\[\]()\\]|[^-0-9:{}\[\]()\\]++|.", re.DOTALL
)
_BRACKETS = {"{": ("}", 1.05), "[": ("]", 1 / 1.05)}  # of NovelAI


def of_comfyui(text: str) -> str:
    """ComfyUI: round brackets alone weigh, ``embedding:name`` calls a textual inversion."""
    text = _EMBEDDING.sub(lambda match: re.split(r"[/\\]", match[1])[-1], text)
    return _SQUARE.sub(lambda match: match[0] if len(match[0]) == 2 else f"\\{match[0]}",
                       _plain(text))  # fmt: skip


def of_invoke(text: str) -> str | None:
    """InvokeAI: ``word++``, ``(some words)1.3``; None where it blends, joins or swaps prompts."""
    if _FUNCTION.search(text):
        return None
    tokens = _COMPEL.findall(_plain(text))
    opened: list[int] = []
    closed: dict[int, int] = {}
    for i, token in enumerate(tokens):
        if token == "(":
            opened.append(i)
        elif token.startswith(")") and opened:
            closed[i] = opened.pop()
    starts = {start: i for i, start in closed.items()}
    written = []
    for i, token in enumerate(tokens):
        if i in starts:
            written.append("(" if _factor(tokens[starts[i]][1:]) != 1 else "")
        elif i in closed:
            factor = _factor(token[1:])
            written.append(f":{factor:.4g})" if factor != 1 else "")
        elif token[0] in "()":
            written.append(f"\\{token}")
        elif token[0] == "\\":
            written.append(token if len(token) == 2 else "\\\\")
        else:
            written.append(_word(token))
    return "".join(written)


def of_novelai(text: str) -> str:
    """NovelAI: curly brackets count 1.05 times as much, square ones less, ``1.5::words::``."""
    written, opened = [], list[tuple[str, float]]()  # what closes a bracket, and its weight
    for token in _NOVELAI.findall(_plain(text)):
        if token in _BRACKETS:
            opened.append(_BRACKETS[token])
            written.append("(")
        elif opened and token == opened[-1][0]:
            written.append(f":{opened.pop()[1]:.4g})")
        elif token.endswith("::") and len(token) > 2:
            opened.append(("::", float(token[:-2])))
            written.append("(")
        else:
            written.append(_escaped(token, "()[]"))
    return "".join([*written, *(f":{weight:.4g})" for _, weight in reversed(opened))])


def is_weighted(*texts: str | None) -> bool:
    """Whether a text, in our language, weighs any word."""
    return any(
        piece.weight not in (1, -1) for text in texts for piece in parse_emphasis(text or "")
    )


def _plain(text: str) -> str:
    return _SIGNS.sub(lambda match: "< " if match[0] == "<" else match[0].lower(), text)


def _word(token: str) -> str:
    """A word of InvokeAI, weighed by the plus or minus signs at its end."""
    word = token.rstrip(".,;:!?")
    for sign in "+-":
        bare = word.rstrip(sign)
        if bare and bare != word:
            weight = _factor(word[len(bare) :])
            return f"({_escaped(bare)}:{weight:.4g}){_escaped(token[len(word) :])}"
    return _escaped(token)


def _escaped(text: str, signs: str = "[]") -> str:
    return "".join(f"\\{c}" if c in signs or c == "\\" else c for c in text)


def _factor(weight: str) -> float:
    if not weight:
        return 1.0
    if weight[0] in "+-":
        return min((1.1 if weight[0] == "+" else 0.9) ** min(len(weight), 100), 1e4)
    return min(float(weight[:12]), 1e4)
