"""What is saved, diffusers opens, and finds the same tensors."""

import json
from dataclasses import replace

import diffusers
import pytest
import safetensors.torch
import torch
from diffusers.loaders import single_file_utils

from cases import quick
from darkroom.errors import CheckpointError
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.weights.load import load
from darkroom.weights.save import save, write_tensors
from weights import tiny
from weights.tiny import assert_same, our_outputs

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
BUILDERS = {
    "sd1": (tiny.sd1, diffusers.StableDiffusionPipeline),
    "sd2": (tiny.sd2, diffusers.StableDiffusionPipeline),
    "sdxl": (tiny.sdxl, diffusers.StableDiffusionXLPipeline),
    "inpaint": (lambda: tiny.sd1(in_channels=9), diffusers.StableDiffusionInpaintPipeline),
}


def assert_same_tensors(theirs, ours):
    for name in PARTS:
        first, second = getattr(theirs, name, None), getattr(ours, name, None)
        assert (first is None) == (second is None)
        if first is None:
            continue
        a, b = first.state_dict(), second.state_dict()
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), f"{name}: {key}"


@pytest.mark.parametrize("name", quick(["sd1", "sdxl"], BUILDERS))
def test_folder_goes_through_us_unchanged(name, tmp_path):
    build, kind = BUILDERS[name]
    pipeline = build()
    model = load(tiny.save(pipeline, tmp_path / "theirs"))
    folder = save(model, tmp_path / "ours")
    again = kind.from_pretrained(folder)
    assert_same_tensors(pipeline, again)
    assert dict(again.scheduler.config) == {
        **dict(again.scheduler.config),
        **{k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")},
    }
    assert type(again.scheduler) is type(pipeline.scheduler)
    text = "the cat in a café, 3 hats"
    assert again.tokenizer(text).input_ids == pipeline.tokenizer(text).input_ids
    for part in PARTS:
        if getattr(pipeline, part, None) is not None:
            assert_config_kept(getattr(pipeline, part).config, getattr(again, part).config)
    assert_same(load(folder), pipeline)


def assert_config_kept(before, after):
    """Every value of a diffusers config is the same after going through us."""
    before, after = (c if isinstance(c, dict) else c.to_dict() for c in (before, after))
    differing = {
        key: (value, after.get(key))
        for key, value in before.items()
        if not key.startswith("_") and plain(value) != plain(after.get(key))
        and key not in ("transformers_version", "projection_dim")
    }  # fmt: skip
    assert not differing


def plain(value):
    """use_linear_projection and the like may be given or left at the default: compare as lists."""
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", quick(["sd2", "sdxl"], ["sd1", "sd2", "sdxl", "inpaint"]))
def test_single_file_is_what_diffusers_expects(name, tmp_path):
    build, _ = BUILDERS[name]
    pipeline = build()
    model = load(tiny.save(pipeline, tmp_path / "folder"))
    path = save(model, tmp_path / "model.safetensors")
    state = safetensors.torch.load_file(path)

    unet = single_file_utils.convert_ldm_unet_checkpoint(dict(state), pipeline.unet.config)
    assert_equal_states(unet, pipeline.unet.state_dict())
    vae = single_file_utils.convert_ldm_vae_checkpoint(dict(state), pipeline.vae.config)
    assert_equal_states(vae, pipeline.vae.state_dict())
    for prefix, part in {
        "sd1": [("cond_stage_model.transformer.", "text_encoder")],
        "inpaint": [("cond_stage_model.transformer.", "text_encoder")],
        "sdxl": [("conditioner.embedders.0.transformer.", "text_encoder")],
    }.get(name, []):
        text = single_file_utils.convert_ldm_clip_checkpoint(dict(state), remove_prefix=prefix)
        text = {key.removeprefix("text_model."): value for key, value in text.items()}
        wanted = getattr(pipeline, part).state_dict()
        wanted = {key.removeprefix("text_model."): value for key, value in wanted.items()}
        assert_equal_states(text, wanted)
    assert_same(load(path), pipeline)
    assert type(load(path).prediction).__name__ == type(model.prediction).__name__


def assert_equal_states(found, wanted):
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key].reshape(tensor.shape), tensor), key


