"""BERT's tokenizer (Devlin et al., arXiv:1810.04805): words cut into the longest known pieces.

A piece that does not begin a word is spelled with ``##`` in front. A word with a letter that the
vocabulary lacks, or of over 100 letters, becomes ``[UNK]``.
"""

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers import models as backends
from torch import Tensor

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import CheckpointError
from darkroom.text.byte_pairs import encodable
from darkroom.text.tokenizer_files import read_object
from darkroom.text.tokenizer_training import learn_merges

PAD, UNKNOWN, BEGIN, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
MARKERS = (PAD, UNKNOWN, BEGIN, END, MASK)
INNER = "##"  # in front of a piece that does not begin its word
LONGEST_WORD = 100  # letters
_FIRST = "\0"  # marks the beginning of a word while learning; no normalised text holds it


class WordPiece:
    """Text to token ids with their markers. Immutable in use.

    Args:
        vocab: Id of each token, counting from 0 without a gap; it holds ``MARKERS``.
        lower: Letters are made small (the "uncased" models).
        strip_accents: Accents are dropped; None = when ``lower``.
        split_chinese: Each Chinese character is a word.

    Raises:
        ValueError: A marker is missing, or the ids have a gap.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        *,
        lower: bool = True,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
    ) -> None:
        missing = [marker for marker in MARKERS if marker not in vocab]
        if missing:
            raise ValueError(f"the vocabulary of {len(vocab)} tokens lacks {', '.join(missing)}")
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise ValueError(f"the ids of {len(vocab)} tokens are not 0 to {len(vocab) - 1}")
        self.vocab = dict(vocab)
        self.lower, self.strip_accents, self.split_chinese = lower, strip_accents, split_chinese
        self.pad, self.unknown, self.begin, self.end = (vocab[m] for m in MARKERS[:4])
        self._backend = Backend(
            backends.WordPiece(self.vocab, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
        )
        self._backend.normalizer = _normalizer(lower, strip_accents, split_chinese)
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._backend.add_special_tokens([AddedToken(m, normalized=False) for m in MARKERS])

    def __len__(self) -> int:
        return len(self.vocab)

    @classmethod
    def from_folder(cls, path: str | Path) -> Self:
        """Open a checkpoint's folder: ``tokenizer.json``, or ``vocab.txt`` and its config.

        Raises:
            CheckpointError: A file is missing, damaged, or not of BERT's kind.
        """
        path = Path(path)
        try:
            if (path / "tokenizer.json").is_file():
                return cls(**_whole(path / "tokenizer.json"))
            settings = read_object(path / "tokenizer_config.json")
            return cls(
                _lines(path / "vocab.txt"),
                lower=settings.get("do_lower_case", True),
                strip_accents=settings.get("strip_accents"),
                split_chinese=settings.get("tokenize_chinese_chars", True),
            )
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None

    @classmethod
    def train(cls, texts: Iterable[str], size: int, at_least: int = 2) -> Self:
        """Learn an uncased vocabulary: every letter, then the most frequent pairs joined.

        The same texts give the same vocabulary on every machine.

        Args:
            texts: A word counts as often as it occurs.
            size: Tokens in all. Fewer are made when the texts run out of pairs.
            at_least: Occurrences that a pair needs.

        Raises:
            ValueError: ``size`` has no room for every letter.
        """
        counts = _words(texts)
        words = [[_FIRST + word[0], *word[1:]] for word in counts]
        alphabet = sorted(set("".join(counts)))
        letters = [*(_FIRST + letter for letter in alphabet), *alphabet]
        room = size - len(MARKERS) - len(letters)
        if room < 0:
            raise ValueError(
                f"size is {size}: {size - room} are needed for {len(MARKERS)} markers and "
                f"{len(alphabet)} letters, each at the beginning of a word and inside"
            )
        joined = learn_merges(words, list(counts.values()), room, at_least)
        pieces = [*letters, *(pair.replace(" ", "") for pair in joined)]
        spelled = (p[1:] if p.startswith(_FIRST) else INNER + p for p in pieces)
        return cls({t: i for i, t in enumerate(dict.fromkeys((*MARKERS, *spelled)))})

    def encode(self, text: str, length: int) -> tuple[list[int], list[int]]:
        """Exactly ``length`` token ids, and a mask that is 1 for each that is not padding.

        ``[CLS]`` comes before the text, ``[SEP]`` after it; a text too long is cut. A marker
        spelled out in the text is that marker, as in transformers.

        Raises:
            ValueError: ``length`` has no room for the two markers.
        """
        ids = self._ids(text, length)
        padding = length - len(ids)
        return ids + [self.pad] * padding, [1] * len(ids) + [0] * padding

    def batch(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """Ids and mask (N, S) of several texts; S is what the longest needs, at most ``length``.

        Raises:
            ValueError: ``length`` has no room for the two markers.
        """
        rows = [self._ids(text, length) for text in texts]
        longest = max(map(len, rows), default=0)
        ids = torch.full((len(rows), longest), self.pad)
        mask = torch.zeros(len(rows), longest, dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask

    def save(self, path: str | Path) -> None:
        """Write ``vocab.txt`` and ``tokenizer_config.json``, which transformers opens as well."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        tokens = sorted(self.vocab, key=self.vocab.__getitem__)
        settings = {
            "do_lower_case": self.lower,
            "strip_accents": self.strip_accents,
            "tokenize_chinese_chars": self.split_chinese,
            "tokenizer_class": "DistilBertTokenizer",
        }
        for name, text in (
            ("vocab.txt", "".join(f"{token}\n" for token in tokens)),
            ("tokenizer_config.json", json.dumps(settings, indent=2) + "\n"),
        ):
            with atomic_write(path / name) as file:
                file.write(text.encode())

    def _ids(self, text: str, length: int) -> list[int]:
        if length < 2:
            raise ValueError(f"length is {length}: the two markers need 2")
        inner = self._backend.encode(encodable(text), add_special_tokens=False).ids
        return [self.begin, *inner[: length - 2], self.end]


