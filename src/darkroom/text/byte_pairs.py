"""What every tokenizer of CLIP's kind shares: the byte alphabet, the words, the numbering.

A token that ends a word carries the suffix ``</w>`` (Radford et al., 2021; Sennrich et al., 2016).
"""

import functools
from collections.abc import Iterable

from tokenizers import Regex, normalizers, pre_tokenizers

BOS = "<|startoftext|>"
EOS = "<|endoftext|>"
SUFFIX = "</w>"

# Contractions, runs of letters, single digits, runs of anything else.
_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


@functools.cache
def byte_letters() -> dict[str, int]:
    """A printable letter for each byte, in CLIP's order of ids: printable bytes come first."""
    letters = {chr(byte): byte for byte in (*range(33, 127), *range(161, 173), *range(174, 256))}
    others = [byte for byte in range(256) if chr(byte) not in letters]
    return letters | {chr(256 + position): byte for position, byte in enumerate(others)}


def clip_vocabulary(merges: Iterable[str]) -> dict[str, int]:
    """CLIP's numbering: bytes, bytes that end a word, one token a merge "a b", both markers."""
    letters = byte_letters()
    tokens = [*letters, *(letter + SUFFIX for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges]
    distinct = dict.fromkeys([*tokens, BOS, EOS])  # two merges may spell one token
    return {token: number for number, token in enumerate(distinct)}


def normalizer() -> normalizers.Normalizer:
    """Composed Unicode, one space for any white space, lower case."""
    return normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )


def splitter() -> pre_tokenizers.PreTokenizer:
    """Words, each spelled in the byte alphabet."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def encodable(text: str) -> str:
    """Surrogate pairs joined and lone surrogates replaced by U+FFFD, which UTF-8 can hold."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
