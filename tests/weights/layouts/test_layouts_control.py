"""ControlNets and T2I-Adapters in every spelling, against diffusers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers as library
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import oracles
from darkroom.errors import LayoutError, ModelMismatchError
from darkroom.models.control.change import ControlNetChange
from darkroom.models.control.controlnet import ControlNet, ControlNetConfig
from darkroom.models.control.t2i_adapter import FULL, FULL_XL, LIGHT, T2IAdapter, T2IAdapterConfig
from darkroom.models.unet import SD15, SD21, SDXL, UNet, UNetConfig
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.control import controlnet, t2i_adapter
from darkroom.weights.load import load
from darkroom.weights.save import save

diffusers: Any = library
SIZES = {"sd15": SD15, "sd21": SD21, "sdxl": SDXL}
PARAMETERS = {"sd15": (361_279_120, 340), "sd21": (364_228_240, 340)}
TINY = UNetConfig(
    channels=(32, 64), heads=(8, 8), depth=(1, 0), middle_depth=1, blocks=1, text_channels=24
)
TINY_XL = UNetConfig(
    channels=(32, 64, 128), heads=(1, 1, 2), depth=(0, 1, 2), middle_depth=2, blocks=1,
    text_channels=24, vector_channels=1552,
)  # fmt: skip


def theirs(config: ControlNetConfig, device: str = "cpu") -> Any:
    unet = config.unet
    xl: dict[str, Any] = {}
    if unet.vector_channels:
        xl = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": unet.vector_channels,
        }
    layers = tuple(depth or 1 for depth in unet.depth)
    with torch.device(device):
        return diffusers.ControlNetModel(
            in_channels=unet.in_channels,
            conditioning_channels=config.conditioning_channels,
            block_out_channels=unet.channels,
            down_block_types=tuple(
                "CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in unet.depth
            ),
            layers_per_block=unet.blocks,
            norm_num_groups=unet.groups,
            cross_attention_dim=unet.text_channels,
            attention_head_dim=unet.heads,
            transformer_layers_per_block=(*layers[:-1], unet.middle_depth),
            use_linear_projection=controlnet.layout_of(config) is controlnet.DIFFUSERS,
            conditioning_embedding_out_channels=config.hint_channels,
            global_pool_conditions=config.pooled,
            **xl,
        ).eval()


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def meta(config: ControlNetConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return ControlNet(config).state_dict()


@pytest.mark.parametrize("base", SIZES)
def test_names_and_shapes_of_diffusers_at_full_size(base: str) -> None:
    config = ControlNetConfig(unet=SIZES[base])
    ours, reference = meta(config), theirs(config, "meta").state_dict()
    layout = controlnet.layout_of(config)
    if base in PARAMETERS:
        assert (sum(t.numel() for t in ours.values()), len(ours)) == PARAMETERS[base]
    assert shapes(layout.revert(ours, config)) == shapes(reference)
    assert shapes(layout.convert(reference, config)) == shapes(ours)
    assert controlnet.diffusers_sizes(reference) == config


@pytest.mark.parametrize("base", SIZES)
def test_ldm_names_are_what_diffusers_expects_of_a_single_file(base: str) -> None:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    config = ControlNetConfig(unet=SIZES[base])
    layout = controlnet.LDM_SD1 if base == "sd15" else controlnet.LDM
    ours, reference = meta(config), theirs(config, "meta")
    reverted = layout.revert(ours, config)
    converted = convert_controlnet_checkpoint(dict(reverted), dict(reference.config))
    left_out = [n for n in reference.state_dict() if n.startswith("add_embedding.")]
    expected = {n: s for n, s in shapes(reference.state_dict()).items() if n not in left_out}
    assert shapes(converted) == expected
    assert controlnet.ldm_sizes(reverted) == config
    assert shapes(layout.convert(reverted, config)) == shapes(ours)


def pair(unet: UNetConfig, **fields: Any) -> tuple[ControlNet, Any]:
    """Ours and diffusers' with the same random weights."""
    config = ControlNetConfig(unet=unet, hint_channels=(4, 8, 8, 12), **fields)
    reference = oracles.randomize(theirs(config))
    ours = ControlNet(config).eval()
    ours.load_state_dict(
        controlnet.layout_of(config).convert(reference.state_dict(), config), strict=True
    )
    return ours, reference


@torch.no_grad()
def both(ours: ControlNet, reference: Any) -> tuple[list[Tensor], list[Tensor]]:
    unet, generator = ours.config.unet, torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, 6, 10, generator=generator)
    text = torch.randn(2, 7, unet.text_channels, generator=generator)
    hint = torch.rand(2, ours.config.conditioning_channels, 48, 80, generator=generator)
    t, vector, added = torch.tensor([401.0, 12.0]), None, {}
    if unet.vector_channels:
        numbers = torch.randn(2, 16, generator=generator)
        times = torch.rand(2, 6, generator=generator) * 9
        added = {"added_cond_kwargs": {"text_embeds": numbers, "time_ids": times}}
        embedded = reference.add_time_proj(times.flatten()).reshape(2, -1)
        vector = torch.cat((numbers, embedded), 1)
    down, middle = reference(x, t, text, hint, return_dict=False, **added)
    return list(ours(x, t, text, hint, vector)), [*down, middle]


