"""Learning a byte-pair vocabulary of CLIP's kind from captions (Sennrich et al., 2016)."""

import collections
import heapq
import itertools
from collections.abc import Iterable

from darkroom.text.byte_pairs import (
    SUFFIX,
    clip_vocabulary,
    encodable,
    normalizer,
    splitter,
)
from darkroom.text.tokenizer import Tokenizer

Pair = tuple[str, str]
_FIXED = 2 * 256 + 2  # every byte inside and at the end of a word, and two markers


def train_tokenizer(
    captions: Iterable[str], vocab_size: int, max_length: int = 77, at_least: int = 2
) -> Tokenizer:
    """Join the most frequent pair of tokens, again and again.

    The same captions give the same vocabulary on every machine: ties go to the pair that sorts
    first. Bytes are numbered as in CLIP, so any text can be encoded.

    Args:
        captions: Texts; a word counts as often as it occurs.
        vocab_size: Tokens in all, at least 514. Fewer are made when the captions run out of pairs.
        max_length: Tokens in one chunk, both markers included.
        at_least: Occurrences that a pair needs.

    Raises:
        ValueError: ``vocab_size`` is too small to hold every byte.
    """
    if vocab_size < _FIXED:
        raise ValueError(
            f"vocab_size is {vocab_size}: {_FIXED} are needed for the bytes and both markers"
        )
    counts = _words(captions)
    words = [_letters(word) for word in counts]
    merges = learn_merges(words, list(counts.values()), vocab_size - _FIXED, at_least)
    return Tokenizer(clip_vocabulary(merges), merges, max_length=max_length)


def _words(captions: Iterable[str]) -> dict[str, int]:
    """How often each word occurs, in alphabetical order, spelled in the byte alphabet."""
    normal, split = normalizer(), splitter()
    counts: collections.Counter[str] = collections.Counter()
    for caption, times in collections.Counter(captions).items():
        for word, _ in split.pre_tokenize_str(normal.normalize_str(encodable(caption))):
            counts[word] += times
    return {word: counts[word] for word in sorted(counts)}


def _letters(word: str) -> list[str]:
    return [*word[:-1], word[-1] + SUFFIX]


def learn_merges(words: list[list[str]], counts: list[int], limit: int, at_least: int) -> list[str]:
    """Up to ``limit`` pairs "a b" in the order of joining; ``words`` end up joined.

    Args:
        words: each as its tokens; the i-th occurs ``counts[i]`` times.
        at_least: occurrences that a pair needs.
    """
    totals: collections.Counter[Pair] = collections.Counter()
    homes: dict[Pair, set[int]] = collections.defaultdict(set)  # pair -> words that hold it
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            totals[pair] += counts[index]
            homes[pair].add(index)
    # Entries go stale when a count changes; a fresh one is pushed then, and stale ones are skipped.
    queue = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(queue)
    made: set[str] = set()  # two pairs may spell one token, which counts once
    merges: list[str] = []
    while queue and len(made) < limit:
        negative, pair = heapq.heappop(queue)
        if totals[pair] != -negative:
            continue
        if -negative < at_least:
            break
        made.add(pair[0] + pair[1])
        merges.append(" ".join(pair))
        for changed in _join(pair, words, counts, totals, homes):
            heapq.heappush(queue, (-totals[changed], changed))
    return merges


def _join(
    pair: Pair,
    words: list[list[str]],
    counts: list[int],
    totals: collections.Counter[Pair],
    homes: dict[Pair, set[int]],
) -> set[Pair]:
    """Replace ``pair`` by its token in every word; the pairs whose totals changed."""
    changed: set[Pair] = set()
    for index in homes.pop(pair):
        before = words[index]
        after = join_pair(before, pair)
        words[index] = after
        for old in itertools.pairwise(before):
            totals[old] -= counts[index]
            homes[old].discard(index)
            changed.add(old)
        for new in itertools.pairwise(after):
            totals[new] += counts[index]
            homes[new].add(index)
            changed.add(new)
    return changed


def join_pair(tokens: list[str], pair: Pair) -> list[str]:
    """``tokens`` with each occurrence of ``pair``, from the left, made one token."""
    joined: list[str] = []
    position = 0
    while position < len(tokens):
        if tuple(tokens[position : position + 2]) == pair:
            joined.append(pair[0] + pair[1])
            position += 2
        else:
            joined.append(tokens[position])
            position += 1
    return joined
