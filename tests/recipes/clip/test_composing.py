"""Cut-outs over grounds: what lies where, what is said of it, and that an encoder learns it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import ConfigError
from darkroom.models.clip_text import TextConfig
from darkroom.models.contrastive import ContrastiveConfig
from darkroom.recipes import run
from darkroom.recipes.clip import Config
from darkroom.recipes.clip.composing import EMPTY, Composer, Composing, frames, laid, patterns, read
from darkroom.text.tokenizer_training import train_tokenizer
from darkroom.training.fit import Draw, FitOptions
from darkroom.vision.encoder import open_encoder

RECIPE = """
recipe = "clip"
data = "{data}"
out = "{out}"
held_out = 0.0
vocabulary = 560
query = "red square"
evaluate_every = 50
save_every = 10
half = true
[compose]
smallest = 0.8
company = 0.0
blurred = 0.0
tinted = 0.0
empty = 2
noun = "shape"
photographs = "{photographs}"
[model]
size = 16
channels = [8, 16]
blocks = [0, 1]
embedding = 16
dropout = 0.0
[model.text]
positions = 16
channels = 32
layers = 1
heads = 2
hidden = 64
[fit]
steps = {steps}
batch = 6
lr = 5e-3
warmup = 5
final_lr = 0.1
ema = 0.9
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def config(data, out, **compose):
    text = TextConfig(vocabulary=560, positions=24, channels=16, layers=1, heads=2, hidden=32)
    model = ContrastiveConfig(size=16, channels=(8, 16), blocks=(0, 1), embedding=8, text=text)
    return Config(
        data=data, out=out, held_out=0.0, compose=Composing(**compose), model=model,
        fit=FitOptions(batch=6),
    )  # fmt: skip


def composer(given):
    learnt = read(given)
    texts = [text for group in learnt.captions for text in group]
    return Composer(given, learnt, train_tokenizer(texts + frames(given.compose), 560, 24))


def said(made, ids):
    return [made.tokenizer.decode(row.tolist()) for row in ids]


def test_a_step_is_its_number_and_parts_make_it_up(captioned, photographs, tmp_path):
    made = composer(config(captioned, tmp_path, photographs=photographs))
    pixels, ids = made(Draw(7, 3))
    again, same = made(Draw(7, 3))
    assert torch.equal(pixels, again)
    assert torch.equal(ids, same)
    assert not torch.equal(pixels, made(Draw(7, 4))[0])
    assert pixels.shape == (6, 3, 16, 16)
    assert 0 <= pixels.min() <= pixels.max() <= 1
    parts = [made(Draw(7, 3, part, 2)) for part in (0, 1)]
    assert torch.equal(torch.stack([p for p, _ in parts], 1).flatten(0, 1), pixels)
    assert torch.equal(torch.stack([i for _, i in parts], 1).flatten(0, 1), ids)


def test_what_is_said_is_what_is_there(captioned, tmp_path):
    made = composer(
        config(
            captioned, tmp_path, smallest=1.0, largest=1.0, company=0.0, blurred=0.0, tinted=0.0,
            tagged=0.0, rare=0.0, empty=0,
        )
    )  # fmt: skip
    hues = {"red": 0, "green": 1, "blue": 2}
    for step in range(5):
        pixels, ids = made(Draw(1, step))
        for image, text in zip(pixels, said(made, ids), strict=True):
            (hue,) = (channel for name, channel in hues.items() if name in text)
            middle = image[:, 7:9, 7:9].mean((1, 2))
            assert middle.argmax() == hue, text


def test_empty_grounds_are_called_so(captioned, photographs, tmp_path):
    made = composer(config(captioned, tmp_path, photographs=photographs, empty=3, company=1.0))
    texts = [text for step in range(8) for text in said(made, made(Draw(1, step))[1])]
    assert {text for text in texts if "background" in text} == set(EMPTY)
    grounds, kinds = made.grounds(torch.Generator().manual_seed(0))
    assert set(kinds.tolist()) <= {0, 1, 2}
    assert grounds.shape == (6, 3, 16, 16)


def test_colours_that_a_name_has_are_left_alone(captioned, tmp_path):
    made = composer(config(captioned, tmp_path, tinted=1.0, empty=0, tagged=0.0))
    for text in said(made, made(Draw(1, 0))[1]):
        assert sum(name in text for name in ("red", "green", "blue", "pink", "brown")) == 1
    assert made.said(0, "pink", torch.Generator().manual_seed(0)).endswith("pink red square")


def test_things_lie_where_they_are_laid():
    things = torch.zeros(2, 4, 16, 16, dtype=torch.uint8)
    things[:, :, :, 8:] = 255  # opaque white on the right
    found = laid(
        things, torch.tensor([1.0, 0.5]), torch.tensor([[0.0, 0.0], [0.5, -0.5]]),
        torch.zeros(2), torch.tensor([True, False]),
    )  # fmt: skip
    assert found[0, 3, :, :7].min() == 1  # mirrored
    assert found[0, 3, :, 9:].max() == 0
    rows, columns = (found[1, 3] > 0.5).nonzero().unbind(1)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (12, 15, 0, 7)
    assert torch.equal(found[1, 0], found[1, 3])  # colours times alpha


def test_patterns_vary_the_ground():
    made = patterns(torch.full((20, 3, 16, 16), 0.5), torch.Generator().manual_seed(0))
    assert (made.std((1, 2, 3)) > 0.01).all()
    assert 0 <= made.min() <= made.max() <= 1


def test_it_learns_and_leaves_half_a_model(captioned, photographs, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        RECIPE.format(data=captioned, out=tmp_path / "run", photographs=photographs, steps=120)
    )
    losses = [step.loss for step in run(path)]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    encoder = open_encoder(tmp_path / "run" / "model", "cpu")
    names = ("red square", "blue disc", "green bar")
    pictures = [Image.open(captioned / f"{i}.png").convert("RGBA") for i in range(3)]
    assert encoder.similarity(pictures, names).argmax(1).tolist() == [0, 1, 2]
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    head = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for name, entry in head.items() if name != "__metadata__"} == {"F16"}


def test_families_are_kept_aside(captioned, tmp_path):
    given = replace(config(captioned, tmp_path), held_out=0.5)
    learnt = read(given)
    held = {text for (text,) in learnt.measured(16, True).images.captions}
    assert held
    assert held.isdisjoint(row["text"] for row in learnt.rows)
    assert learnt.measured(16, True).name == "kept aside"


@pytest.mark.parametrize(
    "values",
    [{"templates": ("a thing",)}, {"templates": ()}, {"smallest": 0.0}, {"empty": 4}],
)
def test_what_cannot_be_is_said(values):
    with pytest.raises(ConfigError, match="compose"):
        Composing(**values)


def test_photographs_are_no_cut_outs(photographs, tmp_path):
    for i in range(4):
        (Path(photographs) / f"{i}.txt").write_text("noise")
    with pytest.raises(ConfigError, match="needs cut-outs"):
        read(config(photographs, tmp_path))
