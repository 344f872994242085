"""Whole CLIPs in every container: OpenAI's archives, open_clip's files, transformers' folders."""

import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import darkroom as dr
from darkroom.errors import CheckpointError, ConfigError, LayoutError, UnsafeFileError
from darkroom.models.clip.network import Clip
from darkroom.models.clip.presets import OPEN_CLIP, OPENAI, with_gelu
from darkroom.models.clip.view import View
from darkroom.models.clip.vision_transformer import VisionTransformer
from darkroom.weights.assemble import on_meta
from darkroom.weights.catalog import CATALOG, by_file, lookup
from darkroom.weights.configs import text_json
from darkroom.weights.convert import convert
from darkroom.weights.files import read_header
from darkroom.weights.inspect import inspect
from darkroom.weights.inspect.gelu import UNSAID
from darkroom.weights.inspect.layers import networks_called, networks_of
from darkroom.weights.layouts.clip import configs, names, sizes
from darkroom.weights.layouts.clip.files import open_clip_file
from darkroom.weights.pull import choose
from vectors.whole_clip import IDS, SMALL, images
from weights.layouts.clips import CONFIGS, archive, drawn, theirs


def load(path, **options):
    return dr.load(path, device="cpu", **options)


@torch.no_grad()
def same(a: Clip, b: Clip, atol: float = 1e-5) -> bool:
    pixels = images(a.config.view.size)
    return (
        torch.allclose(a.image(pixels), b.image(pixels), atol=atol)
        and torch.allclose(a.encode_text(torch.tensor(IDS)), b.encode_text(torch.tensor(IDS)),
                           atol=atol)
        and torch.equal(a.log_scale, b.log_scale)
    )  # fmt: skip


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_openais_archives(name, tmp_path):
    path = archive(theirs(name), tmp_path / "mine.pt")
    report = inspect(path)
    assert (report.format, report.kind, report.layout) == ("torchscript", "CLIP", "OpenAI")
    assert report.licence == "MIT"
    assert set(report.skipped) == {"weights.layouts.clips.Part"}
    assert report.details["pixels"] == CONFIGS[name].view.size
    assert report.details["activation"] == "quick_gelu"
    model = load(path)
    assert type(model) is Clip
    assert model.config == CONFIGS[name]  # quick_gelu, by format
    assert same(model, drawn(name), atol=5e-3)  # the file holds half precision
    plain = {k: torch.from_numpy(v.numpy()) for k, v in theirs(name).items()}
    extras = {k: torch.tensor(3) for k in names.EXTRAS}
    torch.save(plain | extras, tmp_path / "plain.pt")
    assert same(load(tmp_path / "plain.pt"), drawn(name))
    with pytest.raises(CheckpointError, match='activation="quick_gelu"'):
        load(archive(theirs(name), tmp_path / "other.pt", extras=False))


def test_an_archive_with_code_in_its_pickle_is_refused(tmp_path):
    good, bad = archive(theirs("vit"), tmp_path / "good.pt"), tmp_path / "bad.pt"
    marker = tmp_path / "ran"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for member in source.infolist():
            data = source.read(member)
            if member.filename.endswith("/data.pkl"):
                text = f"touch {marker}".encode()
                run = b"cos\nsystem\nX" + struct.pack("<I", len(text)) + text + b"\x85R0"
                data = data[:2] + run + data[2:]  # after the protocol
            target.writestr(member, data)
    for use in (inspect, load, read_header):
        with pytest.raises(UnsafeFileError, match=r"wants to run 'os\.system'"):
            use(bad)
    assert not marker.exists()


