"""Each option against the plain model, and back again bit for bit."""

import copy

import pytest
import torch
from torch import Tensor, nn

import darkroom as dr
from darkroom.acceleration import (
    Acceleration,
    accelerate,
    for_training,
    keep_freed_memory,
    modules,
    recommended,
)
from darkroom.adapters.lora import attach
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.fastsam.fused import PackedConvNorm
from darkroom.models.fastsam.network import FastSAM, scaled
from darkroom.models.sam.config import DecoderConfig, SamConfig, VitConfig
from darkroom.models.sam.folded import FoldedAttention, FoldedDecoder
from darkroom.models.sam.network import Sam
from darkroom.models.unet import UNet, UNetConfig
from darkroom.ops.linear import OneDnnLinear
from darkroom.ops.measured import MeasuredConv2d, MeasuredLinear
from darkroom.ops.packed import PackedConv2d, PackedLinear, can_pack, pack
from darkroom.tracing import trace

PLANS = {
    "nothing": Acceleration(),
    "reference": Acceleration(attention="reference", group_norm_silu="reference"),
    "plain": Acceleration(attention="plain"),
    "channels_last": Acceleration(channels_last=True),
    "packed": Acceleration(packed=True),
    "products": Acceleration(products="onednn"),
    "measured": Acceleration(attention="measured", products="measured", convolutions="measured"),
    "channels_last and packed": Acceleration(channels_last=True, packed=True),
    "all": Acceleration(attention="plain", channels_last=True, packed=True),
}
COMPILED = pytest.param("compiled", marks=pytest.mark.slow)  # tracing takes half a minute
PLANS_BY_NAME = {**PLANS, "compiled": Acceleration(compile="eager")}


def unet() -> UNet:
    torch.manual_seed(0)
    config = UNetConfig(
        channels=(32, 64), heads=(2, 4), depth=(1, 1), text_channels=24, vector_channels=10
    )
    return UNet(config).eval()


def inputs(size: int = 8, batch: int = 2) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    t = torch.tensor([7.0, 900.0])[:batch]
    return torch.randn(batch, 4, size, size), t, torch.randn(batch, 9, 24), torch.randn(batch, 10)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == before.keys() and all(
        torch.equal(tensor, before[name])
        and tensor.dtype == before[name].dtype
        and tensor.stride() == before[name].stride()
        for name, tensor in state.items()
    )


@pytest.mark.parametrize("name", [*PLANS, COMPILED])
@torch.no_grad()
def test_equal_results_and_undo(name: str) -> None:
    model = unet()
    before = snapshot(model)
    x = inputs()
    expected = model(*x)
    done = accelerate(model, PLANS_BY_NAME[name])
    assert torch.allclose(model(*x), expected, atol=1e-5)
    other = inputs(16, batch=1)  # another size and batch than any it saw
    accelerated = model(*other)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in before.items()
    }
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    done.undo()
    assert same(model, before)
    assert torch.equal(model(*x), expected)
    assert torch.allclose(model(*other), accelerated, atol=1e-5)
    done.undo()  # a second time changes nothing
    assert same(model, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_dtype_is_close_and_taken_back_exactly(dtype: torch.dtype) -> None:
    model = unet()
    before = snapshot(model)
    x, t, text, vector = inputs()
    expected = model(x, t, text, vector)
    with accelerate(model, Acceleration(dtype=dtype, channels_last=True)):
        actual = model(x.to(dtype), t, text.to(dtype), vector.to(dtype))
        assert actual.dtype == dtype
        assert (actual.float() - expected).norm() < 0.05 * expected.norm()
    assert same(model, before)
    assert torch.equal(model(x, t, text, vector), expected)


@pytest.mark.parametrize("name", [*PLANS, COMPILED])
@torch.no_grad()
def test_autoencoder(name: str) -> None:
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(channels=(32, 64), blocks=1)).eval()
    before = snapshot(model)
    image, latents = torch.rand(1, 3, 16, 16), torch.randn(1, 4, 8, 8)
    encoded, decoded = model.encode(image), model.decode(latents)
    done = accelerate(model, PLANS_BY_NAME[name])
    assert torch.allclose(model.encode(image), encoded, atol=1e-5)
    assert torch.allclose(model.decode(latents), decoded, atol=1e-5)
    done.undo()
    assert same(model, before)


