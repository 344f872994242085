"""Changes of other kinds than LoRA: against lycoris-lora's own numbers; live and fused alike."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from darkroom.acceleration import Acceleration, accelerate
from darkroom.adapters.fused import Fused
from darkroom.adapters.lora import Lora, LowRank
from darkroom.adapters.lycoris import NormChange, Rebuilt, is_norm_change
from darkroom.errors import ModelMismatchError
from darkroom.nn.normalization import NormSilu
from darkroom.ops.packed import can_pack

VECTORS = Path(__file__).parents[1] / "vectors"
sys.path.insert(0, str(VECTORS))
from lycoris_layers import draw, input_of, layer_of  # noqa: E402

sys.path.remove(str(VECTORS))
THEIRS = json.loads((VECTORS / "lycoris_layers.json").read_text("utf-8"))
ROLES = {"lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid"}


def change_of(case: str, layer: nn.Module):
    row = THEIRS[case]
    drawn = draw(11, {name: tuple(shape) for name, shape in row["shapes"].items()})
    tensors = {ROLES.get(name, name): tensor for name, tensor in drawn.items()}
    if is_norm_change(tensors):
        return NormChange(layer, tensors)
    if tensors.keys() <= {"down", "up", "mid"}:
        rank = tensors["down"].shape[0]
        return LowRank(layer, scale=row["alpha"] / rank, **tensors)
    return Rebuilt(layer, tensors, row["alpha"])


@pytest.mark.parametrize("case", THEIRS)
@torch.no_grad()
def test_as_lycoris_computes_it_live_and_fused(case):
    kind = THEIRS[case]["layer"]
    layer, x = layer_of(kind), input_of(kind)
    network, change = nn.Sequential(layer), change_of(case, layer)
    before, state = network(x), {k: v.clone() for k, v in network.state_dict().items()}
    expected = torch.tensor(THEIRS[case]["output"]).view(before.shape)
    assert (expected - before).abs().max() > 0.01
    with Lora(network, {"0": change}):
        torch.testing.assert_close(network(x), expected, atol=2e-5, rtol=1e-4)
    assert torch.equal(network(x), before)
    own = layer.weight.data_ptr()
    fused = Fused(network, [({"0": change}, 1.0)])
    torch.testing.assert_close(network(x), expected, atol=2e-5, rtol=1e-4)
    fused.detach()
    fused.detach()
    assert torch.equal(network(x), before)
    assert layer.weight.data_ptr() == own
    assert all(torch.equal(network.state_dict()[k], v) for k, v in state.items())


@torch.no_grad()
def test_several_add_up_in_any_order():
    """Each is a difference of the weight the model came with, whatever else is attached."""
    layer, x = layer_of("linear"), input_of("linear")
    network, plain = nn.Sequential(layer), layer_of("linear")(x)
    weights = {"oft": 0.5, "dora rows": -0.3, "loha": 2.0}
    changes = {case: change_of(case, layer) for case in weights}
    total = plain.clone()
    for case, weight in weights.items():
        with Lora(network, {"0": changes[case]}, weight):
            total += network(x) - plain
    for order in itertools.permutations(weights):
        attached = [Lora(network, {"0": changes[case]}, weights[case]) for case in order]
        torch.testing.assert_close(network(x), total)
        for lora in attached:
            lora.detach()
        with Fused(network, [({"0": changes[case]}, weights[case]) for case in order]):
            torch.testing.assert_close(network(x), total)
    assert torch.equal(network(x), plain)


@torch.no_grad()
def test_norms_with_an_activation_behind_them():
    network, x = nn.Sequential(NormSilu(2, 4)), input_of("group norm")
    before = network(x)
    one, two = (
        NormChange(network[0], draw(seed, {"w_norm": (4,), "b_norm": (4,)})) for seed in (1, 2)
    )
    with Fused(network, [({"0": one}, 0.5), ({"0": two}, -1.0)]):
        expected = network(x)
    a, b = Lora(network, {"0": one}, 0.5), Lora(network, {"0": two}, -1.0)
    torch.testing.assert_close(network(x), expected)
    a.detach()
    with Fused(network, [({"0": one}, 0.0)]):
        b.detach()
        assert torch.equal(network(x), before)


@pytest.mark.skipif(not can_pack(), reason="no oneDNN")
@pytest.mark.parametrize("case", ["oft", "dora columns", "lokr conv", "full"])
@torch.no_grad()
def test_packed_layers_take_them_live_and_refuse_to_be_fused(case):
    kind = THEIRS[case]["layer"]
    layer, x = layer_of(kind), input_of(kind)
    network, change = nn.Sequential(layer), change_of(case, layer)
    with Lora(network, {"0": change}, 0.7):
        expected = network(x)
    with accelerate(network, Acceleration(packed=True)):
        change = change_of(case, network[0])
        with Lora(network, {"0": change}, 0.7):
            torch.testing.assert_close(network(x), expected)
        with pytest.raises(ModelMismatchError, match="packed: undo the acceleration, fuse"):
            Fused(network, [({"0": change}, 1.0)])


@torch.no_grad()
def test_half_precision_and_channels_last_are_rounded_once_and_put_back():
    for dtype in (torch.float16, torch.bfloat16):
        layer = layer_of("conv").to(dtype).to(memory_format=torch.channels_last)
        network = nn.Sequential(layer)
        before = layer.weight.clone(memory_format=torch.preserve_format)
        change = change_of("loha conv", layer)
        exact = before.float() + 0.3 * change.difference(layer) - 0.2 * change.difference(layer)
        fused = Fused(network, [({"0": change}, 0.3), ({"0": change}, -0.2)])
        assert torch.equal(layer.weight, exact.to(dtype))
        assert layer.weight.stride() == before.stride()
        fused.detach()
        assert torch.equal(layer.weight, before)


def test_fusing_twice_comes_off_in_reverse():
    network = nn.Sequential(layer_of("linear"))
    first = Fused(network, [({"0": change_of("loha", network[0])}, 1.0)])
    second = Fused(network, [({"0": change_of("oft", network[0])}, 1.0)])
    with pytest.raises(ModelMismatchError, match="take the later ones off first"):
        first.detach()
    second.detach()
    first.detach()
    assert torch.equal(network[0].weight, layer_of("linear").weight)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"hada_w1_a": (8, 3)}, "hada_w1_a make no known kind"),
        ({"diff": (8, 11)}, r"diff \(8, 11\) do not fit a layer of weight \(8, 12\)"),
        ({"diff": (8, 12), "diff_b": (7,)}, r"diff_b \(7,\): the layer has a bias of \(8,\)"),
        ({"oft_blocks": (3, 2, 2)}, "do not fit"),
        ({"lokr_w1": (2, 2), "lokr_w2": (4, 5)}, "do not fit"),
        ({"down": (3, 12), "up": (8, 3), "dora_scale": (7, 1)}, "do not fit"),
        ({"down": (3, 12), "up": (8, 3), "magnitude": (12,)}, "do not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tensors, message):
    zeros: dict[str, Tensor] = {role: torch.zeros(shape) for role, shape in tensors.items()}
    with pytest.raises(ModelMismatchError, match=message):
        Rebuilt(layer_of("linear"), zeros)
    with pytest.raises(ModelMismatchError, match="no norm|norm of 12"):
        NormChange(layer_of("linear"), {"w_norm": torch.zeros(8)})
    with pytest.raises(ModelMismatchError, match="norm of 12 channels"):
        NormChange(layer_of("layer norm"), {"w_norm": torch.zeros(8)})
    bare = nn.Linear(12, 8, bias=False)
    with pytest.raises(ModelMismatchError, match="no bias"):
        Rebuilt(bare, {"diff": torch.zeros(8, 12), "diff_b": torch.zeros(8)})