@pytest.mark.parametrize(
    ("unet", "fields"),
    [
        (TINY, {}),
        (replace(TINY, heads=(1, 2), blocks=2), {"conditioning_channels": 1}),
        (TINY_XL, {}),
        (TINY, {"pooled": True}),
    ],
)
def test_outputs_equal(unet: UNetConfig, fields: dict[str, Any]) -> None:
    ours, reference = both(*pair(unet, **fields))
    assert len(ours) == len(reference)
    for a, b in zip(ours, reference, strict=True):
        assert b.std() > 0.01
        assert oracles.largest(a, b) < 1e-4


@pytest.mark.slow
def test_outputs_equal_at_full_size() -> None:
    config = ControlNetConfig(unet=SD15)
    reference = oracles.randomize(theirs(config))
    ours = ControlNet(config).eval()
    state = controlnet.layout_of(config).convert(reference.state_dict(), config)
    ours.load_state_dict(state, assign=True)
    for a, b in zip(*both(ours, reference), strict=True):
        assert oracles.largest(a, b) < 1e-4 * max(float(b.abs().max()), 1)


# --- files


def equal(net: ControlNet, reference: Any) -> None:
    assert isinstance(net, ControlNet)
    for a, b in zip(*both(net, reference), strict=True):
        assert oracles.largest(a, b) < 1e-4


def test_a_folder_of_diffusers_and_back(tmp_path: Path) -> None:
    for unet, fields in ((TINY, {}), (TINY_XL, {}), (TINY, {"pooled": True})):
        ours, reference = pair(unet, **fields)
        reference.save_pretrained(tmp_path / "a")
        net = load(tmp_path / "a", device="cpu")
        assert net.config == ours.config
        equal(net, reference)
        again = diffusers.ControlNetModel.from_pretrained(save(net, tmp_path / "b")).eval()
        equal(net, again)


def test_a_network_that_diffusers_cannot_describe_is_saved_all_the_same(tmp_path: Path) -> None:
    sizes = replace(TINY, in_channels=8, out_channels=8, depth=(1, 1), middle_depth=0)
    net = ControlNet.from_unet(UNet(sizes), factor=4).eval()
    again = load(save(net, tmp_path / "own"), device="cpu")
    assert again.config == net.config
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def spelled(net: ControlNet, prefix: str = "") -> dict[str, Tensor]:
    sd1 = net.config.unet.heads[0] == 8
    layout = controlnet.LDM_SD1 if sd1 else controlnet.LDM
    reverted = layout.revert(net.state_dict(), net.config)
    return {f"{prefix}{name}": t.contiguous() for name, t in reverted.items()}


