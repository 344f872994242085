"""Single files: every family at full size (files with holes), and their traps at small size."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from cases import quick
from darkroom.diffusion.prediction import Noise, Velocity
from darkroom.errors import CheckpointError
from darkroom.models import autoencoder, clip_text, unet
from darkroom.weights.layouts import single_file
from darkroom.weights.layouts.annotators import dpt
from darkroom.weights.load import load
from darkroom.weights.save import save
from weights import tiny
from weights.sparse import write_sparse
from weights.tiny import assert_same


def dpt_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of dpt_hybrid-midas-501f0c75.pt, and the classifier's head."""
    config = dpt.MIDAS_PRESETS["dpt-hybrid"]
    with torch.device("meta"):
        state = dpt.MIDAS.revert(dpt.DPT(config).state_dict(), config)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return shapes | {"pretrained.model.head.weight": (1000, 768)}


BUFFERS = dict.fromkeys(  # what training leaves in the files that were published
    (
        "betas", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
        "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1",
        "posterior_mean_coef2", "logvar",
    ),
    (1000,),
)  # fmt: skip
DEPTH = {f"depth_model.model.{name}": shape for name, shape in dpt_names().items()}
FULL = {  # name of the file: family, U-Net, further keys, prediction, size
    "v1-5-pruned-emaonly": ("sd1", unet.SD15, BUFFERS, Noise, 512),
    "some-merge": ("sd1", unet.SD15, {}, Noise, 512),
    "sd-v1-5-inpainting": ("sd1", unet.SD15_INPAINT, BUFFERS, Noise, 512),
    "instruct-pix2pix-00-22000": ("sd1", unet.SD15_INSTRUCT, BUFFERS, Noise, 512),
    "v2-1_768-ema-pruned": ("sd2", unet.SD21, BUFFERS, Velocity, 768),
    "512-base-ema": ("sd2", unet.SD21, {}, Noise, 512),
    "512-inpainting-ema": ("sd2", unet.SD21_INPAINT, {}, Noise, 512),
    "renamed-inpainting": ("sd2", unet.SD21_INPAINT, {}, Noise, 512),
    "512-depth-ema": ("sd2", unet.SD21_DEPTH, DEPTH, Noise, 512),
    "sd_turbo": ("sd2", unet.SD21, {}, Noise, 512),
    "sd_xl_base_1.0": ("sdxl", unet.SDXL, {}, Noise, 1024),
    "sd_xl_turbo_1.0_fp16": ("sdxl", unet.SDXL, {}, Noise, 512),
    "sd_xl_refiner_1.0_0.9vae": ("sdxl-refiner", unet.SDXL_REFINER, {}, Noise, 1024),
}
FEW = [
    "v1-5-pruned-emaonly", "sd-v1-5-inpainting", "v2-1_768-ema-pruned", "512-base-ema",
    "512-depth-ema", "sd_xl_base_1.0", "sd_xl_refiner_1.0_0.9vae",
]  # fmt: skip
TOWERS = {
    "sd1": {"text": clip_text.CLIP_L},
    "sd2": {"text": clip_text.OPENCLIP_H},
    "sdxl": {"text": clip_text.CLIP_L, "text2": clip_text.OPENCLIP_BIGG},
    "sdxl-refiner": {"text2": clip_text.OPENCLIP_BIGG},
}
LEFTOVERS = {
    "sd1": {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)},
    "sd2": {
        "cond_stage_model.model.logit_scale": (),
        "cond_stage_model.model.text_projection": (1024, 1024),
        "cond_stage_model.model.transformer.resblocks.23.ln_1.weight": (1024,),
        "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
    },
    "sdxl": {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": (1, 77),
        "conditioner.embedders.1.model.logit_scale": (),
        "denoiser.sigmas": (1000,),
    },
    "sdxl-refiner": {"conditioner.embedders.0.model.logit_scale": ()},
}


