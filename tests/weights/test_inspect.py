"""``inspect`` on files of every kind: full-size names, from the oracles and our own layouts."""

import functools
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from sparse import write_sparse
from torch import nn

import oracles
from bounded import lines_run
from darkroom.errors import CheckpointError
from darkroom.models import unet as unets
from darkroom.models.autoencoder import SD_AUTOENCODER, Autoencoder
from darkroom.models.clip_text import CLIP_L, OPENCLIP_BIGG, OPENCLIP_H, ClipTextModel
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts import autoencoder, clip_text, single_file, unet
from darkroom.weights.locate import ASSETS

PRESETS = {**unet.SD1_PRESETS, **unet.LINEAR_PRESETS}


def meta(model, config):
    with torch.device("meta"):
        return model(config).state_dict()


def shapes(state, prefix=""):
    return {prefix + name: tuple(tensor.shape) for name, tensor in state.items()}


def checkpoint(preset: str, family: single_file.Family) -> dict:
    """Names and shapes of a whole LDM or SGM file."""
    towers = {
        "sd1": {"text": CLIP_L},
        "sd2": {"text": OPENCLIP_H},
        "sdxl": {"text": CLIP_L, "text2": OPENCLIP_BIGG},
    }[family.name]
    config = PRESETS[preset]
    parts = {
        "unet": (config, meta(unets.UNet, config)),
        "autoencoder": (SD_AUTOENCODER, meta(Autoencoder, SD_AUTOENCODER)),
    }
    parts |= {name: (tower, meta(ClipTextModel, tower)) for name, tower in towers.items()}
    return shapes(single_file.join(parts, family))


def lines_per_tensor(path, tensors: int) -> float:
    """Lines of Python that ``inspect`` runs for each; from the header alone, so a constant."""
    inspect(path)
    return lines_run(lambda: inspect(path)) / tensors


@pytest.fixture(scope="module")
def sd15():
    return checkpoint("sd15", single_file.SD1)


def test_sd15_checkpoint(sd15, tmp_path):
    names = {**sd15, "alphas_cumprod": (1000,), "betas": (1000,)}
    report = inspect(write_sparse(tmp_path / "my-merge.safetensors", names))
    assert report.kind == "checkpoint"
    assert report.base == "SD 1.x"
    assert report.variant == ""
    assert report.dtype == "float16"
    assert report.prediction == "noise"
    assert report.prediction_source == "usual for SD 1.x"
    assert set(report.parts) == {"U-Net", "autoencoder", "text encoder"}
    assert report.parameters == 859_520_964 + 83_653_863 + 123_060_480 + 2000
    assert report.bytes > 2 * report.parameters
    assert not report.unknown
    assert not report.ema
    assert report.layout == "LDM"
    assert report.format == "safetensors"


def test_ema_unknown_names_and_licence(sd15, tmp_path):
    names = {
        **sd15,
        "model_ema.decay": (),
        "lora.strange": (3,),
        **{f"x{i}": (1,) for i in range(9)},
    }
    report = inspect(write_sparse(tmp_path / "v1-5-pruned.safetensors", names, "float32"))
    assert report.ema
    assert report.unknown == ("lora.strange", "x0", "x1", "x2", "x3")
    assert report.unknown_count == 10
    assert report.licence == "CreativeML-OpenRAIL-M"
    assert report.name == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert report.prediction_source.startswith("the catalogue")


@pytest.mark.parametrize(
    ("preset", "variant"),
    [("sd15-inpaint", "inpainting"), ("sd15-instruct", "instruct: edits by instruction")],
)
def test_variants_of_sd15(preset, variant, tmp_path):
    names = checkpoint(preset, single_file.SD1)
    report = inspect(write_sparse(tmp_path / "a.safetensors", names))
    assert (report.base, report.variant) == ("SD 1.x", variant)
    assert report.input_channels == (9 if preset == "sd15-inpaint" else 8)


def test_sd2_is_ambiguous_unless_somebody_says(tmp_path):
    names = checkpoint("sd21", single_file.SD2)
    report = inspect(write_sparse(tmp_path / "mine.safetensors", names))
    assert report.base == "SD 2.x"
    assert report.prediction == ""
    assert "does not say" in report.notes[0]
    known = inspect(write_sparse(tmp_path / "v2-1_768-ema-pruned.safetensors", names))
    assert known.prediction == "velocity"
    assert "does not say" not in " ".join(known.notes)
    said = {"modelspec.architecture": "stable-diffusion-v2-768-v", "modelspec.license": "MIT"}
    report = inspect(write_sparse(tmp_path / "b.safetensors", names, metadata=said))
    assert (report.prediction, report.licence) == ("velocity", "MIT")
    marked = inspect(write_sparse(tmp_path / "c.safetensors", {**names, "v_pred": (0,)}))
    assert marked.prediction == "velocity"