def _normalizer(
    lower: bool, strip_accents: bool | None, split_chinese: bool
) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=split_chinese,
        strip_accents=strip_accents,
        lowercase=lower,
    )


def _words(texts: Iterable[str]) -> dict[str, int]:
    """How often each word occurs, in alphabetical order."""
    normal, split = _normalizer(True, None, True), pre_tokenizers.BertPreTokenizer()
    counts: collections.Counter[str] = collections.Counter()
    for text, times in collections.Counter(texts).items():
        for word, _ in split.pre_tokenize_str(normal.normalize_str(encodable(text))):
            if len(word) <= LONGEST_WORD:
                counts[word] += times
    return {word: counts[word] for word in sorted(counts)}


def _lines(path: Path) -> dict[str, int]:
    """``vocab.txt``: a token a line, its id the number of the line."""
    if not path.exists():
        raise CheckpointError(f"{path}: missing; expected it, or tokenizer.json")
    text = foreign.read_text(path, CheckpointError)
    lines = text.removesuffix("\n").split("\n")
    vocab = {token: number for number, token in enumerate(lines)}
    if len(vocab) != len(lines):
        twice = next(token for number, token in enumerate(lines) if vocab[token] != number)
        raise CheckpointError(f"{path}: token {twice!r:.60} stands there twice")
    return vocab


def _whole(path: Path) -> dict[str, Any]:
    """Arguments of a WordPiece from a ``tokenizer.json``."""
    data = read_object(path)
    model, normal = data.get("model"), data.get("normalizer")
    expected = {"continuing_subword_prefix": INNER, "unk_token": UNKNOWN}
    if not (
        isinstance(model, dict)
        and isinstance(model.get("vocab"), dict)
        and set(map(type, model["vocab"].values())) <= {int}
        and all(model.get(key) == value for key, value in expected.items())
        and isinstance(normal, dict)
        and normal.get("type") == "BertNormalizer"
    ):
        raise CheckpointError(f"{path}: not a tokenizer of BERT's kind (word pieces, {INNER})")
    added = [token.get("content") for token in data.get("added_tokens") or []]
    unknown = [token for token in added if token not in MARKERS]
    if unknown:
        raise CheckpointError(f"{path}: the added token {unknown[0]!r:.60} is not supported")
    return {
        "vocab": model["vocab"],
        "lower": normal.get("lowercase", True),
        "strip_accents": normal.get("strip_accents"),
        "split_chinese": normal.get("handle_chinese_chars", True),
    }
