"""DPT against transformers': sizes, outputs, pictures it is shown, names in files."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import DPTConfig as TheirConfig
from transformers import DPTForDepthEstimation, DPTImageProcessorPil

import darkroom as dr
import oracles
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.dpt.network import DPT, DPT_HYBRID, DPT_LARGE, DPTConfig
from darkroom.models.dpt.stem import StemConfig
from darkroom.models.dpt.view import View
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.annotators import dpt, dpt_configs
from darkroom.weights.save import save
from vectors.timm_vit import SIZE, images, random_state, thinned

HYBRID = DPTConfig(
    stem=StemConfig(channels=32, widths=(128, 128, 256), blocks=(1, 2, 1)),
    grid=4, channels=128, layers=4, heads=2, hidden=96, taps=(2, 3), scales=(1, 0.5),
    widths=(128, 128, 48, 40), features=16, view=View(size=(64, 64)),
)  # fmt: skip
PLAIN = DPTConfig(
    grid=4, channels=64, layers=4, heads=1, hidden=96, taps=(0, 1, 2, 3),
    widths=(16, 24, 48, 40), features=16,
)  # fmt: skip
LEFT = r"dpt\.layernorm\.|neck\.fusion_stage\.layers\.0\.residual_layer1\."
VECTORS = Path(__file__).parents[2] / "vectors" / "timm_vit.json"


def theirs(config: DPTConfig, seed: int = 0) -> DPTForDepthEstimation:
    model = DPTForDepthEstimation(TheirConfig(**dpt_configs.dpt_json(config)))
    oracles.randomize(model.eval(), seed)
    return model


def pair(config: DPTConfig) -> tuple[DPTForDepthEstimation, DPT]:
    model, ours = theirs(config), DPT(config).eval()
    ours.load_state_dict(dpt.TRANSFORMERS.convert(model.state_dict(), config))
    return model, ours


def photo(width: int = 90, height: int = 70) -> Image.Image:
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("config", "numbers", "tensors"),
    [(DPT_HYBRID, 121_196_289, 408), (DPT_LARGE, 341_848_257, 456)],
)
def test_sizes_and_names(config: DPTConfig, numbers: int, tensors: int) -> None:
    """At full size; transformers has two parts more, which no output depends on."""
    with torch.device("meta"):
        state = DPTForDepthEstimation(TheirConfig(**dpt_configs.dpt_json(config))).state_dict()
    ours = dpt.TRANSFORMERS.convert(state, config)
    assert (sum(t.numel() for t in ours.values()), len(ours)) == (numbers, tensors)
    reverted = dpt.TRANSFORMERS.revert(ours, config)
    assert {name: t.shape for name, t in reverted.items()} == {
        name: t.shape for name, t in state.items() if not re.match(LEFT, name)
    }


@pytest.mark.parametrize("config", [HYBRID, PLAIN])
@torch.no_grad()
def test_outputs_equal_transformers(config: DPTConfig) -> None:
    model, ours = pair(config)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = model(x).predicted_depth
    assert expected.std() > 0.01  # of ReLUs that are not all closed
    assert ours(x).shape == (2, 64, 64)
    assert oracles.largest(ours(x), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("config", [DPT_HYBRID, DPT_LARGE])
@torch.no_grad()
def test_outputs_equal_transformers_at_full_size(config: DPTConfig) -> None:
    model, ours = pair(config)
    pixels = config.view.pixels(photo(500, 400))
    expected = model(pixels).predicted_depth
    assert expected.std() > 0.01
    assert oracles.largest(ours(pixels), expected) < 1e-4 * float(expected.max())


@torch.no_grad()
def test_the_inside_equals_timm() -> None:
    """Stages of the stem and blocks of timm's own hybrid, on an image that is no square."""
    vectors = json.loads(VECTORS.read_text("utf-8"))
    config = replace(HYBRID, channels=64, layers=3, heads=1, hidden=128, eps=1e-6, taps=(1, 2))
    shapes = {name: tuple(shape) for name, shape in vectors["small"].items()}
    state = {f"pretrained.model.{k}": v for k, v in random_state(shapes).items()}
    inside = dpt.convert(state, dpt.midas(config))
    network = DPT(config).eval()
    left = network.load_state_dict(inside, strict=False).missing_keys
    assert {name.split(".")[0] for name in left} == {"reassemble", "narrow", "fusion", "head"}
    found: list[Tensor] = []
    assert network.stem is not None
    for part in (*network.stem.stage, *network.blocks):
        part.register_forward_hook(lambda _module, _given, output: found.append(output))
    network(images())
    assert len(found) == len(vectors["outputs"]) == 6
    assert found[3].shape[1] == SIZE[2] * SIZE[3] // 16**2 + 1
    for ours, expected in zip(found, vectors["outputs"], strict=True):
        assert oracles.largest(torch.tensor(thinned(ours)), torch.tensor(expected)) < 1e-4


