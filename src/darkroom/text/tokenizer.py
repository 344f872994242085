"""CLIP's byte-pair tokenizer (Radford et al., 2021): lower-cased words, bytes, ranked merges.

Every byte is a token, so no text is unknown to a complete vocabulary.
"""

import functools
import gzip
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Self

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from darkroom.atomic import atomic_write
from darkroom.errors import CheckpointError
from darkroom.text.byte_pairs import (
    BOS,
    EOS,
    SUFFIX,
    byte_letters,
    clip_vocabulary,
    encodable,
    normalizer,
    splitter,
)
from darkroom.text.tokenizer_files import read_folder

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # from open_clip_torch, MIT; see THIRD_PARTY.md
_BUILT_IN_SIZE = 49408  # 256 bytes, 256 final bytes, 48,894 merges, two markers
# SHA-256 of its tokens in order of id, then its merges, a line each
_BUILT_IN_DIGEST = "5d827db2c026571b4380d244cf6012f0c5092b3b109d297c2e357a7ac598af06"


class Tokenizer:
    """Text to token ids and back, without the markers around them. Immutable in use.

    Args:
        vocab: Id of each token; it must hold the markers ``bos``, ``eos`` and ``pad``.
        merges: Pairs of tokens, "a b", in the order in which they are joined.
        bos: Marker before the text.
        eos: Marker after the text; also what a character outside the vocabulary becomes.
        pad: Token that fills a chunk. Stable Diffusion 1 pads with ``eos``, OpenCLIP's towers with
            ``!`` (id 0). As in transformers, a pad token in a text is that very token.
        max_length: Tokens in one chunk, both markers included.
        added: Further tokens that are matched in the text before anything is split.

    Raises:
        ValueError: A marker is not in ``vocab``, or the merges do not fit it.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[str],
        *,
        bos: str | AddedToken = BOS,
        eos: str | AddedToken = EOS,
        pad: str | AddedToken | None = None,
        max_length: int = 77,
        added: Sequence[AddedToken] = (),
    ) -> None:
        markers = [_marker(token) for token in (bos, eos, eos if pad is None else pad)]
        for marker in markers:
            if marker.content not in vocab:
                raise ValueError(
                    f"the vocabulary of {len(vocab)} tokens lacks the marker {marker.content!r}: "
                    "add it or name another one"
                )
        if max_length < 3:
            raise ValueError(f"max_length is {max_length}: two markers and a token need 3")
        self.vocab = dict(vocab)
        self.merges = tuple(merges)
        self.max_length = max_length
        self.bos, self.eos, self.pad = (self.vocab[marker.content] for marker in markers)
        self._markers = tuple(markers)
        self._added = tuple(added)
        _check_merges(self.vocab, self.merges)

    @functools.cached_property
    def _backend(
        self,
    ) -> Backend:  # 0.08 s for CLIP's vocabulary: at the first text, not at loading
        return _backend(self.vocab, self.merges, list(self._markers), self._added)

    @classmethod
    def built_in(cls, pad: str = EOS) -> "Tokenizer":
        """CLIP's own vocabulary of 49,408 tokens, which ships with Darkroom; read once."""
        return _built_in(pad)

    @classmethod
    def from_folder(cls, path: str | Path) -> Self:
        """Open a checkpoint's ``tokenizer/`` folder.

        Args:
            path: Holds ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``; the markers come
                from ``tokenizer_config.json`` and ``special_tokens_map.json`` where they exist.

        Raises:
            CheckpointError: A file is missing, damaged, or not of CLIP's kind.
        """
        path = Path(path)
        try:
            return cls(**read_folder(path))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without markers. Any string will do, lone surrogates included."""
        return self._backend.encode(encodable(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, normalised: lower case, one space between words, no markers."""
        markers = {self.bos, self.eos}
        spelled = "".join(self._names[number] for number in ids if number not in markers)
        letters = byte_letters()
        data = bytearray()
        for part in spelled.split(SUFFIX):
            for letter in part:
                byte = letters.get(letter)
                data.extend(letter.encode() if byte is None else bytes([byte]))
            data.extend(b" ")
        return data.decode("utf-8", "replace").strip()

    def token(self, number: int) -> str:
        """The vocabulary's spelling of one id."""
        return self._names[number]

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {number: token for token, number in self.vocab.items()}

    @functools.cached_property
    def _complete(self) -> bool:
        """Whether every byte is a token, so that no text is unknown."""
        return all(end in self.vocab for c in byte_letters() for end in (c, c + SUFFIX))

    def unknown(self, text: str) -> list[str]:
        """The pieces of ``text`` for which the vocabulary has no token."""
        if self._complete:
            return []
        encoding = self._backend.encode(encodable(text), add_special_tokens=False)
        eos = self._markers[1].content
        pieces = []
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            piece = encodable(text)[start:end]
            if number == self.eos and piece.lower() != eos.lower():
                pieces.append(piece)
        return pieces

    def __len__(self) -> int:
        return len(self.vocab)

    def __repr__(self) -> str:
        pad = self._names[self.pad]
        return f"Tokenizer({len(self)} tokens, max_length={self.max_length}, pad={pad!r})"

    def save(self, folder: str | Path) -> None:
        """Write ``folder`` as transformers' CLIPTokenizer opens it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        bos, eos, pad = (marker.content for marker in self._markers)
        markers = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": eos}
        tokens = {self.vocab[token.content]: token for token in (*self._markers, *self._added)}
        config = {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(n): _rules(tokens[n]) for n in sorted(tokens)},
            **markers,
            "do_lower_case": True,
            "model_max_length": self.max_length,
            "tokenizer_class": "CLIPTokenizer",
        }
        lines = "\n".join(self.merges)
        files = {
            "vocab.json": json.dumps(self.vocab, ensure_ascii=False),
            "merges.txt": f"#version: 0.2\n{lines}\n",
            "special_tokens_map.json": json.dumps(markers, indent=2),
            "tokenizer_config.json": json.dumps(config, indent=2),
        }
        for name, text in files.items():
            with atomic_write(folder / name) as file:
                file.write(text.encode())


def _rules(token: AddedToken) -> dict[str, str | bool]:
    return {
        "content": token.content,
        "lstrip": token.lstrip,
        "normalized": token.normalized,
        "rstrip": token.rstrip,
        "single_word": token.single_word,
        "special": token.special,
    }


def _is_clips_own(vocab: Mapping[str, int], merges: Sequence[str]) -> bool:
    """Nearly every checkpoint has OpenAI's vocabulary, which is known to fit its merges."""
    if len(vocab) != _BUILT_IN_SIZE or list(vocab.values()) != list(range(_BUILT_IN_SIZE)):
        return False
    text = "\n".join(itertools.chain(vocab, merges))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() == _BUILT_IN_DIGEST