def test_open_clips_files_say_their_gelu_or_are_refused(tmp_path):
    state = theirs("gelu")
    config = tmp_path / "open_clip_config.json"
    for suffix in ("bin", "safetensors"):
        path = tmp_path / f"open_clip_pytorch_model.{suffix}"
        (torch.save if suffix == "bin" else save_file)(state, path)
    described = {"model_cfg": dict(SMALL["gelu"]), "preprocess_cfg": {"resize_mode": "squash"}}
    assert inspect(tmp_path).notes == (UNSAID,)
    for quick in (False, True):
        described["model_cfg"]["quick_gelu"] = quick
        config.write_text(json.dumps(described))
        for path in (*tmp_path.glob("open_clip_pyt*"), tmp_path):
            model = load(path)
            assert model.config.text.quick_gelu is model.config.image.quick_gelu is quick
            assert model.config.view == View(size=32, fit="squash")
            assert same(model, drawn("gelu")) is not quick
            told = inspect(path).details["activation"]
            assert told == ("quick_gelu" if quick else "gelu")
    assert load(tmp_path, activation="gelu").config.text.quick_gelu is False
    assert open_clip_file(tmp_path).suffix == ".safetensors"
    config.unlink()
    with pytest.raises(CheckpointError, match='does not say its activation; pass activation="qui'):
        load(tmp_path)
    with pytest.raises(ConfigError, match="activation 'relu' is unknown; one of quick_gelu, gelu"):
        load(tmp_path, activation="relu")


def test_without_a_config_sizes_come_from_shapes(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(theirs("vit"), path)
    assert load(path, activation="quick_gelu").config == CONFIGS["vit"]
    wrapped = {f"module.{k}": v for k, v in theirs("vit").items()}
    wrapped["module.attn_mask"] = torch.zeros(8, 8)
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {}}, tmp_path / "epoch_3.pt")
    for gelu in ("quick_gelu", "gelu"):
        model = load(tmp_path / "epoch_3.pt", activation=gelu)
        assert model.config == with_gelu(CONFIGS["vit"], gelu == "quick_gelu")
    assert same(load(tmp_path / "epoch_3.pt", activation="quick_gelu"), drawn("vit"))
    torch.save({**theirs("vit"), "visual.other.weight": torch.zeros(2)}, tmp_path / "more.pt")
    with pytest.raises(LayoutError, match=r"visual\.other\.weight"):
        load(tmp_path / "more.pt", activation="gelu")
    less = theirs("vit")
    del less["visual.proj"]
    torch.save(less, tmp_path / "less.pt")
    with pytest.raises(LayoutError, match=r"a CLIP without visual\.proj"):
        load(tmp_path / "less.pt", activation="gelu")


@pytest.mark.parametrize("name", [*OPENAI, *OPEN_CLIP])
def test_every_preset_is_told_by_its_shapes(name):
    config = {**OPENAI, **OPEN_CLIP}[name]
    with on_meta():
        state = Clip(config).state_dict()
    found = names.OPENAI_LAYOUT.revert(state, config)
    assert sizes.openai_sizes(found, quick_gelu=name in OPENAI) == config
    if not name.startswith("RN"):
        found = names.HUGGINGFACE.revert(state, config)
        assert sizes.huggingface_sizes(found, quick_gelu=name in OPENAI) == config


def test_the_catalogue_knows_published_files_and_their_gelu(tmp_path):
    clips = [known for known in CATALOG if known.family == "clip"]
    assert {known.settings["activation"] for known in clips} == {"quick_gelu", "gelu"}
    for file in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16",
                 "ViT-L-14", "ViT-L-14-336px"):  # fmt: skip
        known = by_file(file)
        assert (known.licence, known.settings["activation"]) == ("MIT", "quick_gelu")
    assert by_file("b32_fullcc2.5b").licence == "CC-BY-NC-4.0"
    assert lookup("laion/CLIP-ViT-L-14-laion2B-s32B-b82K").settings["view"]["mean"] == (0.5,) * 3
    path = tmp_path / "vit_b_32-laion2b_e16-af8dbd0c.pth"
    torch.save(theirs("vit"), path)
    assert load(path).config.image.quick_gelu is False
    torch.save(theirs("gelu"), path)
    with pytest.raises(LayoutError, match="48 channels; how many heads"):
        load(path)


def test_of_a_repository_open_clips_file_is_taken():
    described = ["config.json", "open_clip_config.json", "tokenizer.json"]
    timm = [*described, "model.safetensors", "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin"]  # fmt: skip
    assert choose(timm) == sorted([*described, "open_clip_model.safetensors"])
    assert choose([*described, "model.safetensors"]) == sorted([*described, "model.safetensors"])


