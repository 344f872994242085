"""Folders that diffusers writes, in every form they are found in."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from darkroom.errors import CheckpointError
from darkroom.weights.load import load
from weights import tiny
from weights.tiny import assert_same

PIPELINES = {
    "sd1": tiny.sd1,
    "sd2": tiny.sd2,
    "sdxl": tiny.sdxl,
    "inpaint": lambda: tiny.sd1(in_channels=9),
    "instruct": lambda: tiny.sd1(in_channels=8),
    "depth": lambda: tiny.sd2(in_channels=5, velocity=False),
}


@pytest.fixture(scope="module")
def sd1_pipeline():
    return tiny.sd1()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, sd1_pipeline):
    """A folder to copy, not to change."""
    return tiny.save(sd1_pipeline, tmp_path_factory.mktemp("saved") / "sd1")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "sd1")


@pytest.mark.parametrize("name", PIPELINES)
def test_same_numbers_as_diffusers(name, tmp_path):
    pipeline = PIPELINES[name]()
    model = load(tiny.save(pipeline, tmp_path / name))
    assert_same(model, pipeline)
    assert model.family == {"sd2": "sd2", "depth": "sd2", "sdxl": "sdxl"}.get(name, "sd1")
    assert model.settings["size"] == (64, 64)
    assert not any(p.requires_grad or p.is_meta for p in model.unet.parameters())
    assert not model.unet.training


def test_prediction_and_sampler_come_from_the_scheduler(tmp_path):
    model = load(tiny.save(tiny.sd2(), tmp_path / "a"))
    assert type(model.prediction).__name__ == "Velocity"
    assert model.sampling.sampler == "ddim"
    assert type(load(tmp_path / "a", prediction="noise").prediction).__name__ == "Noise"
    other = load(tiny.save(tiny.sd2(velocity=False), tmp_path / "b"))
    assert type(other.prediction).__name__ == "Noise"


def test_bin_only(folder, sd1_pipeline):
    for path in folder.glob("*/*.safetensors"):
        name = "pytorch_model" if path.stem == "model" else path.stem
        torch.save(safetensors.torch.load_file(path), path.with_name(name + ".bin"))
        path.unlink()
    assert_same(load(folder), sd1_pipeline)


def test_half_variant_alone(folder, sd1_pipeline):
    for path in folder.glob("*/*.safetensors"):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    assert_same(load(folder), sd1_pipeline)


def test_variant_follows_dtype(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = {k: torch.full_like(v, 0.5).half() for k, v in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(half, path.with_name(path.stem + ".fp16.safetensors"))
    assert load(folder).unet.input.weight[0, 0, 0, 0] != 0.5
    assert load(folder, dtype="float16").unet.input.weight[0, 0, 0, 0] == 0.5
    assert load(folder, variant="fp16").unet.input.weight[0, 0, 0, 0] == 0.5
    noted = load(folder, variant="bf16")
    assert "no variant bf16" in noted.settings["notes"][0]


@pytest.mark.parametrize("old_name", [False, True])
def test_sharded(folder, sd1_pipeline, old_name):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    sd1_pipeline.unet.save_pretrained(folder / "unet", max_shard_size="4MB")
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    assert index.is_file()
    path.unlink(missing_ok=True)
    if old_name:  # diffusers before 0.31, with variant="fp16"
        text = index.read_text()
        for shard in folder.glob("unet/*-of-*"):
            new = shard.name.replace("model-", "model.fp16-")
            text = text.replace(shard.name, new)
            shard.rename(shard.with_name(new))
        index.with_name("diffusion_pytorch_model.safetensors.index.fp16.json").write_text(text)
        index.unlink()
    assert_same(load(folder), sd1_pipeline)
    next(folder.glob("unet/*.json*index*"), index)
    for found in folder.glob("unet/*.index*"):
        found.unlink()
    with pytest.raises(CheckpointError, match="index.json is missing"):
        load(folder)


def test_old_attention_names(folder, sd1_pipeline):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, tensor in safetensors.torch.load_file(path).items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.")
        state[key] = tensor
    assert any(".proj_attn." in key for key in state)
    safetensors.torch.save_file(state, path)
    assert_same(load(folder), sd1_pipeline)


@pytest.mark.parametrize("prefix", ["text_model.", ""])
@pytest.mark.parametrize("position_ids", [True, False])
def test_forms_of_the_text_tower(folder, sd1_pipeline, prefix, position_ids):
    path = folder / "text_encoder" / "model.safetensors"
    state = {
        prefix + key.removeprefix("text_model."): tensor
        for key, tensor in safetensors.torch.load_file(path).items()
        if not key.endswith("position_ids")
    }
    if position_ids:
        state[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    safetensors.torch.save_file(state, path)
    assert_same(load(folder), sd1_pipeline)


def test_safety_checker_is_left_aside_and_said(folder):
    index = folder / "model_index.json"
    data = json.loads(index.read_text())
    assert data["safety_checker"] == [None, None]
    assert load(folder).settings["notes"] == ()
    data["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    data["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index.write_text(json.dumps(data))
    (note,) = load(folder).settings["notes"]
    assert "safety checker" in note


def test_tokenizer_of_transformers_5(folder, sd1_pipeline):
    shutil.rmtree(folder / "tokenizer")
    sd1_pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    assert (folder / "tokenizer" / "tokenizer.json").is_file()
    assert_same(load(folder), sd1_pipeline)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("unet", "time_cond_proj_dim", 256, "guidance.weight"),
        ("unet", "act_fn", "gelu", "act_fn = 'gelu'"),
        ("unet", "sampel_size", 8, "sampel_size = 8 is not known; did you mean 'sample_size'"),
        ("unet", "only_cross_attention", True, "only_cross_attention = True"),
        ("unet", "up_block_types", ["UpBlock2D"] * 4, "must mirror"),
        ("unet", "layers_per_block", [1, 2, 2, 2], "the same at every level"),
        ("unet", "addition_embed_type", "image", "addition_embed_type = 'image'"),
        ("unet", "cross_attention_dim", 48, "has shape (32, 32), expected (32, 48)"),
        ("vae", "latents_mean", [0.0], "latents_mean"),
        ("vae", "use_quant_conv", False, "must be as use_quant_conv"),
        ("text_encoder", "hidden_act", "relu", "hidden_act = 'relu'"),
        ("text_encoder", "rope", 1, "rope = 1 is not known"),
    ],
)
def test_strict_configs(folder, part, key, value, message):
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert str(folder / part) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_strict_pipelines(folder):
    index = folder / "model_index.json"
    data = json.loads(index.read_text())
    index.write_text(json.dumps(data | {"prior": ["diffusers", "PriorTransformer"]}))
    with pytest.raises(CheckpointError, match="a part 'prior' \\(PriorTransformer\\)"):
        load(folder)
    index.write_text(json.dumps(data | {"unet": ["diffusers", "FlaxUNet2DConditionModel"]}))
    with pytest.raises(CheckpointError, match="get the PyTorch version"):
        load(folder)
    index.write_text(json.dumps(data | {"vae": [None, None]}))
    with pytest.raises(CheckpointError, match="without vae"):
        load(folder)
    index.write_text(json.dumps(data | {"aesthetics": 6}))
    assert "aesthetics = 6" in load(folder).settings["notes"][0]
    index.write_text("[")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load(folder)


def test_what_is_missing_is_named(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="unet: no weights"):
        load(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"unet/config.json: missing"):
        load(folder)


def test_unknown_scheduler(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "FancyScheduler"}))
    with pytest.raises(CheckpointError, match="FancyScheduler"):
        load(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.float16])
def test_dtype(folder, dtype):
    model = load(folder, dtype=dtype)
    kind = getattr(torch, str(dtype).removeprefix("torch."))
    for part in (model.unet, model.autoencoder, model.text_encoder):
        assert {p.dtype for p in part.parameters()} == {kind}


def test_half_file_as_float32(folder, sd1_pipeline):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = {k: v.half() for k, v in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(half, path)
    weight = load(folder).unet.input.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, sd1_pipeline.unet.conv_in.weight.half().float())


def test_writing_into_a_loaded_model_leaves_the_file(folder):
    with torch.no_grad():
        load(folder).unet.input.weight.zero_()
    assert load(folder).unet.input.weight.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_outdated_scheduler_file_is_read_as_diffusers_reads_it(folder):
    """Old files lack ``steps_offset`` and clip; StableDiffusionPipeline mends both."""
    import diffusers

    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    config.pop("steps_offset", None)
    path.write_text(
        json.dumps(config | {"clip_sample": True} if "clip_sample" in config else config)
    )
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler.set_timesteps(10)
    levels = load(folder).sampling.levels(10)
    assert list(levels.timesteps) == pipeline.scheduler.timesteps.tolist()


def test_a_network_is_built_without_memory():
    """Layers pass ``device=None`` on, which must not mean the CPU."""
    from darkroom.models.clip_text import CLIP_L, ClipTextModel
    from darkroom.weights.assemble import on_meta

    with on_meta():
        network = ClipTextModel(CLIP_L)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