@pytest.mark.parametrize("preset", ["dpt-hybrid", "dpt-large"])
def test_names_inside_midas_files(preset: str) -> None:
    """``pretrained.model`` is timm's network: all of its names and shapes are read."""
    shapes = json.loads(VECTORS.read_text("utf-8"))["shapes"][preset]
    config = dpt.MIDAS_PRESETS[preset]
    ours = {name: torch.empty(shape, device="meta") for name, shape in
            dpt.MIDAS.shapes(config).items()}  # fmt: skip
    written = dpt.MIDAS.revert(ours, config)
    inside = {k: list(v.shape) for k, v in written.items() if k.startswith("pretrained.model.")}
    left = ("norm.weight", "norm.bias", "head.weight", "head.bias")
    assert inside == {f"pretrained.model.{k}": v for k, v in shapes.items() if k not in left}
    with_left = written | {f"pretrained.model.{k}": torch.zeros(shapes[k]) for k in left}
    assert dpt.MIDAS.convert(with_left, config).keys() == ours.keys()


RENAMED = (  # MiDaS's names to transformers', in this order; q, k and v are split before
    (r"^pretrained\.model\.(cls_token|pos_embed)$", r"dpt.embeddings.\1"),
    (r"pos_embed$", "position_embeddings"),
    (r"^pretrained\.model\.patch_embed\.backbone\.stem\.conv", "bit.embedder.convolution"),
    (r"^pretrained\.model\.patch_embed\.backbone\.stem\.norm", "bit.embedder.norm"),
    (r"^pretrained\.model\.patch_embed\.backbone\.stages\.(\d+)\.blocks",
     r"bit.encoder.stages.\1.layers"),
    (r"^bit", "dpt.embeddings.backbone.bit"),
    (r"^pretrained\.model\.blocks", "dpt.encoder.layer"),
    (r"(layer\.\d+)\.norm1", r"\1.layernorm_before"),
    (r"(layer\.\d+)\.norm2", r"\1.layernorm_after"),
    (r"attn\.proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
    (r"^pretrained\.act_postprocess(\d)\.0\.project\.0",
     lambda m: f"neck.reassemble_stage.readout_projects.{int(m[1]) - 1}.0"),
    (r"^pretrained\.act_postprocess(\d)\.3",
     lambda m: f"neck.reassemble_stage.layers.{int(m[1]) - 1}.projection"),
    (r"^pretrained\.act_postprocess(\d)\.4",
     lambda m: f"neck.reassemble_stage.layers.{int(m[1]) - 1}.resize"),
    (r"^scratch\.layer(\d)_rn", lambda m: f"neck.convs.{int(m[1]) - 1}"),
    (r"^scratch\.refinenet(\d)", lambda m: f"neck.fusion_stage.layers.{4 - int(m[1])}"),
    (r"resConfUnit(\d)\.conv", r"residual_layer\1.convolution"),
    (r"out_conv", "projection"),
    (r"^scratch\.output_conv", "head.head"),
)  # fmt: skip


def renamed(name: str, patch: str) -> str:
    name = name.replace("pretrained.model.patch_embed.proj", patch)
    for pattern, name_there in RENAMED:
        name = re.sub(pattern, name_there, name)
    return name


@pytest.mark.parametrize("config", [HYBRID, PLAIN])
def test_midas_names_mean_what_transformers_names_mean(config: DPTConfig) -> None:
    """By the published correspondence of the two, written down here once more."""
    ours = DPT(config).state_dict()
    patch = "dpt.embeddings." + ("" if config.stem else "patch_embeddings.") + "projection"
    state: dict[str, Tensor] = {}
    for name, tensor in dpt.MIDAS.revert(ours, config).items():
        if ".attn.qkv." in name:
            start, _, leaf = name.replace("pretrained.model.blocks", "dpt.encoder.layer").partition(
                ".attn.qkv."
            )
            for kind, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[f"{start}.attention.attention.{kind}.{leaf}"] = part
        else:
            state[renamed(name, patch)] = tensor
    expected = dpt.TRANSFORMERS.revert(ours, config)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(size=(64, 96), resample="bilinear"),
        View(size=(64, 64), keep_aspect=True, multiple=32),
        View(size=(64, 64), mean=(0.1, 0.2, 0.3), deviation=(0.3, 0.2, 0.1)),
    ],
)
@pytest.mark.parametrize("size", [(90, 70), (40, 131), (64, 64)])
def test_pictures_equal_transformers(view: View, size: tuple[int, int]) -> None:
    processor = DPTImageProcessorPil(**dpt_configs.view_json(view))
    expected = processor(photo(*size), return_tensors="pt").pixel_values
    assert view.pixels(photo(*size)).shape == expected.shape
    assert oracles.largest(view.pixels(photo(*size)), expected) < 1e-5
    assert dpt_configs.view_config(dpt_configs.view_json(view)) == view