@pytest.mark.parametrize("unet", [TINY, TINY_XL])
def test_single_files(tmp_path: Path, unet: UNetConfig) -> None:
    ours, reference = pair(unet)
    beside = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)}
    beside["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.zeros(1, 77)
    states = {
        "prefixed": ("ControlNet", spelled(ours, "control_model.")),
        "bare": ("ControlNet", spelled(ours)),
        "full": ("checkpoint with ControlNet", {**spelled(ours, "control_model."), **beside}),
        "diffusers": ("ControlNet", reference.state_dict()),
    }
    for name, (kind, state) in states.items():
        torch.save(state, tmp_path / f"{name}.pth")
        assert inspect(tmp_path / f"{name}.pth").kind == kind
        equal(load(tmp_path / f"{name}.pth", device="cpu"), reference)


def test_a_difference_is_added_to_its_base(tmp_path: Path) -> None:
    ours, reference = pair(TINY)
    base = UNet(replace(TINY, in_channels=9)).eval()
    shared = {n: t for n, t in base.state_dict().items() if n in ours.state_dict()}
    shared["input.weight"] = shared["input.weight"][:, :4]
    change = {n: t - shared[n] if n in shared else t for n, t in ours.state_dict().items()}
    state = controlnet.LDM_SD1.revert(change, ours.config)
    state = {f"control_model.{n}": t.contiguous() for n, t in state.items()}
    path = tmp_path / "difference.safetensors"
    save_file({**state, "difference": torch.tensor(())}, path)
    assert inspect(path).kind == "ControlNet difference"
    net = load(path, device="cpu")
    assert isinstance(net, ControlNetChange)
    equal(net.on(base), reference)


@pytest.mark.parametrize("unet", [TINY, TINY_XL])
def test_a_control_lora_is_the_base_and_products(tmp_path: Path, unet: UNetConfig) -> None:
    """``up @ down`` on what has a matrix; what comes whole replaces; the rest is the base's."""
    ours, reference = pair(unet)
    base, generator = UNet(unet).eval(), torch.Generator().manual_seed(3)
    shared, wanted = base.state_dict(), ours.state_dict()
    state: dict[str, Tensor] = {"lora_controlnet": torch.tensor(())}
    names = {v: k for k, v in named(ours).items()}
    for name, tensor in list(wanted.items()):
        if name not in shared:
            state[names[name]] = tensor
        elif tensor.ndim > 1:
            down = torch.randn(2, *tensor.shape[1:], generator=generator) / 9
            up = torch.randn(tensor.shape[0], 2, *(1 for _ in tensor.shape[2:])) / 9
            wanted[name] = shared[name] + (up.flatten(1) @ down.flatten(1)).reshape(tensor.shape)
            layer = names[name].removesuffix(".weight")
            state |= {f"{layer}.down": down, f"{layer}.up": up}
        elif name.startswith("down.0"):
            state[names[name]] = tensor
        else:
            wanted[name] = shared[name]
    path = tmp_path / "control-lora.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    assert inspect(path).kind == "Control-LoRA"
    net = load(path, device="cpu")
    assert isinstance(net, ControlNetChange)
    ours.load_state_dict(wanted)
    layout = controlnet.layout_of(ours.config)
    reference.load_state_dict(layout.revert(wanted, ours.config))
    equal(net.on(base), reference)
    with pytest.raises(ModelMismatchError, match="load the base that it was made for"):
        net.on(UNet(replace(unet, text_channels=16)))


def named(net: ControlNet) -> dict[str, str]:
    """Stability's names -> ours."""
    numbered = {n: torch.tensor(i) for i, n in enumerate(net.state_dict())}
    ours = list(numbered)
    reverted = controlnet.LDM.revert(numbered, net.config)
    return {name: ours[int(i)] for name, i in reverted.items()}


def test_damaged_files_say_what_is_missing(tmp_path: Path) -> None:
    ours, _ = pair(TINY)
    state = spelled(ours, "control_model.")
    del state["control_model.middle_block_out.0.weight"]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(LayoutError, match=r"a.safetensors: .*missing.*zero_middle.weight"):
        load(tmp_path / "a.safetensors", device="cpu")
    save_file({**spelled(ours), "lora_controlnet": torch.tensor(()), "extra.b": torch.zeros(1)},
              tmp_path / "b.safetensors")  # fmt: skip
    with pytest.raises(LayoutError, match=r"b.safetensors: .*extra.b"):
        load(tmp_path / "b.safetensors", device="cpu")


# --- T2I-Adapters

ADAPTERS = {"full_adapter": FULL, "full_adapter_xl": FULL_XL, "light_adapter": LIGHT}


def adapter(config: T2IAdapterConfig, kind: str, device: str = "cpu") -> Any:
    channels = config.channels[:-1] if config.narrow else config.channels
    with torch.device(device):
        return diffusers.T2IAdapter(
            config.in_channels, list(channels), config.blocks, config.factor, kind
        )


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_have_the_names_and_shapes_of_diffusers(kind: str) -> None:
    config = ADAPTERS[kind]
    with torch.device("meta"):
        ours = T2IAdapter(config).state_dict()
    reference = adapter(config, kind, "meta").state_dict()
    assert shapes(t2i_adapter.DIFFUSERS.revert(ours, config)) == shapes(reference)
    assert t2i_adapter.diffusers_sizes(reference) == config
    original = t2i_adapter.ORIGINAL.revert(ours, config)
    assert t2i_adapter.original_sizes(original) == config


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_adapters_are_equal_and_read_from_folders_and_files(tmp_path, kind, channels) -> None:
    config = replace(ADAPTERS[kind], in_channels=channels, channels=(8, 16, 24, 24))
    reference: Any = oracles.randomize(adapter(config, kind))
    reference.save_pretrained(tmp_path / "a")
    net = load(tmp_path / "a", device="cpu")
    save_file(reference.state_dict(), tmp_path / "b.safetensors")
    original = t2i_adapter.ORIGINAL.revert(net.state_dict(), config)
    torch.save(original, tmp_path / "c.pth")
    nets = [net, *(load(tmp_path / file, device="cpu") for file in ("b.safetensors", "c.pth"))]
    nets.append(load(save(net, tmp_path / "d"), device="cpu"))
    again = diffusers.T2IAdapter.from_pretrained(tmp_path / "d")
    hint = torch.rand(1, channels, 96, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(hint)
        assert all(torch.equal(a, b) for a, b in zip(again(hint), expected, strict=True))
        for net in nets:
            assert net.config == config
            for a, b in zip(net(hint), expected, strict=True):
                assert oracles.largest(a, b) < 1e-5
