"""The small dual encoder, and its way to a folder and back."""

import math

import pytest
import torch

import darkroom as dr
from darkroom.models.clip_text import TextConfig
from darkroom.models.contrastive import ContrastiveConfig, ContrastiveModel
from darkroom.weights.layouts import contrastive

SMALL = ContrastiveConfig(
    size=16,
    channels=(8, 16),
    blocks=(0, 1),
    embedding=12,
    text=TextConfig(
        vocabulary=50, positions=8, channels=16, layers=1, heads=2, hidden=32, end=49
    ),
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ContrastiveModel(SMALL).eval()


def test_both_towers_give_unit_vectors(model):
    image = model.encode_image(torch.rand(3, 3, 16, 16))
    text = model.encode_text(torch.tensor([[48, 3, 4, 49], [48, 5, 49, 49], [48, 49, 49, 49]]))
    assert image.shape == text.shape == (3, 12)
    for vectors in (image, text):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(3))


def test_padding_after_the_end_changes_nothing(model):
    short, long = torch.tensor([[48, 3, 49]]), torch.tensor([[48, 3, 49, 49, 49]])
    assert torch.allclose(model.encode_text(short), model.encode_text(long), atol=1e-5)


def test_pixels_are_normalised_by_mean_and_deviation(model):
    seen = []
    model.image.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.encode_image(torch.full((1, 3, 16, 16), 0.5))
    expected = [(0.5 - m) / d for m, d in zip(SMALL.mean, SMALL.deviation, strict=True)]
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(expected)


def test_the_scale_begins_as_clip_s_and_stops_at_100(model):
    assert model.scale.item() == pytest.approx(1 / 0.07)
    model.log_scale.data.fill_(9.0)
    assert model.scale.item() == pytest.approx(100)
    assert ContrastiveModel(SMALL).log_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_saved_and_loaded(model, tmp_path):
    dr.save(model, tmp_path / "model")
    again = dr.load(tmp_path / "model", device="cpu")
    assert isinstance(again, ContrastiveModel)
    assert again.config == SMALL
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(model.encode_image(pixels), again.encode_image(pixels))


def test_the_layout_is_the_model_s_own_names(model):
    state = model.state_dict()
    converted = contrastive.OWN.convert(state, SMALL)
    assert converted.keys() == state.keys()
    assert contrastive.OWN.revert(converted, SMALL).keys() == state.keys()