def test_a_cached_repository_of_open_clips_is_found_by_its_short_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--resnet50_clip.openai" / "snapshots" / "main"
    folder.mkdir(parents=True)
    save_file(theirs("resnet"), folder / "open_clip_model.safetensors")
    described = json.dumps({"model_cfg": SMALL["resnet"]})
    (folder / "open_clip_config.json").write_text(described)
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet50_clip"}))
    save_file({"stem.conv1.weight": torch.zeros(2)}, folder / "model.safetensors")  # timm's
    assert same(load("clip-rn50"), drawn("resnet"))


@pytest.mark.parametrize("name", ["vit", "gelu"])
def test_transformers_opens_what_we_save_and_we_what_it_saves(name, tmp_path):
    from transformers import CLIPModel

    model = drawn(name)
    dr.save(model, tmp_path / "ours")
    other = CLIPModel.from_pretrained(tmp_path / "ours").eval()
    pixels, ids = images(32), torch.tensor(IDS)
    with torch.no_grad():
        out = other(input_ids=ids, pixel_values=pixels)
        mine = torch.nn.functional.normalize(model.image(pixels), dim=-1)
        words = torch.nn.functional.normalize(model.encode_text(ids), dim=-1)
    assert torch.allclose(out.image_embeds, mine, atol=1e-5)
    assert torch.allclose(out.text_embeds, words, atol=1e-5)
    other.save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert again.config.image == model.config.image
    assert again.config.text == model.config.text
    assert same(again, model)
    assert load(tmp_path / "ours").config == model.config  # the view, too
    assert same(load(tmp_path / "theirs" / "model.safetensors"), model)  # by the config beside it
    details = inspect(tmp_path / "theirs").details
    assert details["pixels"] == 32
    assert details["activation"] == ("gelu" if name == "gelu" else "quick_gelu")


@pytest.mark.parametrize("place", ["folder", "file.safetensors"])
def test_what_nobody_says_is_told_once_by_converting(place, tmp_path):
    torch.save(theirs("vit"), tmp_path / "mine.pt")
    for _ in convert(tmp_path / "mine.pt", tmp_path / place, activation="gelu"):
        pass
    assert load(tmp_path / place).config == with_gelu(CONFIGS["vit"], quick=False)
    with pytest.raises(ConfigError, match="one of quick_gelu, gelu"):
        next(iter(convert(tmp_path / "mine.pt", tmp_path / "no", activation="x")))
    text = dr.save(drawn("vit").text, tmp_path / "text")
    with pytest.raises(ValueError, match="activation goes with a CLIP"):
        next(iter(convert(text, tmp_path / "no", activation="gelu")))


def test_a_resnet_round_trip(tmp_path):
    model = drawn("resnet")
    for place in ("folder", "file.safetensors"):
        path = dr.save(model, tmp_path / place)
        again = load(path)
        assert again.config == model.config
        assert same(again, model)
    report = inspect(tmp_path / "file.safetensors")
    assert (report.kind, report.details["activation"]) == ("CLIP", "quick_gelu")


def test_towers_alone_in_folders(tmp_path):
    from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

    model = drawn("vit")
    folder = dr.save(model.image, tmp_path / "tower")
    pixels = images(32)
    with torch.no_grad():
        wanted = model.image(pixels)
        other = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
        assert torch.allclose(other(pixel_values=pixels).image_embeds, wanted, atol=1e-5)
        assert torch.allclose(load(folder)(pixels), wanted, atol=1e-5)
        bare = CLIPVisionModel.from_pretrained(folder).eval()
        bare.save_pretrained(tmp_path / "bare")
        tower = load(tmp_path / "bare")
        assert type(tower) is VisionTransformer
        assert torch.allclose(tower(pixels), bare(pixel_values=pixels).pooler_output, atol=1e-5)
    with pytest.raises(ConfigError, match="activation= is for CLIP"):
        load(folder, activation="gelu")


