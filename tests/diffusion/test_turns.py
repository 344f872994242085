"""Models that move, and networks that take turns on a device."""

import pytest
import torch
from torch import nn

import darkroom as dr
from darkroom import machine
from darkroom.diffusion.turns import take_turns
from darkroom.errors import ConfigError
from generation import small

CPU, META = torch.device("cpu"), torch.device("meta")


def test_to_moves_and_converts_all_networks():
    model = small.model()
    expected = dr.develop(model, "a", steps=1)[0].image.tobytes()
    assert model.to("cpu") is model
    assert dr.develop(model, "a", steps=1)[0].image.tobytes() == expected
    assert model.to("bfloat16") is model
    assert {p.dtype for part in model.networks for p in part.parameters()} == {torch.bfloat16}
    assert dr.develop(model, "a", steps=1)[0].params.dtype == "bfloat16"
    assert model.to("cpu", torch.float32).dtype == torch.float32
    assert model.to(device="meta").device.type == "meta"


@pytest.mark.parametrize("words", [("gpu",), ("cuda:99",), (3.5,), ("cpu", "float8"), ("cpu", 8)])
def test_to_nowhere(words):
    with pytest.raises(ConfigError):
        small.model().to(*words)


class Device:
    """Notes what is brought where, and leaves it on the CPU."""

    def __init__(self, model) -> None:
        self.names = {id(part): type(part).__name__ for part in model.networks}
        self.moves = []

    def __call__(self, network: nn.Module, place: torch.device) -> None:
        self.moves.append((self.names[id(network)], str(place)))


def test_networks_take_turns():
    model = small.model()
    expected = dr.develop(model, "a", steps=2)[0].image.tobytes()
    fake = Device(model)
    take_turns(model.networks, CPU, fake)
    parts = ["UNet", "Autoencoder", "ClipTextModel"]
    assert fake.moves == [(name, "cpu") for name in parts]
    fake.moves.clear()
    assert dr.develop(model, "a", steps=2)[0].image.tobytes() == expected
    order = ["ClipTextModel", "ClipTextModel", "UNet", "UNet", "Autoencoder"]
    assert [name for name, _ in fake.moves] == order


def test_inputs_come_along():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    take_turns([first, second], META)
    assert first.weight.is_cpu
    assert first(torch.ones(1, 2)).is_meta
    assert first.weight.is_meta
    assert second.weight.is_cpu


def test_offload_says_where_it_works(monkeypatch):
    monkeypatch.setattr(machine, "device", torch.device)
    model = small.model()
    waiting = model.offload("meta")
    assert waiting.device == META
    assert model.unet is waiting.unet
    assert next(waiting.unet.parameters()).is_cpu
    with pytest.raises(ConfigError, match="take turns"):
        waiting.to("cpu")


def test_offload_needs_a_device():
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not on this machine"):
            small.model().offload()
    assert dr.load("emoji", device="cpu", offload=True).home is None  # nowhere to wait
