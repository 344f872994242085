"""Weights that are not at work are not resident, and nothing is lost by it."""

import mmap
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from darkroom.generation import residence
from darkroom.generation.generate import develop
from darkroom.machine import give_back
from darkroom.weights.files import read_tensors
from generation import small

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
COUNT = 3_000_000  # 12 MB


def resident(tensor: torch.Tensor) -> int:
    """Pages of it that this process has mapped."""
    first = -(-tensor.data_ptr() // mmap.PAGESIZE)
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(8 * first)
        data = file.read(8 * (tensor.nbytes // mmap.PAGESIZE - 1))
    return sum(byte >> 7 for byte in data[7::8])


@pytest.fixture
def mapped(tmp_path: Path) -> torch.Tensor:
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.arange(COUNT, dtype=torch.float32).view(1000, 3000)}, path)
    return read_tensors(path)["weight"]


@linux
def test_pages_of_files_come_back(mapped):
    total = mapped.double().sum()
    assert resident(mapped) > 2900
    assert give_back(mapped.data_ptr() + 1, mapped.nbytes - 1) > 10_000_000
    assert resident(mapped) < 10
    assert mapped.double().sum() == total


@linux
def test_what_was_written_stays(mapped):
    mapped.data[500] = -1.0
    own = torch.ones(COUNT)
    give_back(mapped.data_ptr(), mapped.nbytes)
    assert give_back(own.data_ptr(), own.nbytes) == 0
    assert 0 < resident(mapped) < 10
    assert (mapped[500] == -1).all()
    assert mapped[501, 0] == 501 * 3000
    assert (own == 1).all()


class Two(nn.Module):
    def __init__(self, mapped: torch.Tensor) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(3000, 1000, bias=False), nn.Linear(4, 4)
        self.large.weight = nn.Parameter(mapped, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.large(x)


@linux
def test_layers_and_networks_rest(mapped, monkeypatch):
    monkeypatch.setattr(residence, "LEAST", 1000)
    network, x = Two(mapped), torch.ones(1, 3000)
    expected = network(x)
    assert resident(mapped) > 2900
    residence.rest(network, "no network")
    assert resident(mapped) < 10
    residence.spare(network)
    residence.spare(network)
    assert torch.equal(network(x), expected)
    assert resident(mapped) < 10
    assert len(network.large._forward_hooks) == 1
    residence.spare(network, 0.0)
    assert torch.equal(network(x), expected)
    assert resident(mapped) > 2900
    assert not network.large._forward_hooks


def test_small_networks_are_left_alone(mapped):
    network = Two(mapped)
    residence.spare(network, 1.0)
    assert not network.large._forward_hooks


def test_low_memory_draws_the_same_picture(monkeypatch):
    monkeypatch.setattr(residence, "LEAST", 1000)
    monkeypatch.setattr(residence, "LAYER", 1000)
    model = small.model()
    usual = develop(model, "a", steps=2)[0]
    spared = develop(model, "a", steps=2, low_memory=True)[0]
    difference = torch.as_tensor(usual).int() - torch.as_tensor(spared).int()
    assert difference.abs().max() <= 1
    assert spared.params.split
    assert not usual.params.split
    again = develop(model, "a", steps=2)[0]
    assert again.image.tobytes() == usual.image.tobytes()


def test_every_network_rests_when_it_is_done(monkeypatch):
    model, rested = small.model(), []
    names = {id(model.unet): "unet", id(model.autoencoder): "autoencoder"}
    names[id(model.text_encoder)] = "text"

    def note(*networks):
        rested.extend(names[id(network)] for network in networks)

    for module in ("feature", "generate", "decode"):
        monkeypatch.setattr(f"darkroom.generation.{module}.rest", note)
    develop(replace(model, settings={**model.settings, "guidance": 1.0}), "a", steps=1)
    assert rested == ["text", "unet", "unet", "autoencoder"]
