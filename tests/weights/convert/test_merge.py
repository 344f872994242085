"""The numbers of a merge are those of the formula."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from darkroom.errors import ModelMismatchError
from darkroom.weights.convert import Recipe
from darkroom.weights.convert.merging import merge
from darkroom.weights.load import load
from darkroom.weights.save import save
from weights import tiny


def run(models, target, *, dtype=None, **recipe) -> dict[str, torch.Tensor]:
    """Merge; returns the U-Net's tensors."""
    for _ in merge(models, target, Recipe(**recipe), dtype=dtype):
        pass
    return load(target, dtype=dtype and "float32").unet.state_dict()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("m")
    found = {f"{n}": tiny.save(tiny.sd1(seed=i), place / n) for i, n in enumerate("abc", start=1)}
    found["wide"] = tiny.save(tiny.sd1(in_channels=9, seed=5), place / "wide")
    found["xl"] = tiny.save(tiny.sdxl(), place / "xl")
    return found


def unets(folders, *names):
    return [load(folders[name]).unet.state_dict() for name in names]


def test_weighted_from_folder_and_file(folders, tmp_path):
    file = save(load(folders["b"]), tmp_path / "b.safetensors")
    found = run([folders["a"], file], tmp_path / "m.safetensors", ratio=0.3)
    a, b = unets(folders, "a", "b")
    for name, tensor in found.items():
        assert torch.equal(tensor, (1 - 0.3) * a[name] + 0.3 * b[name])
    vae = load(tmp_path / "m.safetensors").autoencoder.state_dict()
    theirs = [load(folders[n]).autoencoder.state_dict() for n in "ab"]
    assert torch.equal(
        vae["encoder.input.weight"],
        0.7 * theirs[0]["encoder.input.weight"] + 0.3 * theirs[1]["encoder.input.weight"],
    )


@pytest.mark.slow
def test_difference_into_a_folder_in_half_numbers(folders, tmp_path):
    three = [folders[n] for n in "abc"]
    found = run(three, tmp_path / "m", dtype="fp16", ratio=0.5, method="difference")
    a, b, c = unets(folders, *"abc")
    for name, tensor in found.items():
        assert torch.equal(tensor, (a[name] + 0.5 * (b[name] - c[name])).half().float())


def test_parts_have_ratios_of_their_own(folders, tmp_path):
    two = [folders["a"], folders["b"]]
    run(two, tmp_path / "m", ratio=0.3, ratios={"unet": 1.0, "vae": 0.0})
    model = load(tmp_path / "m")
    (b,) = unets(folders, "b")
    assert all(torch.equal(t, b[n]) for n, t in model.unet.state_dict().items())
    own = load(folders["a"]).autoencoder.state_dict()
    assert all(torch.equal(t, own[n]) for n, t in model.autoencoder.state_dict().items())


@pytest.mark.slow
def test_an_inpainting_model_keeps_its_further_channels(folders, tmp_path):
    found = run([folders["wide"], folders["b"], folders["c"]], tmp_path / "m.safetensors",
                ratio=1.0, method="difference")["input.weight"]  # fmt: skip
    a, b, c = (state["input.weight"] for state in unets(folders, "wide", "b", "c"))
    assert torch.equal(found[:, :4], a[:, :4] + (b - c))
    assert torch.equal(found[:, 4:], a[:, 4:])
    with pytest.raises(ModelMismatchError, match="takes 9 channels.*name the one with more"):
        run([folders["b"], folders["wide"]], tmp_path / "n.safetensors")


def test_what_was_merged_is_recorded(folders, tmp_path):
    file = save(load(folders["b"]), tmp_path / "b.safetensors")
    run([folders["a"], file], tmp_path / "m.safetensors", ratio=0.25)
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as opened:
        recipe = json.loads(opened.metadata()["sd_merge_recipe"])
    import hashlib

    assert recipe["secondary_model_hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (recipe["interp_method"], recipe["multiplier"]) == ("Weighted sum", 0.25)
    assert [one["name"] for one in recipe["models"]] == ["a", "b.safetensors"]
    assert load(tmp_path / "m.safetensors").settings["merged"] == recipe


def test_a_lora_is_written_in(folders, tmp_path):
    from darkroom.weights.adapters.lora import fuse

    generator = torch.Generator().manual_seed(0)
    start = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    state = {
        f"{start}.lora_down.weight": torch.randn(4, 32, generator=generator),
        f"{start}.lora_up.weight": torch.randn(32, 4, generator=generator),
        f"{start}.alpha": torch.tensor(2.0),
    }
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    lora = [(str(tmp_path / "x.safetensors"), 0.7)]
    found = run([folders["a"]], tmp_path / "m.safetensors", loras=lora)
    model = load(folders["a"])
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    with fuse(model, *lora):
        after = model.unet.state_dict()
        assert [n for n in after if not torch.equal(after[n], before[n])] == [
            "down.0.attention.blocks.0.self_attention.q.weight"
        ]
        assert all(torch.equal(found[name], tensor) for name, tensor in after.items())


def test_what_does_not_fit_is_refused(folders, tmp_path):
    with pytest.raises(ModelMismatchError, match="is of family sdxl, .* of sd1"):
        run([folders["a"], folders["xl"]], tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="takes 3 models, got 2"):
        run([folders["a"], folders["b"]], tmp_path / "m.safetensors", method="difference")
    with pytest.raises(ValueError, match="ratio 2: expected 0 to 1"):
        run([folders["a"], folders["b"]], tmp_path / "m.safetensors", ratio=2)
    assert not list(tmp_path.iterdir())
