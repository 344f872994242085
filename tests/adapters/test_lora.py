"""Adapters change a model reversibly."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darkroom.acceleration import Acceleration, accelerate
from darkroom.adapters.lora import Lora, LowRank, attach
from darkroom.errors import ModelMismatchError
from darkroom.ops.packed import can_pack

PACKED = pytest.mark.skipif(not can_pack(), reason="no oneDNN")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(32, 4))


def changes(network: nn.Module, seed: int = 1, scale: float = 0.5) -> dict[str, LowRank]:
    g = torch.Generator().manual_seed(seed)
    layers = {"0": ((2, 3, 3, 3), (8, 2, 1, 1)), "2": ((5, 32), (4, 5))}
    return {
        path: LowRank(
            network.get_submodule(path),
            torch.randn(down, generator=g),
            torch.randn(up, generator=g),
            scale,
        )
        for path, (down, up) in layers.items()
    }


def merged(network: nn.Module, *loras: tuple[dict[str, LowRank], float]) -> nn.Module:
    """The same network, the changes added to its weights."""
    result = model()
    result.load_state_dict(network.state_dict())
    for layers, weight in loras:
        for path, layer in layers.items():
            product = torch.einsum("or,r...->o...", layer.up.flatten(1), layer.down)
            result.get_submodule(path).weight.data += weight * layer.scale * product
    return result


@torch.no_grad()
def test_several_changes_are_as_if_added_to_the_weights_and_come_off_in_any_order():
    network, x = model(), torch.randn(2, 3, 4, 4)
    before, keys = network(x), list(network.state_dict())
    first, second = changes(network), changes(network, seed=2)
    alone = merged(network, (second, -1.5))(x)
    a = Lora(network, first, 0.7)
    b = Lora(network, second, -1.5)
    torch.testing.assert_close(network(x), merged(model(), (first, 0.7), (second, -1.5))(x))
    assert list(network.state_dict()) == keys
    a.detach()
    torch.testing.assert_close(network(x), alone)
    assert not torch.allclose(network(x), before)
    b.detach()
    b.detach()
    assert torch.equal(network(x), before)


@torch.no_grad()
def test_a_convolution_in_three_parts():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    down, mid, up = torch.randn(2, 4, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(6, 2, 1, 1)
    weight = torch.einsum("or,rshw,si->oihw", up.flatten(1), mid, down.flatten(1))
    x = torch.randn(1, 4, 5, 5)
    expected = layer(x) + 0.3 * F.conv2d(x, weight, None, 2, 1)
    with Lora(nn.Sequential(layer), {"0": LowRank(layer, down, up, 0.3, mid)}):
        torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_1x1_kernels_fit_linear_layers_and_the_other_way_round():
    torch.manual_seed(0)
    linear, conv, x = nn.Linear(3, 5), nn.Conv2d(3, 5, 1), torch.randn(2, 3)
    down, up = torch.randn(2, 3), torch.randn(5, 2)
    for a, b in itertools.product((down, down[:, :, None, None]), (up, up[:, :, None, None])):
        torch.testing.assert_close(LowRank(linear, a, b)(x), x @ down.T @ up.T)
        found = LowRank(conv, a, b)(x[:, :, None, None])
        torch.testing.assert_close(found[:, :, 0, 0], x @ down.T @ up.T)


@PACKED
@pytest.mark.parametrize("order", ["attach first", "accelerate first"])
@pytest.mark.parametrize("undo_first", [True, False])
@torch.no_grad()
def test_packed_layers_keep_their_changes_in_any_order(order, undo_first):
    network, x = model(), torch.randn(2, 3, 4, 4)
    before, keys = network(x), list(network.state_dict())
    values = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layers = changes(network)
    expected = merged(network, (layers, 1.0))(x)
    plan = Acceleration(channels_last=True, packed=True)
    if order == "attach first":
        lora = Lora(network, layers)
        fast = accelerate(network, plan)
    else:
        fast = accelerate(network, plan)
        lora = Lora(network, changes(network))  # shapes are those of the layer it stands for
    torch.testing.assert_close(network(x), expected)
    if undo_first:
        fast.undo()
        torch.testing.assert_close(network(x), expected)
    lora.detach()
    torch.testing.assert_close(network(x), before)
    fast.undo()
    assert torch.equal(network(x), before)
    assert list(network.state_dict()) == keys
    assert all(torch.equal(network.state_dict()[name], values[name]) for name in keys)


def test_attached_changes_nothing_until_trained_and_detached_is_as_before():
    network, x = model().requires_grad_(False), torch.randn(2, 3, 4, 4)
    keys, before = list(network.state_dict()), network(x)
    lora = attach(network, "*", rank=2)
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


def test_what_does_not_fit_is_refused_and_leaves_nothing_behind():
    network, x = model(), torch.randn(1, 3, 4, 4)
    before = network(x)
    with pytest.raises(ModelMismatchError, match="do not fit a layer of 32 to 4 channels"):
        LowRank(network[2], torch.zeros(2, 31), torch.zeros(4, 2))
    with pytest.raises(ModelMismatchError, match="kernel of 3x3"):
        LowRank(network[0], torch.zeros(2, 3, 1, 1), torch.zeros(8, 2, 1, 1))
    with pytest.raises(ModelMismatchError, match="mid"):
        LowRank(network[2], torch.zeros(2, 32), torch.zeros(4, 2), mid=torch.zeros(2, 2, 3, 3))
    with pytest.raises(ModelMismatchError, match="a Flatten takes no LoRA"):
        LowRank(network[1], torch.zeros(2, 3), torch.zeros(4, 2))
    with pytest.raises(ModelMismatchError, match="has no layer '7'"):
        Lora(network, {**changes(network), "7": changes(network)["2"]})
    assert torch.equal(network(x), before)
    network.compile(backend="eager")
    with pytest.raises(ModelMismatchError, match="compiled"):
        Lora(network, changes(network))
