"""Random Unicode strings that are hard on tokenizers."""

import random
import unicodedata

KINDS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÉÎÕÜŞİẞΣΔЖЯ",
    "0123456789٣५²½Ⅳ",
    " \t\n\r\v\f\u00a0\u2003\u2028\u3000\u200b\ufeff\u180e",
    "".join(map(chr, [*range(32), 127, *range(128, 160)])),
    "".join(map(chr, range(0x300, 0x330))) + "\u20dd\u0e34\u093f\u1ab0",
    "😀👍🏽👩‍👩‍👧‍👦🇩🇪🏳️‍🌈❤️™️🦊",
    "漢字かなカナ한글가각가",
    ".,!?;:'\"()[]{}<>|/\\-_=+*&^%$#@~`",
    "ﬁﬀǅŉΐᾳ\u1e9b\u0323Å\u212bｆｕｌｌ",
    "\U0010ffff\ufffd\ufffe\ue000\U000e0001",
]
WORDS = [
    "a photo of", "it's", "we'll", "they'VE", "'s", "don't!!!", "<|endoftext|>", "<|startoftext|>",
    "<|ENDOFTEXT|>", "!", "!!", "...", "42nd", "naïve", "ΟΔΟΣ", "</w>", "e\u0301", "cat,dog",
]  # fmt: skip


def strings(count: int, seed: int = 0, longest: int = 40):
    draw = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(0, 8)):
            kind = draw.random()
            if kind < 0.25:
                parts.append(draw.choice(WORDS))
            elif kind < 0.9:
                letters = draw.choice(KINDS)
                parts.append("".join(draw.choices(letters, k=draw.randint(1, longest // 6))))
            else:
                parts.append(
                    chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)]))
                )
        yield "".join(parts)


def settled(text: str) -> bool:
    """Whether this Python's Unicode tables know every character, so that all tables agree."""
    return all(
        unicodedata.category(letter) != "Cn" or ord(letter) & 0xFFFE == 0xFFFE for letter in text
    )


def has_marker(text: str) -> bool:
    return "<|startoftext|>" in text.lower() or "<|endoftext|>" in text.lower()