def test_sd2_depth(tmp_path):
    names = checkpoint("sd21-depth", single_file.SD2) | {"depth_model.model.a": (3,)}
    report = inspect(write_sparse(tmp_path / "a.safetensors", names))
    assert (report.base, report.variant, report.prediction) == (
        "SD 2.x",
        "depth to image",
        "noise",
    )
    assert "depth estimator" in report.parts


def test_sdxl_checkpoint(tmp_path):
    names = checkpoint("sdxl", single_file.SDXL)
    path = write_sparse(tmp_path / "a.safetensors", names)
    assert lines_per_tensor(path, len(names)) < 150  # measured: 50
    report = inspect(path)
    assert (report.kind, report.base, report.prediction) == ("checkpoint", "SDXL", "noise")
    assert report.layout == "SGM"
    assert report.bytes > 6.9e9
    assert set(report.parts) == {
        "U-Net",
        "autoencoder",
        "first text encoder",
        "second text encoder",
    }


def test_pickled_checkpoint_with_ema(sd15, tmp_path):
    """As many tensors as v1-5-pruned.ckpt; they repeat one element here, to be small."""
    shapes = {n: s if math.prod(s) < 1 << 18 else (1,) for n, s in sd15.items()}
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    state |= {f"model_ema.{n.replace('.', '')}": t for n, t in state.items() if "diffusion" in n}
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": state, "global_step": 470_000, "callbacks": {Odd: Odd()}}, path)
    assert lines_per_tensor(path, len(state)) < 1500  # 433: and those of the pickle itself
    report = inspect(path)
    assert (report.kind, report.base, report.ema) == ("checkpoint", "SD 1.x", True)
    assert report.format == "torch"
    assert report.details["global_step"] == 470_000
    assert any("Odd" in name for name in report.skipped)


class Odd:
    """Something that only the trainer has."""


UNETS = ["sd15", "sd21", "sdxl", "sd15-inpaint", "sd21-depth"]
BASES = {"sd15": "SD 1.x", "sd21": "SD 2.x", "sdxl": "SDXL"}


@pytest.mark.parametrize("preset", UNETS)
def test_unets(preset, tmp_path):
    config = PRESETS[preset]
    ours = meta(unets.UNet, config)
    sd1 = preset.startswith("sd15")
    for layout, said in ((unet.DIFFUSERS_SD1 if sd1 else unet.DIFFUSERS, "diffusers"),
                         (unet.LDM_SD1 if sd1 else unet.LDM, "LDM")):  # fmt: skip
        names = shapes(layout.revert(ours, config))
        report = inspect(write_sparse(tmp_path / "a.safetensors", names))
        assert (report.kind, report.layout) == ("U-Net", said)
        assert report.base == BASES[preset.split("-")[0]]
        assert report.input_channels == config.in_channels
        assert report.tensors == len(ours)


def diffusers_meta(make):
    with torch.device("meta"):
        return shapes(make().state_dict())


def oracle_networks():
    import diffusers
    import transformers

    def clip(kind, config):
        return lambda: kind(config())

    control = functools.partial(diffusers.ControlNetModel, cross_attention_dim=768)
    yield "ControlNet", "diffusers", "SD 1.x", control
    yield "unconditional U-Net", "diffusers", "", diffusers.UNet2DModel
    video = functools.partial(diffusers.UNet3DConditionModel, cross_attention_dim=1024)
    yield "video U-Net", "diffusers", "SD 2.x", video
    yield "autoencoder", "diffusers", "", diffusers.AutoencoderKL
    yield "tiny autoencoder", "diffusers", "", diffusers.AutoencoderTiny
    yield "T2I-adapter", "diffusers", "SD 1.x", diffusers.T2IAdapter
    yield "motion module", "", "", diffusers.MotionAdapter
    yield "CLIP", "Hugging Face", "", clip(transformers.CLIPModel, transformers.CLIPConfig)
    text = clip(transformers.CLIPTextModel, transformers.CLIPTextConfig)
    yield "CLIP text encoder", "Hugging Face, bare", "", text
    seeing = clip(transformers.CLIPVisionModelWithProjection, transformers.CLIPVisionConfig)
    yield "CLIP image encoder", "Hugging Face", "", seeing
    yield "SAM", "Hugging Face", "", clip(transformers.SamModel, transformers.SamConfig)
    words = clip(transformers.DistilBertModel, transformers.DistilBertConfig)
    yield "DistilBERT", "Hugging Face", "", words
    yield (
        "depth estimator",
        "Hugging Face",
        "",
        clip(transformers.DPTForDepthEstimation, transformers.DPTConfig),
    )