def _check_merges(vocab: Mapping[str, int], merges: Sequence[str]) -> None:
    """All strings at once: 49,000 small objects would take longer than all of a model's weights."""
    if _is_clips_own(vocab, merges):
        return
    text = "\n".join(merges)
    parts = text.replace(" ", "\n").split("\n") if merges else []
    joined = text.replace(" ", "").split("\n") if merges else []
    if len(parts) % 2 or list(map(str.__add__, parts[::2], parts[1::2])) != joined:
        wrong = next(merge for merge in merges if len(merge.split(" ")) != 2)
        raise ValueError(f"merge {wrong!r:.60} is not a pair of tokens")
    if not all(map(vocab.__contains__, itertools.chain(parts, joined))):
        lacking = min({*parts, *joined}.difference(vocab))
        raise ValueError(f"vocabulary and merges do not fit together: no token {lacking!r:.60}")
    if max(vocab.values()) >= 1 << 32:
        raise ValueError("vocabulary and merges do not fit together: an id is over 32 bits")


def _backend(
    vocab: dict[str, int],
    merges: Sequence[str],
    markers: list[AddedToken],
    added: Sequence[AddedToken],
) -> Backend:
    try:
        model = BPE(
            vocab=vocab,
            merges=[(a, b) for a, b in (merge.split(" ") for merge in merges)],
            continuing_subword_prefix="",
            end_of_word_suffix=SUFFIX,
            unk_token=markers[1].content,
        )
    except Exception as error:  # the library has no exception type of its own
        raise ValueError(f"vocabulary and merges do not fit together: {error}") from error
    backend = Backend(model)
    backend.normalizer = normalizer()  # pyright: ignore[reportAttributeAccessIssue]
    backend.pre_tokenizer = splitter()  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    distinct = {token.content: token for token in (*markers, *added)}
    backend.add_tokens(sorted(distinct.values(), key=lambda token: vocab[token.content]))
    return backend


def _marker(token: str | AddedToken) -> AddedToken:
    if isinstance(token, AddedToken):
        return token
    return AddedToken(token, special=True, normalized=False)


@functools.cache
def _built_in(pad: str) -> Tokenizer:
    packed = resources.files("darkroom.text").joinpath(_VOCABULARY).read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")
    count = _BUILT_IN_SIZE - 2 * 256 - 2
    merges = lines[1 : count + 1]  # the first line is a version
    return Tokenizer(clip_vocabulary(merges), merges, pad=pad)
