"""Word pieces: ids against transformers' DistilBertTokenizer, files, learning a vocabulary."""

import json
import pickle

import pytest
import torch
import unicode_fuzz as fuzz

from darkroom.errors import CheckpointError
from darkroom.text.wordpiece import MARKERS, WordPiece

CAPTIONS = [
    "A red car", "a blue car on a yellow background", "cat face", "Cat with tears of joy",
    "the cat's house, and the dogs' houses!", "flag: Côte d’Ivoire", "1st place medal 2024",
    "two dogs running on the grass .", "a dog runs in the grass", "漢字 かな 한글", "naïve ΟΔΟΣ",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> WordPiece:
    letters = list(fuzz.KINDS)
    return WordPiece.train([*CAPTIONS * 2, *fuzz.WORDS, *letters[:3], *letters[8:9]], 800)


def theirs(folder, **options):
    from transformers import DistilBertTokenizer

    return DistilBertTokenizer.from_pretrained(folder, **options)


def texts(count: int) -> list[str]:
    marked = [f"{a} {m} b{m}c {m.lower()}" for m in MARKERS for a in CAPTIONS]
    return [*CAPTIONS, *marked, "x" * 100, "x" * 101, "", " ", *fuzz.strings(count)]


def test_markers_and_pieces() -> None:
    vocab = [*MARKERS, "dog", "##s", "run", "##ning", "."]
    words = WordPiece({token: number for number, token in enumerate(vocab)})
    assert words.encode("Dogs running.", 10) == (
        [2, 5, 6, 7, 8, 9, 3, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    )
    assert words.encode("dogs run dogs", 5) == ([2, 5, 6, 7, 3], [1] * 5)
    assert words.encode("a dog", 4) == ([2, 1, 5, 3], [1] * 4)
    assert words.encode("", 3) == ([2, 3, 0], [1, 1, 0])
    with pytest.raises(ValueError, match="two markers need 2"):
        words.encode("dog", 1)


@pytest.mark.parametrize("source", ["vocab.txt", "tokenizer.json"])
def test_same_ids_as_transformers(tokenizer: WordPiece, source: str, tmp_path) -> None:
    tokenizer.save(tmp_path)
    reference = theirs(tmp_path)
    if source == "tokenizer.json":
        reference.save_pretrained(tmp_path / "whole")
        assert (tmp_path / "whole" / "tokenizer.json").is_file()
        tokenizer = WordPiece.from_folder(tmp_path / "whole")
    else:
        tokenizer = WordPiece.from_folder(tmp_path)
    for length in (8, 64):
        found = reference(texts(3000), padding="max_length", truncation=True, max_length=length)
        for text, ids, mask in zip(texts(3000), found.input_ids, found.attention_mask, strict=True):
            assert tokenizer.encode(text, length) == (ids, mask), text


@pytest.mark.parametrize(
    "options",
    [
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False, "tokenize_chinese_chars": False},
    ],
)
def test_other_settings(tokenizer: WordPiece, options: dict, tmp_path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    reference, ours = theirs(tmp_path), WordPiece.from_folder(tmp_path)
    for text in texts(500):
        assert ours.encode(text, 200)[0][: len(reference(text).input_ids)] == (
            reference(text).input_ids
        )
    ours.save(tmp_path / "again")
    assert WordPiece.from_folder(tmp_path / "again").encode("Ça 漢字", 9) == ours.encode(
        "Ça 漢字", 9
    )


def test_batches_are_as_long_as_their_longest(tokenizer: WordPiece) -> None:
    ids, mask = tokenizer.batch(CAPTIONS, 200)
    assert ids.shape == mask.shape
    assert ids.dtype == mask.dtype == torch.int64
    assert int(mask.sum(1).max()) == ids.shape[1] < 200
    for row, text in enumerate(CAPTIONS):
        assert (ids[row].tolist(), mask[row].tolist()) == tokenizer.encode(text, ids.shape[1])
    assert tokenizer.batch(CAPTIONS, 6)[0].shape == (len(CAPTIONS), 6)
    assert tokenizer.batch([], 6)[0].shape == (0, 0)


def test_training() -> None:
    words = WordPiece.train(["low low low lower lower new newer"], 40)
    assert list(words.vocab)[:5] == list(MARKERS)
    assert {"l", "##o", "n", "##e", "low", "lower", "##er"} <= words.vocab.keys()
    assert words.unknown not in words.encode("lower we rolen", 20)[0]
    assert words.unknown in words.encode("lower x", 20)[0]
    assert len(WordPiece.train(["low low low lower"] * 3, 17)) == 17
    for size in (150, 300):
        one, other = (WordPiece.train(c, size).vocab for c in (CAPTIONS, CAPTIONS[::-1]))
        assert one == other
    assert len(WordPiece.train(["word " + "y" * 101], 30).vocab.keys() & {"y", "##y"}) == 0
    with pytest.raises(ValueError, match="size is 9: 15 are needed for 5 markers and 5 letters"):
        WordPiece.train(["lower"], 9)


def test_pickles(tokenizer: WordPiece) -> None:
    """For the workers of a data loader."""
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(CAPTIONS[4], 40) == tokenizer.encode(CAPTIONS[4], 40)


def test_faults_are_named(tokenizer: WordPiece, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"vocab\.txt: missing"):
        WordPiece.from_folder(tmp_path)
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\ndog\n")
    with pytest.raises(CheckpointError, match=r"5 tokens lacks \[UNK\]"):
        WordPiece.from_folder(tmp_path)
    path.write_text("\n".join([*MARKERS, "dog", "dog"]))
    with pytest.raises(CheckpointError, match="'dog' stands there twice"):
        WordPiece.from_folder(tmp_path)
    path.write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="not UTF-8"):
        WordPiece.from_folder(tmp_path)
    with pytest.raises(ValueError, match="are not 0 to 5"):
        WordPiece({**{m: i for i, m in enumerate(MARKERS)}, "dog": 7})
    whole = {"model": {"type": "BPE", "vocab": {}}, "normalizer": {"type": "BertNormalizer"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match="not a tokenizer of BERT's kind"):
        WordPiece.from_folder(tmp_path)