@torch.no_grad()
def test_segment_anything() -> None:
    torch.manual_seed(0)
    vit = VitConfig(
        patch=8, channels=32, layers=2, heads=2, hidden=48, window=5, global_layers=(1,)
    )
    config = SamConfig(
        size=128, channels=64, encoder=vit, decoder=DecoderConfig(heads=2, hidden=40)
    )
    model = Sam(config).eval()
    before = snapshot(model)
    pixels, points = torch.randn(1, 3, 128, 128), torch.tensor([[[20.0, 90.0]], [[100.0, 64.0]]])
    features = model.encode(pixels)
    expected = model.decode(features, points=points, labels=torch.ones(2, 1))
    assert recommended(model).folded
    done = accelerate(model, Acceleration(attention="onednn", products="onednn", folded=True))
    assert {type(m) for m in model.modules()} >= {FoldedAttention, FoldedDecoder, OneDnnLinear}
    torch.testing.assert_close(model.encode(pixels), features, rtol=1e-4, atol=1e-4)
    actual = model.decode(features, points=points, labels=torch.ones(2, 1))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    done.undo()
    assert same(model, before)
    assert torch.equal(model.encode(pixels), features)
    with pytest.raises(ValueError, match="folded=True reads weights that packed=True hides"):
        accelerate(model, Acceleration(packed=True, folded=True))


