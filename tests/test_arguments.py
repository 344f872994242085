"""Plain values that callers give, and words that other programs have."""

import inspect
import typing

import numpy as np
import pytest
import torch

import darkroom as dr
from darkroom.arguments import items, number, shown, string, switch, whole, wholes
from darkroom.errors import ArgumentError, ConfigError
from darkroom.keywords import ATTRIBUTES, WORDS, explained
from darkroom.vision.annotators import annotate
from darkroom.vision.classify import classify
from generation import small


def test_numbers_of_every_library():
    for three in (3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)):
        assert type(whole("n", three)) is int
        assert number("n", three) == 3.0
    for half in (0.5, np.float32(0.5), torch.tensor(0.5)):
        assert number("n", half) == 0.5
    assert wholes("n", torch.arange(3), "three") == wholes("n", range(3), "three") == (0, 1, 2)
    assert switch("n", np.True_) is True
    assert string("n", "a") == "a"


@pytest.mark.parametrize("wrong", ["3", 2.5, True, None, [3], -1, np.array([3]), 3.0])
def test_no_whole_number(wrong):
    with pytest.raises(ArgumentError, match=r"^n .*: expected a whole number$"):
        whole("n", wrong)


@pytest.mark.parametrize("wrong", ["0.5", True, None, [0.5], 1j, np.zeros(2)])
def test_no_number(wrong):
    with pytest.raises(ArgumentError, match="expected 0 to 1"):
        number("n", wrong, "0 to 1")


def test_nothing_else_either():
    for wrong in (3, "abc", None, {"a": 1}, np.array(3)):
        with pytest.raises(ArgumentError, match="expected a list"):
            items("n", wrong, "a list")
    with pytest.raises(ArgumentError, match="True or False"):
        switch("n", 1)
    with pytest.raises(ArgumentError, match="a text"):
        string("n", b"a")
    assert shown(np.zeros((2, 3))) == "of shape (2, 3)"
    assert len(shown("x\n" * 1000)) == 60


@pytest.mark.parametrize("door", [dr.develop, dr.generate, dr.load, dr.open_segmenter, dr.Guidance])
def test_words_of_other_programs(door):
    for word in set(WORDS) - set(inspect.signature(door).parameters):
        with pytest.raises(ConfigError, match=f"no argument '{word}'") as found:
            door(**{word: 1})
        assert WORDS[word] in str(found.value)


def test_what_is_ours_has_no_advice():
    """A word that a door takes is not explained away."""
    for door in (dr.develop, dr.load, dr.open_encoder, dr.select):
        names = set(inspect.signature(door).parameters) & set(WORDS)
        assert names <= {"image", "strength"}, names
    assert set(dr.__all__) & set(ATTRIBUTES) == {"generate"}  # of a segmenter it is theirs


def test_missing_and_mistyped_arguments():
    with pytest.raises(ArgumentError, match="develop: missing .*'prompt'"):
        dr.develop(small.model())
    with pytest.raises(ArgumentError, match="did you mean 'steps'"):
        dr.develop(small.model(), "a", step=3)
    with pytest.raises(ArgumentError, match="open_segmenter"):
        dr.open_segmenter("emoji-sam", "cpu", True, 1)


def test_attributes_of_other_programs():
    with pytest.raises(AttributeError, match=r"dr\.load"):
        _ = dr.StableDiffusionPipeline
    with pytest.raises(AttributeError, match="autoencoder"):
        _ = small.model().vae
    with pytest.raises(ArgumentError, match="develop"):
        small.model()("a fox")
    assert not hasattr(small.model(), "nothing_at_all")


@pytest.mark.parametrize(
    "door",
    [dr.develop, dr.generate, dr.load, dr.open_encoder, dr.open_segmenter, dr.replace, dr.select],
)
def test_doors_say_what_they_take(door):
    signature = inspect.signature(door)
    for parameter in signature.parameters.values():
        assert parameter.kind is not parameter.VAR_KEYWORD
        assert parameter.annotation is not parameter.empty
    assert signature.return_annotation is not signature.empty


