"""``trace`` and ``summary``: shapes, costs and statistics of every block; the model as it was."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import darkroom as dr
from darkroom.models.autoencoder import SD_AUTOENCODER, Autoencoder, AutoencoderConfig
from darkroom.models.unconditional_unet import (
    MNIST,
    MNIST_CONDITIONAL,
    UnconditionalUNet,
    UnconditionalUNetConfig,
)
from darkroom.models.unet import SD15, SD21, SDXL, UNet
from darkroom.nn.attention import Attention
from darkroom.tracing import Trace, trace
from darkroom.weights.assemble import on_meta

SMALL = UnconditionalUNetConfig(
    in_channels=1, out_channels=1, channels=(8, 16), attention=(False, True), blocks=1, groups=8
)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def on_nothing(model: type[nn.Module], config: object) -> nn.Module:
    with on_meta():
        return model(config)


def look(config, batch: int, side: int, depth: int = 2) -> Trace:
    inputs = [meta(batch, 4, side, side), meta(batch), meta(batch, 77, config.text_channels)]
    if config.vector_channels:
        inputs.append(meta(batch, config.vector_channels))
    return trace(on_nothing(UNet, config), inputs, depth)


def out(found: Trace, name: str) -> tuple[int, ...]:
    return found[name].outputs[0].shape


def small(seed: int = 0) -> tuple[UnconditionalUNet, tuple[torch.Tensor, ...]]:
    torch.manual_seed(seed)
    return UnconditionalUNet(SMALL).eval(), (torch.randn(2, 1, 8, 8), torch.tensor([3.0, 400.0]))


# --- the shapes and counts that the book prints


def test_parameters_of_the_book_s_mnist_network():
    found = trace(on_nothing(UnconditionalUNet, MNIST), (meta(128, 1, 32, 32), meta(128)), 2)
    counts = {block.name: block.parameters for block in found if block.depth == 1}
    middle = counts.pop("middle") + counts.pop("middle_out")
    assert middle == 2_692_096
    assert counts == {
        "input": 320,
        "time": 20_736,
        "down": 1_827_968,
        "up": 6_433_856,
        "norm": 64,
        "output": 289,
    }
    assert found[""].parameters == 10_975_329
    assert out(found, "input") == (128, 32, 32, 32)  # as the book's hook prints it
    assert [out(found, f"down.{i}")[1:] for i in (1, 3, 5, 6)] == [
        (32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 4, 4)
    ]  # fmt: skip
    conditional = on_nothing(UnconditionalUNet, MNIST_CONDITIONAL)
    assert trace(conditional, (meta(1, 33, 32, 32), meta(1)), 0)[""].parameters == 10_984_545


@pytest.mark.slow
def test_shapes_of_stable_diffusion_2_at_768():
    found = look(SD21, batch=2, side=96)
    assert found[""].parameters == 865_910_724
    assert [value.shape for value in found["input"].inputs] == [(2, 4, 96, 96)]
    assert out(found, "input") == (2, 320, 96, 96)
    assert out(found, "time") == (2, 1280)
    assert found["down.0"].inputs[2].shape == (2, 77, 1024)
    skips = [out(found, f"down.{i}") for i in range(11)]
    assert skips[:3] == [(2, 320, 96, 96), (2, 320, 96, 96), (2, 320, 48, 48)]
    assert skips[3:6] == [(2, 640, 48, 48), (2, 640, 48, 48), (2, 640, 24, 24)]
    assert skips[6:9] == [(2, 1280, 24, 24), (2, 1280, 24, 24), (2, 1280, 12, 12)]
    assert skips[9:] == [(2, 1280, 12, 12)] * 2
    assert out(found, "middle") == out(found, "middle_out") == (2, 1280, 12, 12)
    ends = [out(found, f"up.{i}") for i in (2, 5, 8, 11)]  # the last stage of each level
    assert ends == [(2, 1280, 24, 24), (2, 1280, 48, 48), (2, 640, 96, 96), (2, 320, 96, 96)]
    assert out(found, "") == out(found, "output") == (2, 4, 96, 96)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("SDXL", 128), ("Turbo", 64)])
def test_shapes_of_xl(name, side):
    found = look(SDXL, batch=1, side=side)
    assert found[""].parameters == 2_567_463_684
    assert found["down.3"].inputs[2].shape == (1, 77, 2048)
    assert out(found, "down.1") == (1, 320, side, side)
    assert out(found, "down.2") == (1, 320, side // 2, side // 2)
    assert out(found, "down.4") == (1, 640, side // 2, side // 2)
    assert out(found, "down.5") == (1, 640, side // 4, side // 4)
    assert out(found, "down.7") == out(found, "middle_out") == (1, 1280, side // 4, side // 4)
    ends = [out(found, f"up.{i}") for i in (2, 5, 8)]
    assert ends == [(1, 1280, side // 2, side // 2), (1, 640, side, side), (1, 320, side, side)]


# --- what it costs


def test_flops_by_hand():
    with on_meta():
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1, stride=2, groups=2), nn.Flatten(),
            nn.Linear(4 * 5 * 5, 7),
        )  # fmt: skip
    found = trace(model, meta(2, 3, 10, 10))
    assert [found[name].flops for name in "0123"] == [
        2 * (2 * 8 * 10 * 10) * (3 * 9),
        2 * (2 * 4 * 5 * 5) * (8 // 2),
        0,
        2 * (2 * 7) * 100,
    ]
    assert found[""].flops == sum(found[name].flops for name in "0123")


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_flops_of_attention(device):
    with torch.device(device):
        model = Attention(16, 4, context_channels=12)
        found = trace(model, (torch.empty(2, 20, 16), torch.empty(2, 7, 12)))
    projections = sum(found[name].flops for name in ("q", "k", "v", "out"))
    assert projections == 2 * 2 * (20 * 16 * 16 + 2 * 7 * 12 * 16 + 20 * 16 * 16)
    assert found[""].flops - projections == 2 * (2 * 2 * 20 * 7 * 16)  # q kᵀ, and its use on v


def test_flops_of_stable_diffusion_1():
    """Measured for the benchmarks: 803 GFLOP; conv3x3 395, linear 233, conv1x1 44, attention 123.

    The projections around the transformers are convolutions there, linear layers here.
    """
    model = on_nothing(UNet, SD15)
    found = trace(model, (meta(1, 4, 64, 64), meta(1), meta(1, 77, 768)))
    layers = dict(model.named_modules())
    giga: dict[str, float] = dict.fromkeys(("conv3x3", "strided", "conv1x1", "linear", "self"), 0)
    for block in found:
        layer, kind = layers[block.name], ""
        if isinstance(layer, nn.Conv2d):
            kind = "strided" if layer.stride != (1, 1) else "conv{}x{}".format(*layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            around = block.name.endswith(("attention.input", "attention.output"))
            kind = "conv1x1" if around else "linear"
        elif block.name.endswith("self_attention"):
            giga["self"] -= sum(found[f"{block.name}.{n}"].flops for n in ("q", "k", "v", "out"))
            kind = "self"
        if kind:
            giga[kind] += block.flops
    rounded = {kind: round(flops / 1e9) for kind, flops in giga.items()}
    assert rounded == {"conv3x3": 395, "strided": 6, "conv1x1": 44, "linear": 233, "self": 122}
    assert round(found[""].flops / 1e9) == 803


def test_flops_are_the_same_on_every_device():
    model, inputs = small()
    here = trace(model, inputs)
    there = trace(model, tuple(value.to("meta") for value in inputs))  # weights stay where they are
    assert [(b.name, b.flops, b.parameters) for b in here] == [
        (b.name, b.flops, b.parameters) for b in there
    ]
    assert all(value.statistics is None for block in there for value in block.outputs)


# --- what goes through


def test_statistics_are_those_of_the_tensors():
    model, inputs = small()
    kept = []
    handle = model.down[0].register_forward_hook(
        lambda m, args, output: kept.append(output.clone())
    )
    found = trace(model, inputs)
    handle.remove()
    told = found["down.0"].outputs[0].statistics
    assert told.min == kept[0].min().item()
    assert told.max == kept[0].max().item()
    assert told.mean == pytest.approx(kept[0].double().mean().item(), abs=1e-5)
    assert told.std == pytest.approx(kept[0].double().std(correction=0).item(), rel=1e-5)
    assert told.nonfinite == 0
    assert [value.shape for value in found["down.0"].inputs] == [(2, 8, 8, 8), (2, 32)]
    assert str(found["down.0"]).count("std") == 3


def test_what_is_not_finite_is_told():
    model, (x, t) = small()
    x[0, 0, 0, :4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 5.0])
    found = trace(model, (x, t), 1)
    told = found[""].inputs[0].statistics
    assert told.nonfinite == 3 / 128
    assert told.max == 5.0
    assert "2.34% not finite" in str(found[""])
    assert found["output"].outputs[0].statistics.nonfinite > 0
    assert trace(model, (x * float("nan"), t), 0) == trace(model, (x * float("nan"), t), 0)


def test_integers_and_empty_tensors():
    found = trace(nn.Embedding(9, 4), torch.tensor([[1, 8]]))
    assert found[""].inputs[0].dtype == "int64"
    assert found[""].inputs[0].statistics.max == 8
    assert trace(nn.Identity(), torch.empty(0, 3))[""].outputs[0].statistics is None


# --- the tree


def test_depth_and_order():
    model, inputs = small()
    shallow, deep = trace(model, inputs, 1), trace(model, inputs)
    assert {block.depth for block in shallow} == {0, 1}
    assert [b.name for b in shallow] == (
        ["", "time", "input", "down", "middle", "middle_out", "up", "norm", "output"]
    )
    assert shallow["down"].flops == deep["down"].flops > 0  # though its blocks are not shown
    assert [b for b in deep if b.depth <= 1] == list(shallow)
    assert str(deep.table(1)) == str(shallow)
    assert "down" in str(shallow)
    assert "residual" not in str(shallow)


def test_a_block_called_twice_and_one_never_called():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.again, self.unused = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x, *, scale):
            return {"twice": (self.again(self.again(x)), x * scale)}

    found = trace(Odd(), {"x": torch.ones(3, 4), "scale": torch.tensor(2.0)})
    assert found["again"].calls == 2
    assert found["again"].flops == 2 * (2 * 3 * 4 * 4)
    assert found["unused"].calls == 0
    assert found["unused"].parameters == 10
    assert [value.shape for value in found[""].inputs] == [(3, 4), ()]
    assert [value.shape for value in found[""].outputs] == [(3, 4), (3, 4)]
    assert "(2 calls)" in str(found)
    assert "scalar" in str(found)


def test_methods_other_than_forward():
    model = on_nothing(Autoencoder, SD_AUTOENCODER)
    found = trace(model, meta(1, 4, 64, 64), 2, call="decode")
    assert out(found, "") == (1, 3, 512, 512)
    assert abs(found[""].flops / 1e9 - 2514) < 1  # as measured for the benchmarks
    assert found["encoder"].calls == 0
    assert out(trace(model, meta(1, 3, 512, 512), 1, call="encode"), "") == (1, 4, 64, 64)


def test_plain_data():
    model, inputs = small()
    plain = trace(model, inputs, 1).to_plain()
    assert json.loads(json.dumps(plain))[0]["outputs"][0]["shape"] == [2, 1, 8, 8]


def test_the_name_of_a_block_that_is_not_there():
    with pytest.raises(KeyError, match="no block 'sideways'"):
        trace(*small())["sideways"]


# --- comparing


def test_where_two_runs_depart():
    model, inputs = small()
    first = trace(model, inputs)
    assert first.differences(trace(model, inputs)) == []
    assert first == trace(model, inputs)
    with torch.no_grad():
        model.up[0].residual.conv1.weight.mul_(3)
    lines = first.differences(trace(model, inputs))
    assert not any(line.startswith(("down", "middle", "time")) for line in lines)
    assert any(line.startswith("up.0.residual.conv1: outputs 2x16x4x4: ") for line in lines)
    half = trace(model.double(), tuple(value.double() for value in inputs))
    assert trace(model.float(), inputs).differences(half) == []
    other = trace(model.float(), inputs, 1)
    assert "time.linear1: not in the other" in first.differences(other)
    assert "time.linear1: only in the other" in other.differences(first)


def test_other_shapes_are_a_difference():
    model, (x, t) = small()
    line = trace(model, (x, t), 1).differences(trace(model, (x[:1], t[:1]), 1))[1]
    assert line == "time: inputs 2x8, in the other 1x8"


# --- the model stays as it was


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_removed():
    model, inputs = small()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, inputs)
    dr.summary(model, inputs)
    assert hooks(model) == 0
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.device.type == "cpu" for p in model.parameters())


def test_hooks_are_removed_after_an_error():
    model, (x, t) = small()
    model.up[1].residual.conv2 = nn.Conv2d(3, 8, 3)
    with pytest.raises(RuntimeError) as caught:
        trace(model, (x, t))
    assert caught.value.__notes__ == ["in the block up.1.residual.conv2"]
    assert hooks(model) == 0
    with pytest.raises(TypeError):
        trace(model, (x, t, x, t))
    with pytest.raises(AttributeError):
        trace(model, (x, t), call="encode")
    assert hooks(model) == 0


def test_packed_weights_cost_the_same():
    from darkroom.ops.packed import can_pack, pack

    if not can_pack():
        pytest.skip("this PyTorch cannot pack")
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    plain = trace(model, torch.randn(1, 3, 8, 8))
    with torch.no_grad():
        model[0], model[2] = pack(model[0]), pack(model[2])
        assert trace(model, torch.randn(1, 3, 8, 8))[""].flops == plain[""].flops


# --- the summary


def test_summary():
    model, inputs = small()
    text = dr.summary(model, inputs, depth=2)
    lines = text.splitlines()
    assert lines[0].split() == ["block", "class", "input", "output", "parameters", "FLOPs"]
    assert lines[1].split()[:4] == ["UnconditionalUNet"] * 2 + ["2x1x8x8", "2"]
    total = sum(p.numel() for p in model.parameters())
    assert f"{total:,} parameters ({total:,} trainable, " in lines[-1]
    assert any(line.startswith("    0  ") for line in lines)
    assert "residual" not in dr.summary(model, inputs, 1)


def test_summary_computes_nothing():
    """Full size in no time: the inputs are on the CPU, and the run is not."""
    with on_meta():
        model = UNet(replace(SD15, channels=(3200, 3200), depth=(0, 0), heads=(8, 8)))
    text = dr.summary(model, (torch.zeros(1, 4, 512, 512), torch.zeros(1), torch.zeros(1, 77, 768)))
    assert "1x3200x512x512" in text


def test_an_autoencoder_of_our_own():
    model = Autoencoder(AutoencoderConfig(channels=(8, 16), groups=8, blocks=1, patch=2))
    text = dr.summary(model, torch.zeros(1, 3, 16, 16), call="encode")
    assert "PixelUnshuffle" in text
