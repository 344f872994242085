"""CLIP's tokenizer stated once more, slowly and without the tokenizers library.

From the paper's description and OpenAI's published behaviour: composed Unicode, lower case, words,
bytes, then again and again the best-ranked pair of neighbours.
"""

import re
import unicodedata
from collections.abc import Iterator

SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def words(text: str) -> Iterator[str]:
    """Contractions, runs of letters, single digits, runs of anything else but white space."""

    def kind(letter: str) -> str:
        if letter == " ":
            return letter
        category = unicodedata.category(letter)[0]
        return category if category in "LN" else "other"

    start = 0
    while start < len(text):
        found = next((c for c in CONTRACTIONS if text.startswith(c, start)), "")
        end = start + max(1, len(found))
        if not found and kind(text[start]) != "N":
            while end < len(text) and kind(text[end]) == kind(text[start]):
                end += 1
        if text[start] != " ":
            yield text[start:end]
        start = end


def byte_letters() -> list[str]:
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    letters = [""] * 256
    hidden = 0
    for byte in range(256):
        if byte in visible:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(256 + hidden)
            hidden += 1
    return letters


LETTERS = byte_letters()


class SlowTokenizer:
    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self.vocab, self.known = vocab, {}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}

    def encode(self, text: str) -> list[int]:
        text = unicodedata.normalize("NFC", text)
        text = re.sub(f"[{SPACE}]+", " ", text)
        text = "".join(letter.lower() for letter in text)  # letter by letter: no final sigma
        ids = []
        for word in words(text):
            ids += self.word("".join(LETTERS[byte] for byte in word.encode()))
        return ids

    def word(self, word: str) -> list[int]:
        if word not in self.known:
            parts = [*word[:-1], word[-1] + "</w>"]
            while len(parts) > 1:
                ranked = [(self.ranks.get(p, 10**9), p) for p in zip(parts, parts[1:])]
                rank, pair = min(ranked)
                if rank == 10**9:
                    break
                joined, i = [], 0
                while i < len(parts):
                    if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
                        joined.append(parts[i] + parts[i + 1])
                        i += 2
                    else:
                        joined.append(parts[i])
                        i += 1
                parts = joined
            self.known[word] = [self.vocab[part] for part in parts]
        return self.known[word]


def shipped() -> SlowTokenizer:
    """CLIP's vocabulary, numbered from the file itself."""
    import gzip
    from pathlib import Path

    import darkroom.text

    path = Path(darkroom.text.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    visible = [LETTERS[b] for b in range(256) if ord(LETTERS[b]) < 256]
    hidden = [LETTERS[b] for b in range(256) if ord(LETTERS[b]) >= 256]
    tokens = visible + hidden
    tokens += [token + "</w>" for token in tokens]
    tokens += [a + b for a, b in merges]
    return SlowTokenizer({token: i for i, token in enumerate(tokens)}, merges)