@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_fastsam(packed: bool) -> None:
    torch.manual_seed(0)
    model = FastSAM(scaled(0.33, 0.125, 1024)).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    assert recommended(model).fused
    before, x = snapshot(model), torch.rand(1, 3, 64, 96)
    expected = model(x)
    done = accelerate(model, Acceleration(fused=True, packed=packed, channels_last=not packed))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert any(isinstance(m, PackedConvNorm) for m in model.modules()) == packed
    for ours, plain in zip(model(x), expected, strict=True):
        for a, b in zip(ours, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    done.undo()
    assert same(model, before)
    assert torch.equal(model(x).prototypes, expected.prototypes)
    model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        accelerate(model, Acceleration(fused=True))
    assert same(model, before)


def test_training_goes_on_after_undo() -> None:
    model = unet()
    model.down[0].residual.conv1.weight.requires_grad_(False)
    done = accelerate(model, Acceleration(channels_last=True, packed=can_pack()))
    x, t, text, vector = inputs()
    with pytest.raises(RuntimeError, match="undo the acceleration"):
        model(x.requires_grad_(), t, text, vector)
    done.undo()
    model(x, t, text, vector).square().mean().backward()
    frozen = model.down[0].residual.conv1.weight
    assert frozen.grad is None
    assert not frozen.requires_grad
    assert all(p.grad is not None for p in model.parameters() if p is not frozen)


def test_what_is_recommended_leaves_parameters_as_they_are(monkeypatch) -> None:
    monkeypatch.delenv("DARKROOM_ACCELERATE", raising=False)
    model = unet()
    assert recommended(model) == Acceleration(
        attention="measured", products="measured", convolutions="measured"
    )
    assert for_training() == recommended(model)
    monkeypatch.setenv("DARKROOM_ACCELERATE", "0")
    assert for_training() == Acceleration()
    before, parameters = snapshot(model), list(model.parameters())
    told = repr(model)
    accelerate(model, recommended(model))
    assert {type(m) for m in model.modules()} >= {MeasuredLinear, MeasuredConv2d}
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert same(model, before)
    assert repr(model) == told
    twin = copy.deepcopy(model)
    assert same(twin, before)
    model(*inputs()).square().mean().backward()  # it trains as it is
    assert all(p.grad is not None for p in model.parameters())


def test_unknown_rows_and_weights_that_do_not_pack() -> None:
    model = unet()
    before = snapshot(model)
    with pytest.raises(
        ValueError, match="'xformers'; there are reference, torch, plain, onednn, measured"
    ):
        accelerate(model, Acceleration(attention="xformers"))
    with pytest.raises(ValueError, match="'cublas'; there are torch, onednn"):
        accelerate(model, Acceleration(products="cublas"))
    with pytest.raises(
        ValueError, match="no convolutions called 'cudnn'; there are torch, measure"
    ):
        accelerate(model, Acceleration(convolutions="cudnn"))
    model.middle.residual.conv1.half()
    before = snapshot(model)
    with pytest.raises(ValueError, match="packing needs float32 on a CPU, got torch.float16"):
        accelerate(model, Acceleration(packed=True, channels_last=True))
    assert same(model, before)  # what was packed before the error is unpacked again
    assert not any(isinstance(m, PackedConv2d | PackedLinear) for m in model.modules())


@torch.no_grad()
def test_packed_layers() -> None:
    assert can_pack()
    torch.manual_seed(0)
    for layer, x in (
        (nn.Conv2d(5, 7, 3, stride=2, padding=1), torch.randn(2, 5, 9, 8)),
        (nn.Conv2d(5, 7, 1, bias=False), torch.randn(2, 5, 9, 8)),
        (nn.Linear(6, 11), torch.randn(2, 4, 6)),
        (nn.Linear(6, 11, bias=False), torch.randn(3, 6)),
    ):
        expected, weight = layer(x), layer.weight.clone()
        packed = pack(layer)
        assert packed is not None
        assert torch.allclose(packed(x), expected, atol=1e-5)
        assert torch.equal(packed.state_dict()["weight"], weight)
        parameter = layer.weight
        assert parameter.numel() == 0  # it is not held twice
        packed.unpack()
        assert layer.weight is parameter
        assert torch.equal(parameter, weight)
    assert pack(nn.Conv2d(4, 4, 3, groups=2)) is None
    assert pack(nn.LayerNorm(4)) is None


@torch.no_grad()
def test_a_layer_in_two_places_is_packed_once() -> None:
    layer = nn.Linear(4, 4)
    model, x = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(2, 4)
    expected = model(x)
    done = accelerate(model, Acceleration(packed=True))
    assert isinstance(model[0], PackedLinear)
    assert model[0] is model[2]
    assert torch.allclose(model(x), expected, atol=1e-5)
    done.undo()
    assert model[0] is model[2] is layer
    assert torch.equal(model(x), expected)


def test_a_whole_latent_diffusion_model_is_accelerated() -> None:
    class Parts:
        unet, autoencoder, text_encoder = nn.Linear(1, 1), nn.Linear(2, 2), object()

    assert [m.in_features for m in modules(Parts())] == [1, 2]  # type: ignore[arg-type]


@pytest.mark.slow
def test_keeping_freed_memory_is_a_setting_of_a_program() -> None:
    import subprocess
    import sys

    code = "from darkroom.acceleration import keep_freed_memory as k; print(k())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() in ("True", "False")
    assert callable(keep_freed_memory)


# --- the doors


def kinds(model: object) -> set[type]:
    return {type(module) for network in modules(model) for module in network.modules()}  # type: ignore[arg-type]


def test_doors_open_what_is_fast_unless_told_not_to(monkeypatch) -> None:
    monkeypatch.delenv("DARKROOM_ACCELERATE", raising=False)
    fast = {MeasuredLinear, MeasuredConv2d}
    assert kinds(dr.load("emoji")) >= fast
    assert not kinds(dr.load("emoji", accelerate=False)) & fast
    assert kinds(dr.open_encoder("emoji-clip").model) & fast
    assert not kinds(dr.open_encoder("emoji-clip", accelerate=False).model) & fast
    assert kinds(dr.open_segmenter("emoji-sam").model) >= {*fast, FoldedDecoder}
    assert not kinds(dr.open_segmenter("emoji-sam", accelerate=False).model) & fast
    segmenter = dr.load("emoji-fastsam")  # keeps what it could be saved or trained with
    assert nn.BatchNorm2d in kinds(segmenter)
    assert nn.BatchNorm2d not in kinds(dr.open_segmenter("emoji-fastsam").model)
    monkeypatch.setenv("DARKROOM_ACCELERATE", "0")
    assert not kinds(dr.load("emoji")) & fast
    assert nn.BatchNorm2d in kinds(dr.open_segmenter("emoji-fastsam").model)


@torch.no_grad()
def test_what_a_door_has_made_fast_is_an_ordinary_model(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("DARKROOM_ACCELERATE", raising=False)
    fast, plain = dr.load("emoji"), dr.load("emoji", accelerate=False)
    before = snapshot(plain.unet)
    assert same(fast.unet, before)
    assert [*fast.unet.parameters()]
    config = fast.unet.config
    x = torch.randn(2, config.in_channels, 8, 8), torch.tensor([7.0, 900.0])
    text = torch.randn(2, 9, config.text_channels)
    expected = plain.unet(*x, text)
    assert torch.equal(fast.unet(*x, text), expected)  # by the tests' clock
    twin = copy.deepcopy(fast.unet)
    assert torch.equal(twin(*x, text), expected)
    for match, change in (("*", 1.0), ("*conv1", -2.0)):
        results = []
        for unet in (plain.unet, fast.unet):
            torch.manual_seed(0)
            with attach(unet, match, rank=2) as lora:
                for parameter in lora.parameters():
                    parameter.normal_(std=0.1 * abs(change))
                results.append(unet(*x, text))
            assert torch.equal(unet(*x, text), expected)  # detached bit for bit
        assert torch.equal(*results)
    assert not torch.equal(results[0], expected)
    differences = trace(plain.unet, (*x, text)).differences(trace(fast.unet, (*x, text)), 0)
    assert not differences
    dr.save(fast, tmp_path / "saved")
    assert same(dr.load(tmp_path / "saved", accelerate=False).unet, before)
    accelerate(fast, recommended(fast)).undo()  # a second time changes nothing
    assert torch.equal(fast.unet(*x, text), expected)
    half = fast.unet.to(torch.bfloat16)
    assert half(x[0].bfloat16(), x[1], text.bfloat16()).dtype == torch.bfloat16


def test_a_loaded_model_trains(monkeypatch) -> None:
    monkeypatch.delenv("DARKROOM_ACCELERATE", raising=False)
    unet = dr.load("emoji").unet.requires_grad_()
    text = torch.randn(1, 9, unet.config.text_channels)
    x = torch.randn(1, unet.config.in_channels, 8, 8)
    unet(x, torch.tensor([7.0]), text).square().mean().backward()
    assert all(p.grad is not None for p in unet.parameters())


def test_memory_is_kept_unless_the_user_has_set_it(monkeypatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            calls.append((name, value))
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda _: Library)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "DARKROOM_ACCELERATE"):
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory()
    assert calls == [(-4, 0), (-1, 2**31 - 1)]
    calls.clear()
    dr.load("emoji-edges")
    assert len(calls) == 2
    dr.load("emoji-edges", accelerate=False)
    assert len(calls) == 2
    for name, value in (
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=4"),
        ("MALLOC_TRIM_THRESHOLD_", "1"),
        ("DARKROOM_ACCELERATE", "0"),
    ):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert not keep_freed_memory()
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", ""))
    assert not keep_freed_memory()
    assert len(calls) == 2
