"""A checkpoint's ``tokenizer/`` folder as the arguments of a Tokenizer.

Older folders hold ``vocab.json`` and ``merges.txt``, newer ones ``tokenizer.json``; the markers are
in ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json``, each optional.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.text.byte_pairs import BOS, EOS, SUFFIX

_DEFAULT_LENGTH = 77
_LONGEST = 100_000  # transformers writes 1e30 for "no limit"


def read_folder(folder: Path) -> dict[str, Any]:
    """Keyword arguments for ``Tokenizer``.

    Raises:
        CheckpointError: A file is missing, damaged, or not of CLIP's kind.
    """
    vocab, merges = _vocabulary(folder)
    settings = read_object(folder / "tokenizer_config.json")
    tokens = _added_tokens(folder, settings)
    if (
        "added_tokens_decoder" not in settings
    ):  # the older way of writing; its map has the last word
        settings |= read_object(folder / "special_tokens_map.json")
    known = {token.content: token for token in tokens.values()}
    markers: dict[str, AddedToken] = {}
    for name, default in (("bos", BOS), ("eos", EOS), ("pad", EOS)):
        marker = _token(settings.get(f"{name}_token") or default, folder)
        markers[name] = known.pop(marker.content, marker)
    for number, token in tokens.items():
        if vocab.setdefault(token.content, number) != number:
            raise CheckpointError(
                f"{folder}: token {token.content!r} has id {vocab[token.content]} in the "
                f"vocabulary and {number} among the added tokens"
            )
    length = settings.get("model_max_length", _DEFAULT_LENGTH)
    if not isinstance(length, int | float) or not 3 <= length <= _LONGEST:
        length = _DEFAULT_LENGTH
    added = [token for token in tokens.values() if token.content in known]
    return {"vocab": vocab, "merges": merges, **markers, "max_length": int(length), "added": added}


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[str]]:
    merges: Any
    whole = folder / "tokenizer.json"
    if whole.is_file():
        model = read_object(whole).get("model")
        if not isinstance(model, dict) or model.get("end_of_word_suffix") != SUFFIX:
            raise CheckpointError(
                f"{whole}: not a tokenizer of CLIP's kind (byte pairs, words end with {SUFFIX})"
            )
        vocab, merges = model.get("vocab"), model.get("merges")
        source = whole
    else:
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise CheckpointError(
                    f"{folder}: no {name}; a tokenizer folder holds vocab.json and merges.txt, or "
                    "tokenizer.json"
                )
        vocab, merges = read_object(folder / "vocab.json"), _merge_lines(folder / "merges.txt")
        source = folder
    if not isinstance(vocab, dict) or not (
        set(map(type, vocab.values())) <= {int} and min(vocab.values(), default=0) >= 0
    ):
        raise CheckpointError(f"{source}: the vocabulary must give a whole number for each token")
    if whole.is_file():
        pairs = merges if isinstance(merges, list) else [merges]
        return vocab, [_pair(pair, whole) for pair in pairs]
    return vocab, merges


def _pair(merge: object, source: Path) -> str:
    """A merge of ``tokenizer.json``: "a b", or in newer files ["a", "b"]."""
    if isinstance(merge, str):
        return merge
    if isinstance(merge, list) and len(merge) == 2 and all(isinstance(t, str) for t in merge):
        return " ".join(merge)
    raise CheckpointError(f"{source}: merge {merge!r:.60} is not a pair of tokens")


def _merge_lines(path: Path) -> list[str]:
    first, *lines = foreign.read_text(path, CheckpointError).split("\n")
    return list(filter(None, lines if first.startswith("#version") else [first, *lines]))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file.

    Raises:
        CheckpointError: The file is no JSON object.
    """
    return foreign.read_object(path, CheckpointError) if path.exists() else {}


def _added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens that the folder adds to the vocabulary, in order of id."""
    entries: list[tuple[Any, Any]] = []
    if "added_tokens_decoder" in settings:
        decoder = settings["added_tokens_decoder"]
        if not isinstance(decoder, dict):
            raise CheckpointError(f"{folder}: added_tokens_decoder must be a JSON object")
        entries += decoder.items()
    else:
        for content, number in read_object(folder / "added_tokens.json").items():
            entries.append((number, {"content": content, "special": False, "normalized": True}))
        listed = read_object(folder / "tokenizer.json").get("added_tokens") or []
        entries += [(entry.get("id"), entry) for entry in listed if isinstance(entry, dict)]
    found = {_number(number, folder): _token(entry, folder) for number, entry in entries}
    return {number: found[number] for number in sorted(found)}


def _number(value: object, folder: Path) -> int:
    if isinstance(value, int | str) and str(value).isdecimal():
        return int(value)
    raise CheckpointError(f"{folder}: {value!r} is not the id of an added token")


def _token(entry: object, folder: Path) -> AddedToken:
    """A token as the folders write it: a string, or a dictionary with the rules of its match."""
    if isinstance(entry, str):
        return AddedToken(entry, special=True, normalized=False)
    if isinstance(entry, dict) and isinstance(entry.get("content"), str):
        rules = {key: bool(entry.get(key, False)) for key in ("single_word", "lstrip", "rstrip")}
        return AddedToken(
            entry["content"],
            **rules,
            normalized=bool(entry.get("normalized", True)),
            special=bool(entry.get("special", True)),
        )
    raise CheckpointError(
        f"{folder}: token {entry!r:.60} is neither a string nor an object with 'content'"
    )