def test_networks_of_the_oracles(tmp_path):
    for kind, layout, base, make in oracle_networks():
        names = diffusers_meta(make)
        report = inspect(write_sparse(tmp_path / "a.safetensors", names))
        assert (report.kind, report.layout, report.base) == (kind, layout, base)


WRITTEN = [  # kind, layout, base, names with the shapes that matter
    ("ControlNet", "LDM", "SD 1.x",
     {"control_model.zero_convs.0.0.weight": (320, 320, 1, 1),
      "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)}),
    ("Control-LoRA", "SGM", "SDXL",
     {"lora_controlnet": (), "input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": (64, 2048),
      "input_blocks.4.1.transformer_blocks.0.attn2.to_k.up": (640, 64)}),
    ("ControlNet difference", "LDM", "SD 1.x",
     {"difference": (), "control_model.zero_convs.0.0.weight": (320, 320, 1, 1),
      "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)}),
    ("T2I-adapter", "original", "SD 1.x",
     {"body.0.block1.weight": (320, 320, 3, 3), "conv_in.weight": (320, 192, 3, 3)}),
    ("T2I-adapter", "original", "SDXL",
     {"body.0.block1.weight": (320, 320, 3, 3), "conv_in.weight": (320, 768, 3, 3)}),
    ("T2I-adapter", "original", "SD 1.x",
     {"body.0.body.0.block1.weight": (80, 80, 3, 3), "body.0.in_conv.weight": (80, 192, 1, 1)}),
    ("IP-Adapter", "", "",
     {"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}),
    ("textual inversion", "A1111", "SD 2.x", {"emb_params": (4, 1024)}),
    ("textual inversion", "SDXL", "SDXL", {"clip_l": (2, 768), "clip_g": (2, 1280)}),
    ("textual inversion", "diffusers", "SD 1.x", {"<cat-toy>": (768,)}),
    ("CLIP", "OpenAI", "",
     {"visual.conv1.weight": (768, 3, 32, 32), "token_embedding.weight": (49408, 512),
      "input_resolution": (), "logit_scale": ()}),
    ("CLIP", "open_clip", "",
     {"visual.conv1.weight": (1280, 3, 14, 14), "token_embedding.weight": (49408, 1024),
      "logit_scale": ()}),
    ("SAM", "original", "",
     {"image_encoder.patch_embed.proj.weight": (1280, 3, 16, 16),
      "mask_decoder.iou_token.weight": (1, 256), "prompt_encoder.a.weight": (1, 256)}),
    ("MobileSAM", "original", "",
     {"image_encoder.patch_embed.seq.0.c.weight": (32, 3, 3, 3), "image_encoder.layers.0.a": (1,),
      "mask_decoder.a": (1,), "prompt_encoder.b": (1,)}),
    ("SAM 2", "", "", {"image_encoder.trunk.a": (1,), "memory_attention.b": (1,)}),
    ("DeAOT", "original", "",
     {"LSTT.layers.0.norm1.weight": (1,), "patch_wise_id_bank.weight": (256, 11, 17, 17)}),
    ("DeAOT", "original", "",
     {"module.LSTT.layers.0.norm1.weight": (1,), "module.patch_wise_id_bank.weight": (1,)}),
    ("ImageBind", "", "", {"modality_trunks.audio.a": (1,), "modality_heads.b": (1,)}),
    ("depth estimator", "MiDaS", "", {"pretrained.model.a": (1,), "scratch.b": (1,)}),
    ("tiny autoencoder", "original", "",
     {"0.weight": (64, 3, 3, 3), "1.conv.0.weight": (64, 64, 3, 3), "1.conv.2.weight": (64,)}),
    ("video U-Net", "ModelScope", "SD 2.x",
     {"input_blocks.0.0.weight": (320, 4, 3, 3), "input_blocks.1.0.temopral_conv.a": (1,),
      "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}),
    ("annotator: body pose", "OpenPose", "",
     {"model1_1.conv5_1_CPM_L1.weight": (1,), "model6_1.Mconv1_stage6_L1.weight": (1,)}),
    ("annotator: soft edges", "HED", "",
     {"block1.convs.0.weight": (1,), "block5.projection.weight": (1,)}),
    ("annotator: lines", "M-LSD", "", {"backbone.features.0.a": (1,), "block15.conv1.0.b": (1,)}),
    ("CLIP from scratch", "book", "",
     {"image_encoder.model.a": (1,), "text_encoder.model.a": (1,), "image_projection.a": (1,),
      "text_projection.a": (1,)}),
    ("dual encoder", "Darkroom", "",
     {"image.stages.0.weight": (32, 3, 3, 3), "text.token.weight": (3000, 128),
      "image_projection.weight": (256, 256), "text_projection.weight": (256, 128)}),
    ("segmentation U-Net", "original", "", {"start_conv.0.a": (1,), "down1.down_conv.a": (1,)}),
    ("upscaler (ESRGAN)", "", "", {"model.0.weight": (1,), "model.1.sub.0.RDB1.a": (1,)}),
    ("unknown", "", "", {"weight": (3, 4), "bias": (3,)}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "layout", "base", "names"), WRITTEN)
def test_kinds_by_their_names(kind, layout, base, names, tmp_path):
    report = inspect(write_sparse(tmp_path / "a.safetensors", names))
    assert (report.kind, report.layout, report.base) == (kind, layout, base)


UNET_KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
PEFT_KEY = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
LORAS = [  # layout, base, method, rank, names
    ("kohya", "SD 1.x", "LoRA", 8,
     {f"{UNET_KEY}.lora_down.weight": (8, 768), f"{UNET_KEY}.lora_up.weight": (320, 8),
      f"{UNET_KEY}.alpha": ()}),
    ("kohya", "SDXL", "LoRA", 32,
     {f"{UNET_KEY}.lora_down.weight": (32, 2048), f"{UNET_KEY}.lora_up.weight": (320, 32)}),
    ("kohya", "SD 2.x", "LoCon with DoRA", 16,
     {f"{UNET_KEY}.lora_down.weight": (16, 1024), f"{UNET_KEY}.dora_scale": (1, 1024),
      "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": (16, 320, 3, 3)}),
    ("kohya", "SD 1.x", "LoRA", 4,
     {"lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 768)}),
    ("kohya", "SDXL", "LoRA", 4,
     {"lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight": (4, 1280)}),
    ("LyCORIS", "SD 1.x", "LoHa", 4,
     {f"{UNET_KEY}.hada_w1_a": (320, 4), f"{UNET_KEY}.hada_w1_b": (4, 768)}),
    ("LyCORIS", "SDXL", "LoKr", None,
     {f"{UNET_KEY}.lokr_w1": (4, 16), f"{UNET_KEY}.lokr_w2": (160, 128)}),
    ("LyCORIS", "SD 1.x", "full difference", None, {f"{UNET_KEY}.diff": (320, 768)}),
    ("peft", "SD 1.x", "LoRA", 64,
     {f"{PEFT_KEY}.lora_A.weight": (64, 768), f"{PEFT_KEY}.lora_B.weight": (320, 64)}),
    ("diffusers", "SD 2.x", "LoRA", 4,
     {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight":
      (4, 1024)}),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "base", "method", "rank", "names"), LORAS)
def test_loras(layout, base, method, rank, names, tmp_path):
    report = inspect(write_sparse(tmp_path / "a.safetensors", names))
    assert (report.kind, report.layout, report.base) == ("LoRA", layout, base)
    assert report.details["method"] == method
    assert report.details.get("rank") == rank
    assert not report.unknown


def test_training_metadata(tmp_path):
    tags = {"10_cat": {"a cat": 30, "ohwx": 40, "grass": 2}}
    metadata = {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_dim": "8",
        "ss_tag_frequency": json.dumps(tags),
        "modelspec.title": "My\x1b[31m cat",
        "ss_v2": "None",
    }
    names = {"lora_unet_mid_block_resnets_0_conv1.lora_down.weight": (8, 1280, 3, 3)}
    report = inspect(write_sparse(tmp_path / "a.safetensors", names, metadata=metadata))
    assert report.base == "SDXL"
    assert report.training["ss_network_dim"] == "8"
    assert report.training["tags"] == "ohwx, a cat, grass"
    assert report.name == "My?[31m cat"
    assert "ss_v2" not in report.training
    plain = report.summary()
    assert json.loads(json.dumps(plain)) == plain
    assert "unknown" not in plain


def test_pickled_kinds(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(3, 768)},
                "name": "ohwx", "step": 500}, path)  # fmt: skip
    report = inspect(path)
    assert (report.kind, report.base) == ("textual inversion", "SD 1.x")
    assert report.details == {"vectors": 3, "name": "ohwx", "step": 500}

    half = {"linear.0.weight": torch.zeros(4, 2), "linear.0.bias": torch.zeros(4)}
    torch.save({768: (half, half), 320: (half, half), "layer_structure": [1, 2, 1]}, path)
    report = inspect(path)
    assert (report.kind, report.base) == ("hypernetwork", "SD 1.x")
    assert report.details == {"sizes": (320, 768), "layer_structure": [1, 2, 1]}

    torch.save({"model": segmenter(), "ema": None, "train_args": {"epochs": 3}}, path)
    report = inspect(path)
    assert (report.kind, report.layout) == ("FastSAM", "Ultralytics")
    assert report.licence == "AGPL-3.0"
    assert report.details["size"] == "x"
    assert "torch.nn.modules.conv.Conv2d" in report.skipped


def segmenter() -> nn.Module:
    """A module with the names of FastSAM-x."""
    layers: list[nn.Module] = [nn.Identity() for _ in range(23)]
    layers[0] = nn.ModuleDict({"conv": nn.Conv2d(3, 80, 3)})
    head = {"proto": nn.ModuleDict({"cv1": nn.Conv2d(1, 1, 1)})}
    head["cv4"] = nn.ModuleList([nn.Conv2d(1, 1, 1)])
    layers[22] = nn.ModuleDict(head)
    return nn.ModuleDict({"model": nn.Sequential(*layers)})


def test_pipeline_folder(tmp_path):
    import diffusers

    config = oracles.unet(unets.UNetConfig(), linear=False, device="meta").config
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(
        json.dumps({"in_channels": 9, "cross_attention_dim": config["cross_attention_dim"]})
    )
    diffusers.DDIMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "scheduler")
    names = shapes(meta(Autoencoder, SD_AUTOENCODER))
    (tmp_path / "vae").mkdir()
    write_sparse(tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors", names)
    write_sparse(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", names, "float32")
    report = inspect(tmp_path)
    assert (report.kind, report.base, report.variant) == ("checkpoint", "SD 1.x", "inpainting")
    assert report.prediction == "velocity"
    assert report.dtype == "float32"
    assert report.parameters == 83_653_863
    assert report.notes == ("unet has no weights here", "text_encoder has no weights here")
    assert "safety_checker" not in report.parts

    single = inspect(tmp_path / "vae")
    assert single.parameters == 83_653_863
    with pytest.raises(CheckpointError, match="holds no model"):
        inspect(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="nested more than"):
        inspect(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="has no pipes")
def test_an_index_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "model_index.json")
    with pytest.raises(CheckpointError, match=r"model_index\.json: is a pipe or a device"):
        inspect(tmp_path)


def test_autoencoders_and_towers(tmp_path):
    ours = meta(Autoencoder, SD_AUTOENCODER)
    names = shapes(autoencoder.LDM.revert(ours, SD_AUTOENCODER))
    report = inspect(write_sparse(tmp_path / "a.safetensors", names))
    assert (report.kind, report.layout, report.details) == (
        "autoencoder",
        "LDM",
        {"latent_channels": 4},
    )
    tower = meta(ClipTextModel, OPENCLIP_H)
    names = shapes(clip_text.OPENCLIP.revert(tower, OPENCLIP_H))
    report = inspect(write_sparse(tmp_path / "b.safetensors", names))
    assert (report.kind, report.layout) == ("CLIP text encoder", "open_clip")


def test_picture(tmp_path):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("parameters", "a cat")
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png", pnginfo=text)
    report = inspect(tmp_path / "a.png")
    assert report.kind == "picture"
    assert report.details == {"width": 20, "height": 10, "text": ("parameters",)}


def test_no_torch_is_imported(tmp_path):
    path = write_sparse(tmp_path / "a.safetensors", {"emb_params": (4, 1024)})
    code = (
        "import sys; from darkroom.weights.inspect import inspect; "
        "inspect(sys.argv[1]); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [("emoji-sam", "SAM"), ("emoji-fastsam", "FastSAM"), ("emoji-edges", "ControlNet")],
)
def test_our_own_folders_say_what_they_are(name, kind):
    report = inspect(ASSETS / name)
    assert (report.kind, report.layout, report.unknown) == (kind, "Darkroom folder", ())
    assert not report.notes
