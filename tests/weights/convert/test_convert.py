"""What is converted, diffusers opens; and back again it is what it was, bit for bit."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import safetensors.torch
import torch

from cases import quick
from darkroom.errors import CheckpointError, DarkroomError
from darkroom.models.autoencoder import Autoencoder
from darkroom.weights.convert import writing
from darkroom.weights.convert.converting import convert
from darkroom.weights.convert.lazy import Lazy, real
from darkroom.weights.convert.opening import networks_of, open_lazily
from darkroom.weights.load import load
from darkroom.weights.locate import locate
from darkroom.weights.save import save
from generation.control import depth_pair
from weights import tiny


def run(*arguments, **options) -> list[str]:
    """Convert; returns the notes."""
    steps = list(convert(*arguments, **options))
    assert steps[-1].done == steps[-1].total
    return [note for step in steps for note in step.notes]


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file or folder; text towers without the prefix that some versions write."""
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    found = {}
    for file in files:
        where = "" if file.parent == path or file == path else f"{file.parent.name}/"
        for name, tensor in safetensors.torch.load_file(file).items():
            found[where + (name.removeprefix("text_model.") if where else name)] = tensor
    return found


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert torch.equal(a[name], b[name]), name


BUILDERS = {
    "sd1": tiny.sd1,
    "sd2": tiny.sd2,
    "sdxl": tiny.sdxl,
    "refiner": tiny.refiner,
    "inpaint": lambda: tiny.sd1(in_channels=9),
    "depth": depth_pair.pipeline,
}


@pytest.mark.parametrize("name", quick(["sdxl"], BUILDERS))
def test_folder_to_file_and_back(name, tmp_path):
    pipeline = BUILDERS[name]().to(torch.bfloat16 if name == "sd2" else torch.float32)
    theirs = tiny.save(pipeline, tmp_path / "theirs")
    notes = run(theirs, tmp_path / "one.safetensors")
    assert any("tokenizer" in note for note in notes)
    run(tmp_path / "one.safetensors", tmp_path / "again")
    before = tensors_of(theirs)
    if name == "depth":  # no output depends on these
        unused = ("depth_estimator/dpt.layernorm.", "fusion_stage.layers.0.residual_layer1.")
        before = {k: v for k, v in before.items() if not any(part in k for part in unused)}
    assert_equal(before, tensors_of(tmp_path / "again"))
    again = type(pipeline).from_pretrained(tmp_path / "again")
    assert type(again.scheduler) is type(pipeline.scheduler)
    run(tmp_path / "again", tmp_path / "plain", to="darkroom")
    config = json.loads((tmp_path / "plain/unet/config.json").read_text())
    assert config["_class_name"] == "darkroom.UNet"
    run(tmp_path / "plain", tmp_path / "two.safetensors")
    assert_equal(tensors_of(tmp_path / "one.safetensors"), tensors_of(tmp_path / "two.safetensors"))


def test_numbers_and_variant_and_all_that_is_beside_the_weights(tmp_path):
    theirs = tiny.save(tiny.sd1(), tmp_path / "theirs", max_shard_size="200KB")
    assert list(theirs.glob("unet/*.index.json"))
    run(theirs, tmp_path / "half", dtype="fp16", variant="fp16")
    names = {p.name for p in (tmp_path / "half").rglob("*.safetensors")}
    assert names == {"diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"}
    kind = diffusers.StableDiffusionPipeline
    half = kind.from_pretrained(tmp_path / "half", variant="fp16", torch_dtype=torch.float16)
    whole = kind.from_pretrained(theirs)
    for part in ("unet", "vae", "text_encoder"):
        own = getattr(whole, part).state_dict()
        for key, tensor in getattr(half, part).state_dict().items():
            assert torch.equal(own[key].to(tensor.dtype), tensor), key
    for file in theirs.rglob("*.json"):
        if ".index." not in file.name:
            copy = tmp_path / "half" / file.relative_to(theirs)
            assert copy.read_bytes() == file.read_bytes()


def with_averages(path: Path) -> None:
    """A file as LDM's training leaves it: averages, noise levels, old position ids."""
    state = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    for name in [n for n in state if n.startswith("model.diffusion_model.")]:
        flat = "model_ema." + name.removeprefix("model.").replace(".", "")
        state[flat] = state[name] + 1
    state["betas"] = torch.linspace(0, 1, 1000)
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)
    safetensors.torch.save_file(state, path, metadata)


