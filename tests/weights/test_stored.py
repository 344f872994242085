"""Weights in half precision that are converted while a layer computes."""

import numpy as np
import pytest
import torch
from torch import nn

import darkroom as dr
from darkroom.generation.fingerprint import fingerprint
from darkroom.weights import stored
from generation import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole model in float16."""
    path = tmp_path_factory.mktemp("half") / "model"
    dr.save(small.model(family="sd1").to("float16"), path)
    return path


def types(model) -> set[torch.dtype]:
    return {p.dtype for network in model.networks for p in network.parameters()}


def test_the_same_picture_of_less(folder, monkeypatch):
    monkeypatch.setattr(stored, "LAYER", 1000)
    whole = dr.load(folder, dtype="float32", device="cpu")
    late = dr.load(folder, dtype="float32", device="cpu", low_memory=True)
    assert types(whole) == {torch.float32}
    assert types(late) == {torch.float16, torch.float32}
    assert late.dtype == torch.float32
    assert fingerprint(late) == fingerprint(whole)
    guidance = dr.Guidance(3.0, split=True)
    one, other = (dr.develop(m, "a fox", guidance, steps=2)[0] for m in (whole, late))
    assert one.params.dtype == other.params.dtype == "float32"
    assert np.array_equal(np.asarray(one), np.asarray(other))
    assert types(late) == {torch.float16, torch.float32}  # put back


def test_a_weight_is_put_back_after_an_error(monkeypatch):
    monkeypatch.setattr(stored, "LAYER", 1)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).half()
    stored.convert_late(network, torch.float32)
    assert network[0].weight.dtype == torch.float32  # the first tells what is computed in
    assert network[1].weight.dtype == torch.float16
    assert network(torch.ones(1, 4)).dtype == torch.float32
    with pytest.raises(RuntimeError):
        network[1](torch.ones(1, 3))
    assert network[1].weight.dtype == torch.float16
    assert stored.computes_in(network[1]) == torch.float32


def test_float32_files_are_as_they_were(tmp_path):
    dr.save(small.model(family="sd1"), tmp_path / "model")
    model = dr.load(tmp_path / "model", device="cpu", low_memory=True)
    assert types(model) == {torch.float32}