def names_of(family: str, network: unet.UNetConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file."""
    parts = {"unet": (unet.UNet, network)}
    scale = autoencoder.SDXL_AUTOENCODER if "xl" in family else autoencoder.SD_AUTOENCODER
    parts["autoencoder"] = autoencoder.Autoencoder, scale
    parts |= {name: (clip_text.ClipTextModel, config) for name, config in TOWERS[family].items()}
    with torch.device("meta"):
        state = single_file.join(
            {name: (config, model(config).state_dict()) for name, (model, config) in parts.items()},
            single_file.FAMILIES[family],
        )
    return {name: tuple(tensor.shape) for name, tensor in state.items()} | LEFTOVERS[family]


@pytest.mark.parametrize("name", quick(FEW, FULL))
def test_published_files_at_full_size(name, tmp_path):
    family, network, extra, prediction, size = FULL[name]
    path = write_sparse(tmp_path / f"{name}.safetensors", names_of(family, network) | extra)
    model = load(path, dtype="float16")
    assert model.family == family
    assert model.unet.config == network
    assert isinstance(model.prediction, prediction)
    assert type(model.prediction) is prediction
    assert model.settings["size"] == (size, size)
    assert model.autoencoder.config.scale == (0.13025 if "xl" in family else 0.18215)
    assert [tower.model.config for tower in model.text_encoder.towers] == list(
        TOWERS[family].values()
    )
    turbo = "turbo" in name
    assert model.settings.get("steps") == (1 if turbo else None)
    own = {"sd1": "pndm", "sd2": "ddim"}.get(family, "euler")
    assert model.sampling.sampler == ("euler_ancestral" if turbo else own)
    assert ("depth" in name) == (model.depth is not None)
    assert model.depth is None or model.depth.config == dpt.MIDAS_PRESETS["dpt-hybrid"]
    pads = [tower.tokenizer.token(tower.tokenizer.pad) for tower in model.text_encoder.towers]
    marks = {"sd1": ["<|endoftext|>"], "sdxl": ["<|endoftext|>", "!"]}
    assert pads == marks.get(family, ["!"])
    assert model.text_encoder.size_channels == (256 if "xl" in family else 0)
    assert model.text_encoder.scored == (family == "sdxl-refiner")


def test_ambiguous_sd2_file_says_what_to_pass(tmp_path):
    path = write_sparse(tmp_path / "my-merge.safetensors", names_of("sd2", unet.SD21))
    with pytest.raises(CheckpointError, match='pass prediction="velocity"') as caught:
        load(path, dtype="float16")
    assert "\n" not in str(caught.value)
    assert type(load(path, dtype="float16", prediction="velocity").prediction) is Velocity
    assert load(path, dtype="float16", prediction="velocity").settings["size"] == (768, 768)
    assert type(load(path, dtype="float16", prediction="noise").prediction) is Noise
    tagged = write_sparse(
        tmp_path / "tagged.safetensors",
        names_of("sd2", unet.SD21),
        metadata={"modelspec.prediction_type": "v"},
    )
    assert type(load(tagged, dtype="float16").prediction) is Velocity


def test_velocity_marks_of_xl_merges(tmp_path):
    marks = {"v_pred": (), "ztsnr": ()}
    names = names_of("sdxl", unet.SDXL) | marks
    model = load(write_sparse(tmp_path / "noob.safetensors", names), dtype="float16")
    assert type(model.prediction) is Velocity
    assert model.sampling.settings["rescale_betas_zero_snr"] is True


@pytest.fixture(scope="module")
def pipeline():
    return tiny.sd1()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, pipeline):
    folder = tmp_path_factory.mktemp("file")
    return save(load(tiny.save(pipeline, folder / "sd1")), folder / "sd1.safetensors")


def parts_of(path):
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    return safetensors.torch.load_file(path), metadata


def write(path, state, metadata):
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path, metadata)
    return path


def test_averaged_weights_are_a_choice(saved, tmp_path, pipeline):
    state, metadata = parts_of(saved)
    start = "model.diffusion_model."
    for name in [name for name in state if name.startswith(start)]:
        flat = name.removeprefix("model.").replace(".", "")
        state[f"model_ema.{flat}"] = state[name].clone()
        state[name] = torch.zeros_like(state[name])
    state["model_ema.decay"] = torch.tensor(0.9999)
    state["model_ema.num_updates"] = torch.tensor(470000)
    path = write(tmp_path / "both.safetensors", state, metadata)
    model = load(path)
    assert_same(model, pipeline)
    assert "averaged weights (EMA) are used" in model.settings["notes"][0]
    other = load(path, ema=False)
    assert other.unet.input.weight.abs().sum() == 0
    assert "left aside" in other.settings["notes"][0]


@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_with_a_trainers_luggage(saved, tmp_path, pipeline, suffix, legacy, monkeypatch):
    """The sizes are in the metadata, which a pickle has not: told through the family here."""
    from darkroom.weights import single_file as reading

    state, metadata = parts_of(saved)
    luggage = {"epoch": 3, "global_step": 470000, "state_dict": state, "lr_schedulers": []}
    path = tmp_path / f"model{suffix}"
    torch.save(luggage, path, _use_new_zipfile_serialization=not legacy)
    own = json.loads(metadata["darkroom"])
    monkeypatch.setattr(reading, "_own", lambda *_: own)
    assert_same(load(path), pipeline)


def test_another_schedule_in_the_file_is_used(saved, tmp_path):
    state, metadata = parts_of(saved)
    own = json.loads(metadata["darkroom"])
    del own["scheduler"]
    metadata = metadata | {"darkroom": json.dumps(own)}
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, 0)
    path = write(tmp_path / "a.safetensors", state | {"alphas_cumprod": alpha_bar}, metadata)
    sigmas = torch.tensor(load(path).schedule.sigmas, dtype=torch.float64)
    torch.testing.assert_close(1 / (1 + sigmas**2), alpha_bar, rtol=1e-4, atol=1e-7)
    usual = load(write(tmp_path / "b.safetensors", state, metadata)).schedule
    same = 1 / (1 + torch.tensor(usual.sigmas, dtype=torch.float64) ** 2)
    path = write(tmp_path / "c.safetensors", state | {"alphas_cumprod": same.float()}, metadata)
    assert load(path).schedule == usual


def test_keys_of_no_part(saved, tmp_path, caplog):
    """Seven keys of no part: one line with five and the number; an error where one says strict."""
    state, metadata = parts_of(saved)
    junk = {f"mystery.{i}.weight": torch.ones(2) for i in range(6)}
    junk |= {"cond_stage_model.odd": torch.ones(1)}
    path = write(tmp_path / "a.safetensors", state | junk, metadata)
    plain, model = load(saved), load(path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.unet.parameters(), model.unet.parameters(), strict=True)
    )
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("a.safetensors: 7 keys touch no part of the model and are left aside: ")
    assert line.count("mystery") + line.count("odd") == 5
    with pytest.raises(CheckpointError, match=r"7 keys touch no part.*without strict"):
        load(path, strict=True)
    inside = {"model.diffusion_model.mystery.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match="1 keys not in this layout"):
        load(write(tmp_path / "b.safetensors", state | inside, metadata))


def test_missing_keys(saved, tmp_path):
    state, metadata = parts_of(saved)
    key = "model.diffusion_model.out.2.bias"
    rest = {name: tensor for name, tensor in state.items() if name != key}
    with pytest.raises(CheckpointError, match=r"missing, such as output\.bias"):
        load(write(tmp_path / "b.safetensors", rest, metadata))
    rest = {name: t for name, t in state.items() if not name.startswith("first_stage_model.")}
    with pytest.raises(CheckpointError, match="without autoencoder"):
        load(write(tmp_path / "c.safetensors", rest, metadata))
    with pytest.raises(CheckpointError, match="'darkroom' metadata"):
        load(write(tmp_path / "d.safetensors", state, {"darkroom": "{"}))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {
                "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320),
                "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": (320, 4),
                "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768),
                "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280),
            },
            "a LoRA for SDXL",
        ),
        ({"string_to_param.*": (3, 768)}, "a textual inversion"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "a U-Net"),
        ({"a": (1,)}, "a file of no known kind"),
    ],
)
def test_what_is_no_checkpoint_is_named(names, message, tmp_path):
    path = write_sparse(tmp_path / "x.safetensors", names)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "not a checkpoint; " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_an_autoencoder_alone(tmp_path, prefix):
    config = autoencoder.SD_AUTOENCODER
    with torch.device("meta"):
        state = autoencoder.Autoencoder(config).state_dict()
    from darkroom.weights.layouts.autoencoder import LDM

    names = {prefix + k: tuple(v.shape) for k, v in LDM.revert(state, config).items()}
    path = write_sparse(tmp_path / "vae-ft-mse-840000-ema-pruned.safetensors", names)
    model = load(path, dtype="float16")
    assert isinstance(model, autoencoder.Autoencoder)
    assert model.config == config
    xl = shutil.copy(path, tmp_path / "sdxl_vae.safetensors")
    assert load(xl, dtype="float16").config.scale == 0.13025
