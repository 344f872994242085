"""Weights that are not plain numbers: scaled fp8 is read, the rest is refused by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

import darkroom as dr
from darkroom.errors import CheckpointError, LayoutError
from darkroom.weights.convert.opening import lazily
from darkroom.weights.files import read_header, read_tensors
from darkroom.weights.inspect import inspect

E4M3 = torch.float8_e4m3fn


def file_of(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", [E4M3, torch.float8_e5m2])
@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1)])
def test_scaled_fp8(tmp_path, dtype, ending, shape):
    weight, scale = torch.randn(4, 3).to(dtype), torch.rand(shape) + 0.5
    path = file_of(
        tmp_path,
        {
            "a.weight": weight,
            f"a.{ending}": scale,
            "a.scale_input": torch.ones(()),
            "scaled_fp8": torch.zeros(2, dtype=dtype),
            "b.weight": torch.ones(2, 2).to(dtype),
        },
    )
    wanted = weight.float() * (scale if scale.numel() == 1 else scale.reshape(4, 1))
    read = read_tensors(path)
    assert set(read) == {"a.weight", "b.weight"}
    assert torch.equal(read["a.weight"], wanted)
    assert read["b.weight"].dtype == dtype
    lazy = lazily(read)["a.weight"]
    assert lazy.dtype == torch.float32
    assert torch.equal(lazy + 0, wanted)
    assert "a." + ending in read_header(path).tensors
    assert any("scaled fp8" in note for note in inspect(path).notes)


@pytest.mark.parametrize(
    ("beside", "by"),
    [
        ({"a.weight.absmax": (4,), "a.weight.quant_map": (16,)}, "bitsandbytes"),
        ({"a.weight.quant_state.bitsandbytes__nf4": (9,)}, "nf4, quantised by bitsandbytes"),
        ({"a.SCB": (4,)}, "int8, quantised by bitsandbytes"),
        ({"a.qweight": (4, 4), "a.qzeros": (4,)}, "GPTQ or AWQ"),
        ({"a.weight._data": (4, 4), "a.weight._scale": (4,)}, "quanto"),
        ({"a.comfy_quant": (9,)}, "ComfyUI"),
        ({}, "uint8"),
    ],
)
def test_packed(tmp_path, beside, by):
    tensors = {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in beside.items()}
    path = file_of(tmp_path, {"a.weight": torch.zeros(8, 1, dtype=torch.uint8), **tensors})
    with pytest.raises(CheckpointError, match="quantised") as error:
        read_tensors(path)
    assert by in str(error.value)
    assert "unquantised file (fp16, bf16 or fp32)" in str(error.value)
    assert any("does not read; get the unquantised" in note for note in inspect(path).notes)


def test_blocks(tmp_path):
    tensors = {"a.weight": torch.zeros(4, 64).to(E4M3), "a.weight_scale": torch.ones(4, 2)}
    with pytest.raises(CheckpointError, match="scaled in blocks"):
        read_tensors(file_of(tmp_path, tensors))


@pytest.mark.parametrize("name", ["emb_params", "<cat>"])
def test_an_embedding(tmp_path, name):
    from darkroom.weights.adapters.embeddings import open_embedding

    path = file_of(tmp_path, {name: torch.ones(2, 768, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match="vectors in int8, quantised"):
        open_embedding(path)


def test_a_folder_that_says_so(tmp_path):
    config = {
        "architectures": ["CLIPModel"],
        "quantization_config": {"quant_method": "bitsandbytes"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    file_of(tmp_path, {"a.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="quantised by bitsandbytes; get the unquantised"):
        dr.load(tmp_path)


def test_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CheckpointError, match=r"quantised GGUF.*get the unquantised file"):
        dr.load(path)


def test_whole_numbers_for_others(tmp_path):
    """Names that say nothing: the network knows which of its tensors have fractions."""
    from darkroom.models.resnet import ResNet, ResNetConfig
    from darkroom.weights.assemble import assemble

    config = ResNetConfig()
    state = ResNet(config).state_dict()
    name = next(name for name in state if name.endswith("running_mean"))
    state[name] = state[name].to(torch.int8)
    with pytest.raises(LayoutError, match="running_mean holds int8 numbers, expected fp16"):
        assemble(ResNet, config, state, None, torch.device("cpu"))