def test_sides_of_the_network() -> None:
    with pytest.raises(ValueError, match="48x64 pixels; this network takes multiples of 32"):
        DPT(PLAIN)(torch.zeros(1, 3, 64, 48))


@pytest.mark.parametrize("config", [HYBRID, replace(PLAIN, view=View(size=(64, 64)))])
def test_folders(tmp_path: Path, config: DPTConfig) -> None:
    """transformers writes, we read; we write, transformers reads; what else is in it counts."""
    model = theirs(config)
    model.save_pretrained(tmp_path / "theirs")
    DPTImageProcessorPil(**dpt_configs.view_json(config.view)).save_pretrained(tmp_path / "theirs")
    ours = dr.load(tmp_path / "theirs")
    assert isinstance(ours, DPT)
    assert ours.config == config
    save(ours, tmp_path / "ours")
    again = dr.load(tmp_path / "ours")
    assert again.config == config
    assert all(map(torch.equal, ours.parameters(), again.parameters()))
    read = DPTForDepthEstimation.from_pretrained(tmp_path / "ours").eval()
    x = config.view.pixels(photo())
    with torch.no_grad():
        assert oracles.largest(read(x).predicted_depth, model(x).predicted_depth) == 0
    assert DPTImageProcessorPil.from_pretrained(tmp_path / "ours").to_dict()["size"] == {
        "height": 64, "width": 64,
    }  # fmt: skip
    assert inspect(tmp_path / "ours").kind == "depth estimator"


@pytest.mark.parametrize("config", [HYBRID, PLAIN])
def test_files_without_a_config(tmp_path: Path, config: DPTConfig) -> None:
    """MiDaS's .pt files, and transformers' weights alone: sizes by shapes, the view by custom."""
    network = DPT(config)
    expected = replace(
        config, eps=dpt.MIDAS_EPS, view=replace(dpt.MIDAS_VIEW, size=(64, 64)),
        heads=config.channels // 64,
    )  # fmt: skip
    for name, layout in (("dpt_hybrid-midas.pt", dpt.MIDAS), ("hf.pt", dpt.TRANSFORMERS)):
        torch.save(layout.revert(network.state_dict(), config), tmp_path / name)
        assert dr.load(tmp_path / name).config == expected
    cut = dpt.MIDAS.revert(network.state_dict(), config)
    del cut["pretrained.model.cls_token"]
    torch.save(cut, tmp_path / "cut.pt")
    with pytest.raises(LayoutError, match=r"cut.pt.*token is missing"):
        dr.load(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("readout_type", "add", "readout_type = 'add' is not supported"),
        ("patch_size", 14, "patch_size = 14"),
        ("image_size", [384, 512], "must be a square"),
        ("use_batch_norm_in_fusion_residual", True, "use_batch_norm"),
        ("reassemble_factors", [1, 0.5], "must be 4, as neck_hidden_sizes"),
        ("colour", "blue", "is not known"),
    ],
)
def test_bad_configs(key: str, value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        dpt_configs.dpt_config({**dpt_configs.dpt_json(HYBRID), key: value})


def test_bad_views() -> None:
    for key, value in (
        ("resample", 1),
        ("size", "big"),
        ("size", 400),
        ("image_mean", 0.5),
        ("do_pad", True),
    ):
        with pytest.raises(CheckpointError, match=key):
            dpt_configs.view_config({**dpt_configs.view_json(View()), key: value})


def test_the_config_that_intel_published() -> None:
    """With the keys that transformers of 2022 wrote into it."""
    config = {
        **dpt_configs.dpt_json(DPT_HYBRID),
        "_commit_hash": None,
        "backbone_out_indices": [2, 5, 8, 11],
        "id2label": {"0": "LABEL_0"},
        "pooler_act": "tanh",
        "torch_dtype": "float32",
        "transformers_version": None,
        "use_auxiliary_head": True,
    }
    config["backbone_config"] = {
        **config["backbone_config"], "add_cross_attention": False, "drop_path_rate": 0.0,
        "hidden_sizes": [256, 512, 1024, 2048], "out_features": ["stage1", "stage2", "stage3"],
        "max_length": 20, "pruned_heads": {}, "stage_names": ["stem"], "width_factor": 1,
    }  # fmt: skip
    assert dpt_configs.dpt_config(config) == DPT_HYBRID
