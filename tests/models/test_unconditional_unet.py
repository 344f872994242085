"""The unconditional U-Net against diffusers' UNet2DModel: sizes, names, configs and outputs."""

import json
from dataclasses import replace

import pytest
import torch

import oracles
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.unconditional_unet import (
    DDPM_256,
    MNIST,
    MNIST_CONDITIONAL,
    UnconditionalUNet,
    UnconditionalUNetConfig,
)
from darkroom.weights.layouts.unconditional_unet import (
    DIFFUSERS,
    unconditional_unet_config,
    unconditional_unet_json,
)

CAT = json.loads("""{
  "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
  "attention_head_dim": null, "block_out_channels": [128, 128, 256, 256, 512, 512],
  "center_input_sample": false,
  "down_block_types": ["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D",
                       "AttnDownBlock2D", "DownBlock2D"],
  "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3,
  "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32,
  "out_channels": 3, "sample_size": 256, "time_embedding_type": "positional",
  "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D",
                     "UpBlock2D"]
}""")  # google/ddpm-cat-256
SMALL_CAT = replace(DDPM_256, channels=(32, 32, 64, 64, 96, 96))


def theirs(config: UnconditionalUNetConfig, device: str = "cpu"):
    from diffusers import UNet2DModel

    arguments = unconditional_unet_json(config)
    with torch.device(device):
        return UNet2DModel(**{k: v for k, v in arguments.items() if k != "_class_name"}).eval()


@pytest.mark.parametrize(
    ("config", "numbers", "tensors"),
    [(DDPM_256, 113_673_219, 450), (MNIST, 10_975_329, 284), (MNIST_CONDITIONAL, 10_984_545, 284)],
)
def test_sizes_and_names_at_full_size(config, numbers: int, tensors: int) -> None:
    with torch.device("meta"):
        ours = UnconditionalUNet(config).state_dict()
    expected = theirs(config, "meta").state_dict()
    assert sum(tensor.numel() for tensor in ours.values()) == numbers
    assert len(ours) == tensors
    reverted = DIFFUSERS.revert(ours, config)
    assert {k: t.shape for k, t in reverted.items()} == {k: t.shape for k, t in expected.items()}
    converted = DIFFUSERS.convert(expected, config)
    assert {k: t.shape for k, t in converted.items()} == {k: t.shape for k, t in ours.items()}


def test_parts_of_the_network_of_the_book() -> None:
    with torch.device("meta"):
        model = UnconditionalUNet(MNIST)
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
    middle = count["middle"] + count["middle_out"]
    parts = (count["input"], count["time"], count["down"], middle, count["up"], count["norm"])
    assert (*parts, count["output"]) == (320, 20_736, 1_827_968, 2_692_096, 6_433_856, 64, 289)


@pytest.mark.parametrize(
    "config",
    [
        SMALL_CAT,
        replace(MNIST, channels=(32, 64, 96, 96)),
        replace(MNIST, channels=(32, 64, 96, 96), classes=10),
        replace(MNIST, channels=(32, 64, 64), attention=(True, False, True), blocks=2),
        replace(MNIST, channels=(32, 32), attention=(False, False), middle_attention=False),
    ],
    ids=["cat", "mnist", "classes", "other-levels", "no-attention"],
)
@torch.no_grad()
def test_equal_outputs(config: UnconditionalUNetConfig) -> None:
    reference = oracles.randomize(theirs(config))
    ours = UnconditionalUNet(config).eval()
    ours.load_state_dict(DIFFUSERS.convert(reference.state_dict(), config))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config.in_channels, 32, 32, generator=generator)
    t = torch.tensor([999, 3])
    labels = torch.tensor([7, 0]) if config.classes else None
    expected = reference(x, t, class_labels=labels).sample
    assert expected.std() > 0.1
    assert oracles.largest(ours(x, t, labels), expected) < 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_equal_outputs_at_full_size() -> None:
    reference = oracles.randomize(theirs(DDPM_256))
    ours = UnconditionalUNet(DDPM_256).eval()
    ours.load_state_dict(DIFFUSERS.convert(reference.state_dict(), DDPM_256))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = reference(x, torch.tensor([500])).sample
    assert oracles.largest(ours(x, torch.tensor([500])), expected) < 1e-4


def test_old_names_of_the_attention() -> None:
    new_to_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in theirs(SMALL_CAT, "meta").state_dict().items():
        for new, old in new_to_old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        state[name] = tensor
    assert "mid_block.attentions.0.proj_attn.bias" in state
    DIFFUSERS.convert(state, SMALL_CAT)
    del state["mid_block.attentions.0.query.bias"]
    with pytest.raises(LayoutError, match=r"missing.*middle\.attention\.attention\.q\.bias"):
        DIFFUSERS.convert(state, SMALL_CAT)


def test_config_of_the_cats() -> None:
    assert unconditional_unet_config(CAT) == DDPM_256


@pytest.mark.parametrize("config", [DDPM_256, MNIST, replace(MNIST, classes=10, eps=1e-4)])
def test_configs_go_to_json_and_back(config: UnconditionalUNetConfig) -> None:
    assert unconditional_unet_config(json.loads(json.dumps(unconditional_unet_json(config)))) == (
        config
    )


def test_defaults_are_those_of_diffusers() -> None:
    from diffusers import UNet2DModel

    with torch.device("meta"):
        reference = UNet2DModel()
    written = json.loads(reference.to_json_string())
    assert unconditional_unet_config(written) == UnconditionalUNetConfig()
    assert unconditional_unet_config({}) == UnconditionalUNetConfig()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("time_embedding_type", "fourier", "time_embedding_type = 'fourier'"),
        ("layers_per_blok", 2, "did you mean .layers_per_block"),
        ("down_block_types", ["SkipDownBlock2D"] * 6, "must be 6 of DownBlock2D"),
        ("down_block_types", ["DownBlock2D"] * 6, "must mirror"),
        ("attention_head_dim", 7, "does not divide"),
        ("_class_name", "UNet2DConditionModel", "_class_name"),
    ],
)
def test_strict_configs(key: str, value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        unconditional_unet_config({**CAT, key: value})


def test_labels_are_wanted_or_not() -> None:
    x, t = torch.zeros(1, 1, 8, 8), torch.tensor([1])
    plain = replace(MNIST, channels=(32, 32), attention=(False, False))
    with pytest.raises(ValueError, match="takes no label"):
        UnconditionalUNet(plain)(x, t, torch.tensor([1]))
    with pytest.raises(ValueError, match="takes one of 10 classes"):
        UnconditionalUNet(replace(plain, classes=10))(x, t)
    with pytest.raises(ValueError, match="one value per level"):
        UnconditionalUNet(replace(plain, attention=(False,)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision(dtype: torch.dtype) -> None:
    model = oracles.randomize(UnconditionalUNet(SMALL_CAT)).eval()
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([400.0])
    expected = model(x, t)
    actual = model.to(dtype)(x.to(dtype), t)
    assert actual.dtype == dtype
    assert actual.isfinite().all()
    assert (actual.float() - expected).norm() < 0.08 * expected.norm()