def test_develop_takes_what_generate_takes():
    one, other = (inspect.signature(door).parameters for door in (dr.develop, dr.generate))
    assert [str(p) for p in one.values()] == [str(p) for p in other.values()]
    from darkroom.generation.picture import Picture

    assert typing.get_type_hints(dr.develop)["return"] == list[Picture]


def test_explained_keeps_the_function():
    @explained
    def draw(prompt: str, *, steps: int = 3) -> int:
        """Draw."""
        return steps

    assert draw("a", steps=4) == 4
    assert (draw.__name__, draw.__doc__) == ("draw", "Draw.")
    with pytest.raises(ArgumentError, match="too many"):
        draw("a", "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": 3}, "prompt"),
        ({"seeds": "7"}, "seeds"),
        ({"seeds": 7}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1.5]}, "seed"),
        ({"seeds": [-1]}, "seed"),
        ({"seeds": [2**64]}, "seed"),
        ({"seeds": range(10**6)}, "1,000,000 seeds"),
        ({"steps": "30"}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"size": 512}, "size"),
        ({"size": ("a",)}, "size"),
        ({"size": (64, 64, 3)}, "size"),
        ({"size": (64.0, 64.0)}, "size"),
        ({"sampler": 3}, "sampler"),
        ({"timesteps": "999,499"}, "timesteps"),
        ({"timesteps": [999.5, 1]}, "timesteps"),
        ({"options": [1]}, "options"),
        ({"noise": "x"}, "noise"),
        ({"noise": torch.full((1, 4, 16, 16), float("nan"))}, "noise"),
        ({"tile": "yes"}, "tile"),
        ({"memory_limit": "4 GB"}, "memory_limit"),
        ({"low_memory": 1}, "low_memory"),
    ],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ConfigError, match=message) as found:
        dr.generate(small.model(), **{"prompt": "a", **arguments})
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("model", [None, 3, "emoji", torch.nn.Linear(1, 1)])
def test_no_model(model):
    with pytest.raises(dr.DarkroomError, match=r"dr\.load"):
        dr.generate(model, "a")


@pytest.mark.parametrize(
    "make",
    [
        lambda: dr.Guidance("7"),
        lambda: dr.Guidance(float("nan")),
        lambda: dr.Guidance(7.5, negative=3),
        lambda: dr.Guidance(7.5, interval=0.5),
        lambda: dr.Guidance(7.5, split="yes"),
        lambda: dr.ImageToImage(np.zeros((8, 8, 3), np.uint8), "0.5"),
        lambda: dr.Inpaint(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool), padding=1.5),
        lambda: dr.Inpaint(np.zeros((8, 8, 3), np.uint8), extend=(1, 2)),
        lambda: dr.Control(None, np.zeros((8, 8, 3), np.uint8)),
        lambda: dr.Lora(3),
        lambda: dr.Lora({}, "1"),
        lambda: dr.Hypernetwork(3),
        lambda: dr.Embedding(3, name="a"),
        lambda: dr.Refiner(None),
        lambda: dr.Prompt(points=(1, 2)),
        lambda: dr.Prompt(points=3),
        lambda: dr.Prompt(points=((1, 2),), inside=("no",)),
        lambda: dr.Prompt(box="1,2,3,4"),
        lambda: dr.Prompt(),
        lambda: dr.load(None),
        lambda: dr.load("emoji", dtype=3),
        lambda: dr.load("emoji", device=[]),
    ],
)
def test_wrong_features(make):
    with pytest.raises(dr.DarkroomError) as found:
        make()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dr.select(None, None, np.zeros((8, 8, 3), np.uint8), "fox"),
        lambda: annotate("canny", None),
        lambda: annotate(3, np.zeros((8, 8, 3), np.uint8)),
        lambda: annotate("canny", np.zeros((8, 8, 3), np.uint8), low="x"),
        lambda: classify(None, np.zeros((8, 8, 3), np.uint8), ["a"]),
        lambda: dr.replace(np.zeros((8, 8, 3), np.uint8), "a", "b", grow=1.5),
        lambda: dr.open_encoder(device=3),
        lambda: dr.open_segmenter(None),
    ],
)
def test_wrong_values_of_what_sees(make):
    with pytest.raises(dr.DarkroomError) as found:
        make()
    assert "\n" not in str(found.value)