@pytest.mark.parametrize("ema", quick(["use"], ["use", "drop", "keep"]))
def test_averages(ema, tmp_path):
    folder = tiny.save(tiny.sd1(), tmp_path / "f")
    run(folder, tmp_path / "a.safetensors")
    with_averages(tmp_path / "a.safetensors")
    before = tensors_of(tmp_path / "a.safetensors")
    run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", ema=ema, dtype="bf16")
    after = tensors_of(tmp_path / "b.safetensors")
    assert torch.equal(after["betas"], before["betas"])  # noise levels are not weights
    assert any(n.startswith("model_ema") for n in after) == (ema == "keep")
    key = "model.diffusion_model.out.2.weight"
    assert torch.equal(after[key], (before[key] + (ema == "use")).bfloat16())
    if ema != "keep":
        notes = run(tmp_path / "a.safetensors", tmp_path / "c", ema=ema)
        assert any("betas" in note for note in notes)
        assert any("position_ids" in note for note in notes)
        out = tensors_of(tmp_path / "c")["unet/conv_out.weight"]
        assert torch.equal(out, before[key] + (ema == "use"))


def test_a_pickled_checkpoint(tmp_path):
    folder = tiny.save(tiny.sd1(), tmp_path / "f")
    run(folder, tmp_path / "a.safetensors")
    with_averages(tmp_path / "a.safetensors")
    state = safetensors.torch.load_file(tmp_path / "a.safetensors")
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "a.ckpt")
    for suffix in ("safetensors", "ckpt"):
        run(tmp_path / f"a.{suffix}", tmp_path / f"{suffix}.safetensors")
    assert_equal(*(tensors_of(tmp_path / f"{s}.safetensors") for s in ("safetensors", "ckpt")))


def test_an_autoencoder_alone(tmp_path):
    vae = tiny.sdxl().vae
    vae.save_pretrained(tmp_path / "vae")
    run(tmp_path / "vae", tmp_path / "vae.safetensors")
    found = load(tmp_path / "vae.safetensors")
    assert isinstance(found, Autoencoder)
    assert found.config.scale == 0.13025
    theirs = diffusers.AutoencoderKL.from_single_file(
        str(tmp_path / "vae.safetensors"), config=str(tmp_path / "vae"), local_files_only=True
    )
    assert_equal(vae.state_dict(), theirs.state_dict())
    run(tmp_path / "vae.safetensors", tmp_path / "back")
    assert_equal(vae.state_dict(), tensors_of(tmp_path / "back"))


def test_a_controlnet(tmp_path):
    net = diffusers.ControlNetModel.from_unet(tiny.sd1().unet)
    net.save_pretrained(tmp_path / "net")
    run(tmp_path / "net", tmp_path / "net.safetensors")
    state = tensors_of(tmp_path / "net.safetensors")
    assert all(name.startswith("control_model.") for name in state)
    run(tmp_path / "net.safetensors", tmp_path / "back")
    assert_equal(net.state_dict(), tensors_of(tmp_path / "back"))


def test_embeddings(tmp_path):
    vectors = torch.randn(3, 32).half()
    safetensors.torch.save_file({"<fox>": vectors}, tmp_path / "fox.safetensors")
    run(tmp_path / "fox.safetensors", tmp_path / "a.safetensors", to="a1111")
    assert_equal({"emb_params": vectors}, tensors_of(tmp_path / "a.safetensors"))


def test_what_is_refused(tmp_path, monkeypatch):
    folder = tiny.save(tiny.sd1(), tmp_path / "f")
    file = tmp_path / "one.safetensors"
    run(folder, file)
    with pytest.raises(CheckpointError, match="exists already; .*--force"):
        run(folder, file)
    run(folder, file, force=True)
    with pytest.raises(CheckpointError, match="pickles are not written"):
        run(folder, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="no form 'singel', did you mean|no form 'singel'"):
        run(folder, tmp_path / "x.safetensors", to="singel")
    with pytest.raises(ValueError, match="a folder is expected"):
        run(folder, tmp_path / "x.safetensors", to="diffusers")
    with pytest.raises(ValueError, match="no dtype"):
        run(folder, tmp_path / "x", dtype="fp8")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DarkroomError, match="bytes needed, 1,000 free"):
        run(folder, tmp_path / "x.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "one.safetensors"]


def test_half_written_files_vanish(tmp_path):
    folder = tiny.save(tiny.sd1(), tmp_path / "f")
    (tmp_path / "out").mkdir()
    steps = convert(folder, tmp_path / "out" / "x.safetensors")
    for _ in range(3):
        next(steps)
    assert list((tmp_path / "out").iterdir())
    steps.close()
    assert not list((tmp_path / "out").iterdir())


def test_what_does_not_fit_half_numbers_is_refused(tmp_path):
    safetensors.torch.save_file({"a.weight": torch.tensor([7e4])}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.weight: holds 7e\+04, and float16 ends"):
        run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp16")
    assert not (tmp_path / "b.safetensors").exists()


def test_nothing_is_read_before_it_is_written(tmp_path):
    folder = save(load(tiny.save(tiny.sd2(), tmp_path / "f")), tmp_path / "g")
    model = open_lazily(locate(folder))
    for network in networks_of(model).values():
        assert Counter(type(t) for t in network.state_dict().values()).keys() == {Lazy}
    own = load(folder).unet.state_dict()
    for name, tensor in networks_of(model)["unet"].state_dict().items():
        assert torch.equal(real(tensor), own[name])
