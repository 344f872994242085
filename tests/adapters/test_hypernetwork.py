"""Hypernetworks against the public formula: x + weight * linear(x), before keys and values."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from darkroom.acceleration import Acceleration, accelerate
from darkroom.adapters.hypernetwork import Attached, Hypernetwork, HypernetworkConfig
from darkroom.errors import LayoutError, ModelMismatchError
from darkroom.nn.attention import Attention
from darkroom.ops.packed import can_pack


def state(width: int, seed: int, hidden: int = 0, norm: bool = False) -> dict[str, torch.Tensor]:
    """[1, 2, 1] with ReLU: linear, ReLU (, norm), linear (, norm)."""
    g, hidden = torch.Generator().manual_seed(seed), hidden or 2 * width
    shapes = {"0": (hidden, width), "3" if norm else "2": (width, hidden)}
    if norm:
        shapes |= {"2": (hidden,), "4": (width,)}
    return {
        f"linear.{name}.{leaf}": torch.randn(s if leaf == "weight" else s[:1], generator=g) * 0.3
        for name, s in shapes.items() for leaf in ("weight", "bias")
    }  # fmt: skip


def formula(x, s, norm: bool = False):
    x = F.relu(F.linear(x, s["linear.0.weight"], s["linear.0.bias"]))
    if norm:
        x = F.layer_norm(x, x.shape[-1:], s["linear.2.weight"], s["linear.2.bias"])
    last = "3" if norm else "2"
    x = F.linear(x, s[f"linear.{last}.weight"], s[f"linear.{last}.bias"])
    return F.layer_norm(x, x.shape[-1:], s["linear.4.weight"], s["linear.4.bias"]) if norm else x


RELU = HypernetworkConfig(activation_func="relu", activate_output=False)


@pytest.mark.parametrize("norm", [False, True])
@torch.no_grad()
def test_keys_and_values_are_of_changed_contexts(norm):
    torch.manual_seed(0)
    cross, alone = Attention(16, 2, 12), Attention(16, 2)
    network = nn.ModuleList((cross, alone))
    x, text = torch.randn(2, 5, 16), torch.randn(2, 3, 12)
    k, v, own_k, own_v = state(12, 1, 0, norm), state(12, 2, 0, norm), state(16, 3), state(16, 4)
    config = HypernetworkConfig(activation_func="relu", activate_output=False, is_layer_norm=norm)
    hyper = Hypernetwork({12: (k, v)}, config)
    both = Hypernetwork({16: (own_k, own_v)}, RELU)

    plain = copy.deepcopy(network)

    def attention(layer, x, keys, values):
        layer = plain[0 if layer is cross else 1]  # without hooks
        q, k, v = (
            project(y).unflatten(-1, (2, -1)).transpose(1, 2)
            for project, y in ((layer.q, x), (layer.k, keys), (layer.v, values))
        )
        found = (q @ k.mT / 8**0.5).softmax(-1) @ v
        return layer.out(found.transpose(1, 2).flatten(-2))

    before = cross(x, text), alone(x)
    with Attached(network, hyper, 0.7), Attached(network, both, -0.5):
        keys, values = (text + 0.7 * formula(text, part, norm) for part in (k, v))
        torch.testing.assert_close(cross(x, text), attention(cross, x, keys, values))
        keys, values = (x - 0.5 * formula(x, part) for part in (own_k, own_v))
        torch.testing.assert_close(alone(x), attention(alone, x, keys, values))
    assert torch.equal(cross(x, text), before[0])
    assert torch.equal(alone(x), before[1])
    with Attached(network, hyper, 0.7), Attached(network, hyper, 0.2):  # one after another
        first = text + 0.7 * formula(text, k, norm)
        keys = first + 0.2 * formula(first, k, norm)
        first = text + 0.7 * formula(text, v, norm)
        values = first + 0.2 * formula(first, v, norm)
        found = cross(x, text)
        torch.testing.assert_close(found, attention(cross, x, keys, values))
        if can_pack():
            with accelerate(network, Acceleration(packed=True)):
                torch.testing.assert_close(cross(x, text), found)
    with pytest.raises(ModelMismatchError, match="contexts of 7 channels finds none"):
        Attached(network, Hypernetwork({7: (state(7, 1), state(7, 2))}, RELU))


def test_the_output_s_activation_old_names_and_dropout():
    s, x = state(6, 1), torch.randn(2, 3, 6)
    old = {k.replace("linear.0", "linear1").replace("linear.2", "linear2"): t for k, t in s.items()}
    plain = Hypernetwork({6: (old, old)})  # the first files: no activation at all
    expected = F.linear(F.linear(x, s["linear.0.weight"], s["linear.0.bias"]),
                        s["linear.2.weight"], s["linear.2.bias"])  # fmt: skip
    torch.testing.assert_close(plain.pairs["6"][0](x), expected)
    config = HypernetworkConfig(activation_func="swish", activate_output=True)
    active = Hypernetwork({6: (s, s)}, config).pairs["6"][1](x)
    inner = F.hardswish(F.linear(x, s["linear.0.weight"], s["linear.0.bias"]))
    expected = F.hardswish(F.linear(inner, s["linear.2.weight"], s["linear.2.bias"]))
    torch.testing.assert_close(active, expected)
    counted = HypernetworkConfig(
        activation_func="relu", activate_output=False, use_dropout=True, last_layer_dropout=True
    )
    moved = {k.replace("linear.2", "linear.3"): t for k, t in s.items()}
    net = Hypernetwork({6: (moved, moved)}, counted).pairs["6"][0]
    torch.testing.assert_close(net(x), formula(x, s))  # dropout does nothing here


def test_what_is_no_hypernetwork_is_refused():
    good = state(6, 1)
    for config, states, message in (
        (RELU, {6: (good,)}, "two networks are expected, got 1"),
        (RELU, {6: (good, {})}, r"width 6: linear.0.bias, linear.0.weight.* are not as its"),
        (RELU, {5: (good, good)}, "width 5: linear.0.bias"),
        (HypernetworkConfig(activation_func="sin"), {6: (good, good)}, "'sin': expected one of"),
        (HypernetworkConfig(layer_structure=(1, 2)), {6: (good, good)}, "from 1 to 1"),
    ):
        with pytest.raises(LayoutError, match=message):
            Hypernetwork(states, config)
