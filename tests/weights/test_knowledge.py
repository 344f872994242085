"""What the built-in models know: their words, and the nearest to those that they never saw."""

import json

import pytest

from darkroom.weights.knowledge import STOP_WORDS, Knowledge, knowledge_of, words_of
from darkroom.weights.locate import ASSETS, built_in_names


@pytest.mark.parametrize("name", built_in_names())
def test_every_built_in_model_says_what_it_knows(name):
    known = knowledge_of(name)
    assert known is not None
    assert known.about and known.instead.startswith("darkroom models pull ")
    assert name in known.line


def test_others_say_nothing(tmp_path):
    assert knowledge_of("sd15") is None
    assert knowledge_of(str(ASSETS / "emoji")) is None
    assert Knowledge(name="x", about="", instead="").read("a fox").line("x") == ""


@pytest.mark.parametrize(
    "prompt",
    [
        "a red apple", "rocket", "a cat on a yellow background", "grinning face emoji", "",
        "Woman Scientist", "the (red:1.3) apple <lora:nothing:1>", "of the and with", "7 42",
    ],
)  # fmt: skip
def test_what_it_saw_needs_no_word(prompt):
    reading = knowledge_of("emoji").read(prompt)
    assert reading.line("emoji") == ""
    assert reading.plain() == {"unseen": [], "never_together": [], "near": []}


@pytest.mark.parametrize(
    ("prompt", "word", "near"),
    [
        ("two robots", "robots", "robot"),
        ("a wizzard", "wizzard", "wizard"),
        ("cyberpunk", "cyberpunk", None),
        ("ein roter Apfel", "ein", None),
        ("an OCTOPUSS", "octopuss", "octopus"),
    ],
)
def test_words_that_it_never_saw(prompt, word, near):
    (one, *_) = knowledge_of("emoji").read(prompt).unseen
    assert one.word == word
    assert (one.near[0] if one.near else None) == near
    assert repr(word) in knowledge_of("emoji").read(prompt).line("emoji")


def test_words_that_never_stood_together():
    reading = knowledge_of("emoji").read("a sad robot")
    assert reading.unseen == ()
    assert reading.apart == ("sad", "robot")
    assert "robot" in reading.near
    assert "knows 'sad' and 'robot', but not together" in reading.line("emoji")


def test_the_encoder_never_saw_what_was_kept_aside():
    clip, drawn = knowledge_of("emoji-clip"), knowledge_of("emoji")
    assert clip.never and clip.never <= drawn.words
    word = next(w for w in sorted(clip.never) if w not in STOP_WORDS.split())
    assert clip.read(word).unseen and not drawn.read(word).unseen


def test_the_level_was_measured():
    likely = json.loads((ASSETS / "emoji-clip/knowledge.json").read_text())["likely"]
    assert knowledge_of("emoji-clip").likely == likely["cosine"]
    assert likely["own_above"] > 0.9 > 0.1 > likely["photographs_above"]
    assert likely["of_own"] > 1000 and likely["of_photographs"] > 1000


def test_long_texts_are_bounded():
    assert len(words_of("abc " * 100_000)) == 1
    many = " ".join(f"wo{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(9000))
    assert len(knowledge_of("emoji").read(many).line("emoji")) < 1500