OLD = {  # as OpenAI's repositories on the hub describe it
    "_commit_hash": None,
    "architectures": ["CLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 512,
    "text_config": {
        "hidden_act": "quick_gelu", "model_type": "clip_text_model", "eos_token_id": 2,
        "bos_token_id": 0, "pad_token_id": 1, "projection_dim": 512, "torchscript": False,
    },
    "text_config_dict": {"hidden_size": 512, "num_attention_heads": 8},
    "torch_dtype": "float32",
    "vision_config": {
        "hidden_act": "quick_gelu", "model_type": "clip_vision_model", "image_size": 224,
        "patch_size": 32, "num_beams": 1,
    },
    "vision_config_dict": None,
}  # fmt: skip


def test_configs_of_transformers():
    assert configs.clip_config(OLD) == OPENAI["ViT-B/32"]
    for name, config in {**OPENAI, **OPEN_CLIP}.items():
        if not name.startswith("RN"):
            assert configs.clip_config(configs.clip_json(config), view=config.view) == config
    with pytest.raises(ConfigError, match="no CLIP with a ResNet"):
        configs.clip_json(OPENAI["RN50"])
    other = {**OLD, "vision_config": {**OLD["vision_config"], "hidden_act": "relu"}}
    with pytest.raises(CheckpointError, match=r"vision_config: hidden_act = 'relu'"):
        configs.clip_config(other)
    with pytest.raises(CheckpointError, match="projection_dims"):
        configs.clip_config({**OLD, "projection_dims": 3})
    assert text_json(OPENAI["ViT-B/32"].text)["eos_token_id"] == 2


def test_configs_of_open_clip():
    bigg = {
        "embed_dim": 1280,
        "vision_cfg": {"image_size": 224, "layers": 48, "width": 1664, "head_width": 104,
                       "mlp_ratio": 4.9231, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1280, "heads": 20,
                     "layers": 32},
    }  # fmt: skip
    view = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "size": [224, 224]}
    read = configs.open_clip_config({"model_cfg": bigg, "preprocess_cfg": view})
    assert read.image == OPEN_CLIP["ViT-bigG-14"].image
    assert read.text == OPEN_CLIP["ViT-bigG-14"].text
    assert read.view == View(resample="bilinear", mean=(0.5,) * 3, deviation=(0.25,) * 3)
    for name in ("vit", "resnet", "gelu"):
        assert configs.open_clip_config({"model_cfg": SMALL[name]}) == CONFIGS[name]
    for key, value in (("custom_text", True), ("multimodal_cfg", {}), ("embed_dim", None)):
        with pytest.raises(CheckpointError, match=key):
            configs.open_clip_config({"model_cfg": {**bigg, key: value}})
    for name in ("timm_model_name", "qk_norm"):
        image = {**bigg["vision_cfg"], name: "x"}
        with pytest.raises(CheckpointError, match=name):
            configs.open_clip_config({"model_cfg": {**bigg, "vision_cfg": image}})
    with pytest.raises(CheckpointError, match="model_cfg"):
        configs.open_clip_config({})


def test_preprocessor_configs():
    usual = View(half="down")
    old = {"crop_size": 224, "size": 224, "resample": 3, "feature_extractor_type":
           "CLIPFeatureExtractor", "do_resize": True, "do_center_crop": True}  # fmt: skip
    for data in (old, configs.view_json(usual), {"image_processor": old}):
        assert configs.huggingface_view(data) == usual
    for view in (View(size=378, fit="squash"), View(resample="bilinear", mean=(0.0, 0.5, 1.0))):
        assert configs.huggingface_view(configs.view_json(view)) == view
    with pytest.raises(CheckpointError, match="size"):
        configs.huggingface_view({**old, "size": 256})
    with pytest.raises(CheckpointError, match="resample = 9"):
        configs.huggingface_view({**old, "resample": 9})


def test_layers_of_known_and_of_given_ones(tmp_path):
    image, text = networks_called("clip-vit-b-32")
    assert (image.part, text.part) == ("image tower", "text tower")
    assert image.trace(0)[""].outputs[0].shape == (1, 512)
    assert networks_called("openai/clip-vit-large-patch14")[0].inputs[0].shape == (1, 3, 224, 224)
    assert networks_called("clip-rn50x4")[0].inputs[0].shape == (1, 3, 288, 288)
    with pytest.raises(ConfigError, match="224x224 pixels, always"):
        networks_called("clip-vit-b-32", (256, 256))
    path = tmp_path / "open_clip_model.safetensors"
    save_file(theirs("vit"), path)
    for place in (path, tmp_path):
        assert networks_of(place)[0].inputs[0].shape == (1, 3, 32, 32)