def test_names_of_openclip_towers(tmp_path):
    """XL's second tower is OpenCLIP's: fused q, k, v and a projection to the right."""
    pipeline = tiny.sdxl()
    path = save(load(tiny.save(pipeline, tmp_path / "f")), tmp_path / "m.safetensors")
    state = safetensors.torch.load_file(path)
    second = pipeline.text_encoder_2.state_dict()
    start = "conditioner.embedders.1.model."
    assert torch.equal(state[f"{start}text_projection"].T, second["text_projection.weight"])
    layer = "text_model.encoder.layers.0.self_attn."
    fused = torch.cat([second[f"{layer}{x}_proj.weight"] for x in "qkv"])
    assert torch.equal(state[f"{start}transformer.resblocks.0.attn.in_proj_weight"], fused)


def test_what_diffusers_cannot_say_is_written_in_our_form(tmp_path):
    model = load(tiny.save(tiny.sd1(), tmp_path / "f"))
    config = AutoencoderConfig(channels=(32, 64), blocks=1, patch=4, scale=0.5)
    folded = replace(model, autoencoder=Autoencoder(config).eval(), settings={"steps": 7})
    folder = save(folded, tmp_path / "ours")
    again = load(folder)
    assert again.autoencoder.config == config
    assert again.settings["steps"] == 7
    for key, tensor in folded.autoencoder.state_dict().items():
        assert torch.equal(tensor, again.autoencoder.state_dict()[key])
    alone = load(save(folded.autoencoder, tmp_path / "alone"))
    assert alone.config == config


@pytest.mark.parametrize("part", ["unet", "autoencoder"])
def test_one_network(part, tmp_path):
    model = load(tiny.save(tiny.sd1(), tmp_path / "f"))
    network = getattr(model, part)
    again = load(save(network, tmp_path / "net"))
    assert type(again) is type(network)
    assert again.config == network.config
    theirs = {"unet": diffusers.UNet2DConditionModel, "autoencoder": diffusers.AutoencoderKL}
    theirs[part].from_pretrained(tmp_path / "net")


def test_saving_over_the_folder_that_is_loaded(tmp_path):
    folder = tiny.save(tiny.sd1(), tmp_path / "f")
    model = load(folder)
    before = our_outputs(model)
    save(model, folder)
    for name, tensor in our_outputs(load(folder)).items():
        assert torch.equal(tensor, before[name])
    assert [path.name for path in tmp_path.iterdir()] == ["f"], "nothing else is left"


def test_failure_leaves_the_old_folder(tmp_path):
    folder = tiny.save(tiny.sd1(), tmp_path / "f")
    model = load(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    broken = replace(model, autoencoder=torch.nn.Linear(2, 2))
    with pytest.raises((ValueError, AttributeError)):
        save(broken, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_refuses_places_that_are_no_model(tmp_path):
    model = load(tiny.save(tiny.sd1(), tmp_path / "f"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    for name in ("photos", "file", "x.ckpt"):
        with pytest.raises(CheckpointError):
            save(model, tmp_path / name)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"x"
    with pytest.raises(ValueError, match="whole model"):
        save(model.unet, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="LatentDiffusion or a network"):
        save({"a": 1}, tmp_path / "y")
    with pytest.raises(ValueError, match="Linear cannot be saved"):
        save(torch.nn.Linear(2, 2), tmp_path / "y")
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("size", [8, (8, 16)])
def test_pixel_diffusion_goes_through_us_unchanged(classes, size, tmp_path):
    unet = diffusers.UNet2DModel(
        sample_size=size,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    )
    unet.save_pretrained(tmp_path / "theirs")
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction", clip_sample=False)
    scheduler.save_pretrained(tmp_path / "theirs")
    folder = save(load(tmp_path / "theirs"), tmp_path / "ours")
    again = diffusers.UNet2DModel.from_pretrained(folder)
    assert all(
        torch.equal(a, b) for a, b in zip(unet.parameters(), again.parameters(), strict=True)
    )
    assert_config_kept(unet.config, again.config)
    found = diffusers.DDPMScheduler.from_pretrained(folder).config
    assert {k: v for k, v in found.items() if k[0] != "_"} == {
        k: v for k, v in scheduler.config.items() if k[0] != "_"
    }


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_safetensors_reads_what_we_write(dtype, tmp_path):
    g = torch.Generator().manual_seed(1)
    tensors = {
        "b": torch.randint(0, 2, (3, 5), generator=g).to(dtype),
        "a": torch.randint(0, 2, (4, 6), generator=g).to(dtype).t(),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros((0, 4)).to(dtype),
        "other": torch.arange(7.0),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"k": "ü"})
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"k": "ü"}


def test_metadata_says_what_the_file_is(tmp_path):
    model = load(tiny.save(tiny.sd2(), tmp_path / "f"))
    path = save(model, tmp_path / "m.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.prediction_type"] == "v"
    assert json.loads(metadata["darkroom"])["family"] == "sd2"
