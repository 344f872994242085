"""Adapters change a model reversibly."""

import pytest
import torch
from torch import nn

from darkroom.adapters.lora import attach


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(32, 4))


def test_attached_changes_nothing_until_trained_and_detached_is_as_before():
    network, x = model(), torch.randn(2, 3, 4, 4)
    keys, before = list(network.state_dict()), network(x)
    lora = attach(network, "*", rank=2)
    assert list(network.state_dict()) != keys
    assert torch.equal(network(x), before)

    optimizer = torch.optim.SGD(lora.parameters(), lr=0.1)
    for _ in range(2):  # the first step moves ``up`` alone: it starts as zeros
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(network(x), before)

    lora.detach()
    assert list(network.state_dict()) == keys
    assert torch.equal(network(x), before)


def test_a_pattern_chooses_the_layers():
    network = model()
    lora = attach(network, "2", rank=3)
    assert list(lora.layers) == ["2"]
    assert sum(p.numel() for p in lora.parameters()) == 3 * (32 + 4)
    with pytest.raises(ValueError, match="no linear or convolution layer matches 'nothing'"):
        attach(model(), "nothing")
