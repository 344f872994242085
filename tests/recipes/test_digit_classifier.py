"""The judge of drawn digits learns, resumes with the same losses, and reads what it is given."""

import itertools

import pytest
import torch

from darkroom.models.digit_classifier import DigitClassifier, DigitClassifierConfig
from darkroom.recipes import run
from darkroom.recipes.digit_classifier import load_classifier, read, share_read, shifted, sized
from darkroom.training.data import idx

RECIPE = """
recipe = "digit-classifier"
data = "{data}"
out = "{out}"
shift = 1
save_every = 10
evaluate_every = 50
[model]
channels = [8, 16, 16]
features = 32
[fit]
steps = {steps}
batch = 32
lr = 1e-2
warmup = 1
"""


def recipe(folder, digits, out, steps=120):
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(data=digits, out=folder / out, steps=steps))
    return path


def test_it_learns_to_read_and_resumes(digits, tmp_path):
    whole = [step.loss for step in run(recipe(tmp_path, digits, "whole"))]
    model, test = load_classifier(tmp_path / "whole" / "classifier.safetensors"), idx(digits, False)
    assert share_read(model, test) > 0.9
    labels, features = read(model, test.pixels.float() / 255)
    assert features.shape == (60, 32) and (labels == test.labels).float().mean() > 0.9
    assert "test digits are read right" in (tmp_path / "whole" / "report.html").read_text()

    path = recipe(tmp_path, digits, "cut")
    first = [step.loss for step in itertools.islice(run(path), 25)]
    assert first + [step.loss for step in run(path)] == whole


def test_sizes():
    torch.manual_seed(0)
    model = DigitClassifier(DigitClassifierConfig()).eval()
    small = torch.rand(2, 1, 28, 28)
    large = torch.nn.functional.pad(small, (2, 2, 2, 2))
    assert torch.equal(model(small), model(large))  # 28 is 32 with a black frame
    assert model.features(small).shape == (2, 128) and model(small).shape == (2, 10)
    with pytest.raises(ValueError, match="digits of"):
        model(torch.rand(2, 1, 30, 30))


def test_shifts_move_whole_pixels():
    g = torch.Generator().manual_seed(0)
    image = torch.zeros(64, 1, 8, 8)
    image[:, 0, 4, 4] = 1
    moved = shifted(image, 2, g)
    assert (moved.sum((1, 2, 3)) == 1).all()
    places = {tuple(place[2:]) for place in moved.nonzero().tolist()}
    assert len(places) > 15 and all(2 <= a <= 6 for place in places for a in place)


def test_half_of_the_digits_are_enlarged():
    pixels = torch.full((200, 1, 28, 28), 255, dtype=torch.uint8)
    edges = sized(pixels, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    assert set(edges.tolist()) == {0.0, 1.0} and 60 < edges.sum() < 140
