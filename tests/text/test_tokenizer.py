"""Token ids against transformers' CLIPTokenizer and an independent statement of CLIP's BPE."""

import json
import pickle

import pytest
import unicode_fuzz as fuzz
from slow_bpe import SlowTokenizer, shipped

from cases import quick
from darkroom.errors import CheckpointError
from darkroom.text.byte_pairs import BOS, EOS
from darkroom.text.tokenizer import Tokenizer, _is_clips_own
from darkroom.text.tokenizer_training import train_tokenizer

CAPTIONS = [
    "a red car", "a blue car on a yellow background", "cat face", "cat with tears of joy",
    "the cat's house, and the dogs' houses!", "flag: Côte d’Ivoire", "1st place medal 2024",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.built_in()


@pytest.fixture(scope="module")
def reference(tokenizer, tmp_path_factory):
    return opened(tokenizer, tmp_path_factory.mktemp("tokenizer"))


def opened(tokenizer: Tokenizer, folder):
    from transformers import CLIPTokenizer

    tokenizer.save(folder)
    return CLIPTokenizer.from_pretrained(folder)


def flickr(data) -> list[str]:
    path = data / "flickr8k" / "captions.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return [line.split(",", 1)[1] for line in path.read_text("utf-8").splitlines()[1:]]


def test_known_ids(tokenizer):
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert tokenizer.encode("") == []
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (49406, 49407, 49407)
    assert (len(tokenizer), tokenizer.max_length) == (49408, 77)


def test_vocabulary_is_numbered_as_the_file_says(tokenizer):
    slow = shipped()
    assert len(slow.vocab) == 49406
    assert slow.vocab.items() <= tokenizer.vocab.items()


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_same_ids_as_transformers_on_captions(tokenizer, reference, data, every):
    captions = flickr(data)[::every]
    assert len(captions) == -(-40455 // every)
    assert reference(captions, add_special_tokens=False).input_ids == [
        tokenizer.encode(caption) for caption in captions
    ]


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_same_ids_as_the_slow_statement_on_captions(tokenizer, data, every):
    slow = shipped()
    assert [c for c in flickr(data)[::every] if tokenizer.encode(c) != slow.encode(c)] == []


@pytest.mark.parametrize("count", [5_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_same_ids_as_transformers_on_random_unicode(tokenizer, reference, count):
    texts = list(fuzz.strings(count))
    theirs = reference(texts, add_special_tokens=False).input_ids
    wrong = [t for t, ids in zip(texts, theirs, strict=True) if tokenizer.encode(t) != ids]
    assert wrong == []


@pytest.mark.parametrize("count", [5_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_same_ids_as_the_slow_statement_on_random_unicode(tokenizer, count):
    slow = shipped()
    texts = [t for t in fuzz.strings(count) if fuzz.settled(t) and not fuzz.has_marker(t)]
    assert len(texts) > 0.6 * count
    assert [t for t in texts if tokenizer.encode(t) != slow.encode(t)] == []


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "\udfff\ud800 x", "😀\ud83d"])
def test_lone_surrogates_are_replaced(tokenizer, text):
    expected = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    assert tokenizer.encode(text) == tokenizer.encode(expected)


def test_surrogate_pairs_are_joined(tokenizer):
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("A photo  of\na CAT!", "a photo of a cat !"),
        ("naïve 😀 漢字", "naïve 😀 漢字"),
        ("it's", "it 's"),
        ("", ""),
    ],
)
def test_decode(tokenizer, text, decoded):
    ids = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos, tokenizer.pad]
    assert tokenizer.decode(ids) == decoded


def test_encoding_what_was_decoded_changes_nothing(tokenizer):
    for text in fuzz.strings(500, seed=3):
        if not fuzz.has_marker(text) and "\ufffd" not in text:
            ids = tokenizer.encode(text)
            assert tokenizer.decode(tokenizer.encode(tokenizer.decode(ids))) == tokenizer.decode(
                ids
            )


def test_built_in_is_read_once():
    assert Tokenizer.built_in() is Tokenizer.built_in()
    assert Tokenizer.built_in("!").pad == 0


def test_survives_pickling(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a cat") == tokenizer.encode("a cat")


def marker(content: str, normalized: bool = True) -> dict:
    rules = {"lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}
    return {"content": content, **rules}


def typed(content: str) -> dict:
    return {"__type": "AddedToken", **marker(content)}


MAP = {
    "bos_token": marker(BOS),
    "eos_token": marker(EOS),
    "pad_token": EOS,
    "unk_token": marker(EOS),
}
CONFIG = {
    "add_prefix_space": False,
    "bos_token": typed(BOS),
    "do_lower_case": True,
    "eos_token": typed(EOS),
    "errors": "replace",
    "model_max_length": 77,
    "pad_token": EOS,
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": typed(EOS),
}
NEWER = {
    **CONFIG,
    "added_tokens_decoder": {
        "0": {**marker("!", False), "special": True},
        "49406": {**marker(BOS), "special": True},
        "49407": {**marker(EOS), "special": True},
    },
    "bos_token": BOS,
    "eos_token": EOS,
    "pad_token": "!",
    "unk_token": EOS,
}
ADDED = {"<cat-toy>": 49408, "Sks": 49409}
FOLDERS = {  # as the public checkpoints write them: map, config, further files, pad
    "sd1": (MAP, CONFIG, {}, 49407),
    "sd2": ({**MAP, "pad_token": "!"}, CONFIG, {}, 0),
    "xl2": ({**MAP, "pad_token": "!"}, NEWER, {}, 0),
    "no config": ({**MAP, "pad_token": "!"}, None, {}, 0),
    "no map": (None, CONFIG, {}, 49407),
    "bare": (None, None, {}, 49407),
    "added": (MAP, CONFIG, {"added_tokens.json": ADDED}, 49407),
}


@pytest.mark.parametrize("name", quick(["sd2", "bare", "added"], FOLDERS))
def test_folders_as_transformers_reads_them(tokenizer, tmp_path, name):
    from transformers import CLIPTokenizer

    special, config, more, pad = FOLDERS[name]
    tokenizer.save(tmp_path)
    files = {"special_tokens_map.json": special, "tokenizer_config.json": config, **more}
    for file, value in files.items():
        (tmp_path / file).unlink(missing_ok=True)
        if value is not None:
            (tmp_path / file).write_text(json.dumps(value))
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_folder(tmp_path)
    assert (ours.bos, ours.eos, ours.pad) == (49406, 49407, pad)
    assert ours.pad == theirs.pad_token_id
    assert ours.max_length == 77
    texts = [
        *fuzz.strings(1500, seed=5),
        "a <cat-toy> SKS Sks sks x<cat-toy>y",
        "wow!!",
        "<Cat-Toy>",
    ]
    expected = theirs(texts, add_special_tokens=False).input_ids
    for text, ids in zip(texts, expected, strict=True):
        assert ours.encode(text) == ids, text
    again = tmp_path / "again"
    ours.save(again)
    ours, theirs = Tokenizer.from_folder(again), CLIPTokenizer.from_pretrained(again)
    assert ours.pad == theirs.pad_token_id == pad
    assert theirs(texts, add_special_tokens=False).input_ids == expected
    assert [ours.encode(text) for text in texts] == expected


def test_folder_with_tokenizer_json(reference, tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    reference.save_pretrained(tmp_path)
    assert not (tmp_path / "merges.txt").exists()
    theirs, ours = CLIPTokenizer.from_pretrained(tmp_path), Tokenizer.from_folder(tmp_path)
    assert ours.vocab == tokenizer.vocab
    texts = list(fuzz.strings(500, seed=6))
    assert theirs(texts, add_special_tokens=False).input_ids == [ours.encode(t) for t in texts]


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("merges.txt", None, "no merges.txt"),
        ("vocab.json", None, "no vocab.json"),
        ("vocab.json", b"{", "not valid JSON|nested"),
        ("vocab.json", b"[1]", "expected a JSON object"),
        ("vocab.json", b'{"a": "b"}', "whole number"),
        ("vocab.json", b"{}", "lacks the marker"),
        ("merges.txt", b"#version: 0.2\na b c\n", "not a pair"),
        ("merges.txt", b"#version: 0.2\nqq zz\n", "do not fit together"),
        ("merges.txt", b"\xff\xfe", "not UTF-8"),
        ("special_tokens_map.json", b'{"pad_token": "nothing"}', "lacks the marker 'nothing'"),
        ("special_tokens_map.json", b'{"pad_token": 7}', "neither a string nor an object"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "CLIP's kind"),
        ("tokenizer.json", b'{"model": {"end_of_word_suffix": "</w>"}}', "whole number"),
        (
            "tokenizer.json",
            b'{"model": {"end_of_word_suffix": "</w>", "vocab": {}, "merges": [["a", 1]]}}',
            "not a pair",
        ),
        (
            "tokenizer.json",
            b'{"model": {"end_of_word_suffix": "</w>", "vocab": {}, "merges": 7}}',
            "not a pair",
        ),
        ("vocab.json", b'{"<|startoftext|>": 99999999999}', "do not fit|lacks"),
        ("vocab.json", b"[" * 100_000, "not valid JSON|nested"),
        ("added_tokens.json", b'{"<|endoftext|>": 3}', "among the added tokens"),
        ("added_tokens.json", b'{"x": "y"}', "not the id"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": 2}}', "neither a string nor"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [3]}', "added_tokens_decoder"),
    ],
)
def test_damaged_folders_are_one_line(tmp_path, file, content, complaint):
    train_tokenizer(CAPTIONS, 600).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")  # the older way of writing
    path = tmp_path / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint) as error:
        Tokenizer.from_folder(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_trained_vocabulary_opens_in_transformers(tmp_path):
    ours = train_tokenizer(CAPTIONS, 620, max_length=24)
    theirs = opened(ours, tmp_path)
    assert theirs.model_max_length == 24
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos, ours.eos)
    texts = [*CAPTIONS, *fuzz.strings(1000, seed=7)]
    short = theirs(texts, add_special_tokens=False, truncation=False, verbose=False).input_ids
    assert short == [ours.encode(text) for text in texts]
    again = Tokenizer.from_folder(tmp_path)
    assert (again.vocab, again.merges, again.max_length) == (ours.vocab, ours.merges, 24)


def test_trained_vocabulary_agrees_with_the_slow_statement():
    ours = train_tokenizer(CAPTIONS, 620)
    slow = SlowTokenizer(ours.vocab, [tuple(m.split(" ")) for m in ours.merges])
    texts = [t for t in fuzz.strings(2000, seed=8) if fuzz.settled(t) and not fuzz.has_marker(t)]
    for text in [*CAPTIONS, *texts]:
        assert ours.encode(text) == slow.encode(text), text
        assert ours.unknown(text) == []


def test_training_joins_the_most_frequent_pair_first():
    tokenizer = train_tokenizer(["ab"] * 3 + ["abc", "xyz xyz"], 600)
    # a+b</w> 3 times; then x+y and y+z</w> 2 times each, the first in the alphabet first
    assert tokenizer.merges == ("a b</w>", "x y", "xy z</w>")
    assert len(tokenizer) == 514 + 3


def test_training_is_deterministic_and_minds_no_order():
    first = train_tokenizer(CAPTIONS * 3, 640)
    assert train_tokenizer(list(reversed(CAPTIONS * 3)), 640).merges == first.merges
    assert len(first) <= 640


def test_training_counts_a_token_that_two_pairs_spell_once():
    tokenizer = train_tokenizer(["abc"] * 3 + ["bcd"] * 9 + ["abd"] * 8 + ["xabc"] * 2, 560)
    assert sorted(tokenizer.vocab.values()) == list(range(len(tokenizer)))


def test_training_needs_room_for_the_bytes():
    with pytest.raises(ValueError, match="514 are needed"):
        train_tokenizer(CAPTIONS, 513)


def test_unknown_characters_are_named():
    vocab = {"c": 0, "a": 1, "t</w>": 2, BOS: 3, EOS: 4}
    tokenizer = Tokenizer(vocab, [], max_length=8)
    assert tokenizer.encode("cat") == [0, 1, 2]
    assert tokenizer.encode("cart") == [0, 1, 4, 2]
    assert tokenizer.unknown("cart, cat") == ["r", ","]
    assert tokenizer.unknown(f"cat {EOS}") == []


def test_bad_arguments():
    with pytest.raises(ValueError, match="lacks the marker"):
        Tokenizer({"a": 0}, [])
    with pytest.raises(ValueError, match="need 3"):
        Tokenizer({BOS: 0, EOS: 1}, [], max_length=2)


def test_clips_own_vocabulary_is_recognised_and_nothing_else_is():
    """It is known to be sound, and is not checked pair by pair at every loading."""
    own = Tokenizer.built_in()
    assert _is_clips_own(own.vocab, own.merges)
    assert not _is_clips_own(own.vocab, own.merges[:-1])
    assert not _is_clips_own(own.vocab, (*own.merges[:-1], "a b"))
    swapped = own.vocab | {"a</w>": own.vocab["b</w>"], "b</w>": own.vocab["a</w>"]}
    assert not _is_clips_own(swapped, own.merges)
