"""Files whose network was wrapped: every name and every nesting opens as the plain file does."""

import json

import pytest
import torch
from safetensors.torch import save_file

from darkroom.weights.files import read_header, read_tensors
from darkroom.weights.inspect import inspect
from darkroom.weights.readers.wrappers import unwrapped

SAM = (
    "image_encoder.patch_embed.proj.weight",
    "mask_decoder.iou_token.weight",
    "prompt_encoder.no_mask_embed.weight",
)
LDM = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "first_stage_model.decoder.conv_in.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
)


@pytest.mark.parametrize("names", [SAM, LDM, LDM[:1]])
@pytest.mark.parametrize(
    "front",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net."]
    + ["model.module._orig_mod.", "state_dict.module.", "ema.", "params_ema.", "pl_module.model."],
)
def test_names_in_front(names, front):
    assert list(unwrapped([front + name for name in names])) == list(names)


def test_what_stays():
    for names in (
        ["model.22.cv2.weight", "model.0.conv.weight"],  # YOLO, ESRGAN: a list of layers
        ["model.diffusion_model.out.2.weight"],
        ["module.a", "a"],  # two would become one
        ["module"],
        ["net.a", "other.b"],  # not all of them
    ):
        assert unwrapped(names) == {name: name for name in names}
    inside = unwrapped(["unet._orig_mod.down.weight", "vae._fsdp_wrapped_module.up.weight"])
    assert list(inside) == ["unet.down.weight", "vae.up.weight"]
    one = unwrapped(["module.model.diffusion_model.a", "first_stage_model.module.b"])
    assert list(one) == ["model.diffusion_model.a", "first_stage_model.b"]
    averaged = unwrapped(["n_averaged", "module.a.weight", "module.b.weight"])
    assert list(averaged) == ["n_averaged", "a.weight", "b.weight"]


@pytest.mark.parametrize(
    "nest",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"model": {"model": {"module": s}}, "optimizer": {"a": torch.zeros(2)}},
        lambda s: {"ema": s},
        lambda s: {"model": {"state_dict": s, "ema": s, "epoch": 3}},
        lambda s: {"params": {"net": s}},
        lambda s: {"module." + name: tensor for name, tensor in s.items()},
        lambda s: {"state_dict": {"_orig_mod.module." + k: v for k, v in s.items()}},
    ],
)
def test_nested(tmp_path, nest):
    state = {name: torch.rand(4, 3) for name in SAM}
    torch.save(nest(state), tmp_path / "sam.pth")
    read = read_tensors(tmp_path / "sam.pth")
    assert set(read) == set(SAM) == set(read_header(tmp_path / "sam.pth").tensors)
    assert all(torch.equal(read[name], state[name]) for name in SAM)
    assert inspect(tmp_path / "sam.pth").kind == "SAM"


def test_a_model_of_parts(tmp_path):
    """A part called model beside another one is no wrapper."""
    parts = {"net": {"model": {"a": torch.zeros(1)}, "head": {"b": torch.zeros(1)}}}
    torch.save(parts, tmp_path / "a.pth")
    assert set(read_tensors(tmp_path / "a.pth")) == {"model.a", "head.b"}


def test_shards(tmp_path):
    state = {"module." + name: torch.rand(2, 2) for name in SAM}
    files = {name: f"model-0000{i}-of-00003.safetensors" for i, name in enumerate(state, 1)}
    for name, file in files.items():
        save_file({name: state[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert set(read_header(index).tensors) == set(SAM)
    assert torch.equal(read_tensors(index)[SAM[1]], state["module." + SAM[1]])
