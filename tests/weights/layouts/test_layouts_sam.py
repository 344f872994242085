"""Segment anything's files: the original's names, transformers' folders, and back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SamConfig as TheirConfig
from transformers import SamModel

import darkroom as dr
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.sam.config import (
    MOBILE_SAM,
    SAM_B,
    SAM_H,
    SAM_L,
    DecoderConfig,
    SamConfig,
    TinyVitConfig,
    VitConfig,
)
from darkroom.models.sam.network import Sam
from darkroom.weights.catalog import lookup
from darkroom.weights.inspect import inspect
from darkroom.weights.inspect.layers import networks_called, networks_of
from darkroom.weights.layouts.sam import huggingface, original
from vectors.sam_originals import digest, picture

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "sam_originals.json").read_text("utf-8")
)
TINY = SamConfig(
    size=64,
    channels=32,
    encoder=VitConfig(
        patch=8, channels=32, layers=2, heads=2, hidden=48, window=3, global_layers=(1,)
    ),
    decoder=DecoderConfig(heads=8, hidden=40, iou_hidden=24, iou_layers=4, candidates=2),
)
TINY_VIT = replace(
    TINY,
    size=1024,  # what a file of MobileSAM's kind is taken to be for
    encoder=TinyVitConfig(
        channels=(8, 16, 24, 32), blocks=(1, 1, 2, 1), heads=(2, 3, 4), windows=(3, 4, 2)
    ),
)
PUBLISHED = {"vit_b": SAM_B, "vit_l": SAM_L, "vit_h": SAM_H, "vit_t": MOBILE_SAM}


def made(config: SamConfig) -> Sam:
    torch.manual_seed(0)
    return Sam(config).eval()


def same(one, other) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_the_originals(name):
    """Those that segment-anything and MobileSAM build; of the latter without its classifier."""
    config = PUBLISHED[name]
    with torch.device("meta"):
        state = Sam(config).state_dict()
    shapes = {k: list(t.shape) for k, t in original.ORIGINAL.revert(state, config).items()}
    count, numbers = VECTORS["sizes"][name]
    assert len(shapes) == count
    assert digest(shapes) == numbers
    sizes = {k: torch.empty(shape, device="meta") for k, shape in shapes.items()}
    assert original.sam_sizes(sizes) == config


@pytest.mark.parametrize("config", [SAM_B, SAM_L, SAM_H])
def test_names_and_shapes_of_transformers(config):
    parts = {k: v for k, v in huggingface.sam_json(config).items() if k.endswith("_config")}
    with torch.device("meta"):
        theirs = SamModel(TheirConfig(**parts)).state_dict()
        ours = Sam(config).state_dict()
    converted = huggingface.HUGGINGFACE.convert(theirs, config)
    assert {k: t.shape for k, t in converted.items()} == {k: t.shape for k, t in ours.items()}
    reverted = huggingface.HUGGINGFACE.revert(ours, config)
    left = theirs.keys() - reverted.keys()
    assert left == {"prompt_encoder.shared_embedding.positional_embedding"}  # the same again
    assert {k: theirs[k].shape for k in reverted} == {k: t.shape for k, t in reverted.items()}


@pytest.mark.parametrize("config", [TINY, TINY_VIT])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_in_the_originals_names(tmp_path, config, ending):
    model, path = made(config), tmp_path / f"sam{ending}"
    if ending == ".safetensors":
        dr.save(model, path)
    else:
        state = original.ORIGINAL.revert(model.state_dict(), config)
        if config is TINY_VIT:  # the classifier, which published files have
            state |= {f"image_encoder.head.{leaf}": torch.zeros(3) for leaf in ("weight", "bias")}
            state |= {"image_encoder.norm_head.weight": torch.zeros(32)}
        torch.save(state, path)
    opened = dr.load(path, device="cpu")
    assert isinstance(opened, Sam)
    assert opened.config == config
    assert same(opened, model)
    report = inspect(path)
    assert report.kind == ("SAM" if config is TINY else "MobileSAM")
    assert (report.licence, report.unknown) == ("Apache-2.0", ())


def test_sizes_that_shapes_do_not_tell_are_said_in_our_files(tmp_path):
    config = replace(TINY, decoder=replace(TINY.decoder, heads=4))
    dr.save(made(config), tmp_path / "sam.safetensors")
    assert dr.load(tmp_path / "sam.safetensors", device="cpu").config == config


@pytest.mark.parametrize("config", [TINY, TINY_VIT])
def test_a_folder_and_back(tmp_path, config):
    """transformers' where it has such a network, else our own."""
    model = made(config)
    dr.save(model, tmp_path / "sam")
    opened = dr.load(tmp_path / "sam", device="cpu")
    assert opened.config == config
    assert same(opened, model)
    said = json.loads((tmp_path / "sam" / "config.json").read_text("utf-8"))
    if config is TINY_VIT:
        assert said["_class_name"] == "darkroom.Sam"
        return
    theirs = SamModel.from_pretrained(tmp_path / "sam").eval()
    pixels, points = torch.randn(1, 3, 64, 64), torch.tensor([[[20.0, 30.0]]])
    with torch.no_grad():
        expected = theirs(pixels, input_points=points[None], input_labels=torch.ones(1, 1, 1).int())
        features = opened.encode(pixels)
        logits, iou = opened.decode(
            features, points=points, labels=torch.ones(1, 1).int(), candidates=2
        )
    assert (logits - expected.pred_masks[0]).abs().max() < 1e-4
    assert (iou - expected.iou_scores[0]).abs().max() < 1e-5


def test_a_folder_of_transformers(tmp_path):
    parts = {k: v for k, v in huggingface.sam_json(TINY).items() if k.endswith("_config")}
    SamModel(TheirConfig(**parts)).save_pretrained(tmp_path)
    opened = dr.load(tmp_path, device="cpu")
    assert opened.config == TINY
    assert inspect(tmp_path).kind == "SAM"
    encoder, decoder = networks_of(tmp_path)
    assert encoder.trace(0)[""].outputs[0].shape == (1, 32, 8, 8)
    assert decoder.trace(0)[""].outputs[0].shape == (1, 3, 32, 32)  # the sure one and two more


OLD = {  # what transformers used to write into every config
    "_name_or_path": "", "add_cross_attention": False, "chunk_size_feed_forward": 0,
    "dropout": 0.0, "initializer_factor": 1.0, "is_decoder": False, "pruned_heads": {},
    "projection_dim": 512, "top_k": 50, "torch_dtype": None, "use_bfloat16": False,
    "transformers_version": "4.29.0.dev0",
}  # fmt: skip


def test_configs_of_old_and_what_is_not_supported():
    data = huggingface.sam_json(SAM_B)
    data["vision_config"] |= {**OLD, "scale": 384}
    del data["vision_config"]["mlp_dim"]
    assert huggingface.sam_config(data) == SAM_B
    assert huggingface.sam_config({}) == replace(
        SAM_B, decoder=replace(SAM_B.decoder, eps=1e-6)
    )  # transformers' own default
    for part, name, value, problem in (
        ("vision_config", "use_rel_pos", False, "use_rel_pos = False is not supported"),
        ("vision_config", "image_size", [64, 32], "must be one number, or the same twice"),
        ("vision_config", "windows", 3, "windows = 3 is not known"),
        ("prompt_encoder_config", "hidden_size", 64, "must be 256, as in vision_config"),
        ("mask_decoder_config", "hidden_act", "gelu", "expected 'relu'"),
    ):
        wrong = json.loads(json.dumps(huggingface.sam_json(SAM_B)))
        wrong[part][name] = value
        with pytest.raises(CheckpointError, match=problem):
            huggingface.sam_config(wrong)


@pytest.mark.parametrize(
    ("add", "wrapped", "problem"),
    [
        (
            "mask_decoder.hf_token.weight",
            False,
            "a SAM-HQ, which Darkroom does not open",
        ),
        (
            "memory_attention.layers.0.weight",
            True,
            "a SAM 2, which Darkroom does not open",
        ),
    ],
)
def test_its_kin_is_refused_by_name(tmp_path, add, wrapped, problem):
    state = original.ORIGINAL.revert(made(TINY).state_dict(), TINY) | {add: torch.zeros(1)}
    if wrapped:
        state = {"model": {"image_encoder.trunk.pos_embed": torch.zeros(1), add: torch.zeros(1)}}
    torch.save(state, tmp_path / "kin.pt")
    with pytest.raises(CheckpointError, match=problem):
        dr.load(tmp_path / "kin.pt", device="cpu")


def test_files_that_lack_something(tmp_path):
    state = original.ORIGINAL.revert(made(TINY).state_dict(), TINY)
    del state["mask_decoder.mask_tokens.weight"]
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(LayoutError, match=r"sam\.pth: .*mask_tokens.weight is missing"):
        dr.load(tmp_path / "sam.pth", device="cpu")
    theirs = huggingface.HUGGINGFACE.revert(made(TINY).state_dict(), TINY)
    torch.save(theirs, tmp_path / "theirs.bin")
    with pytest.raises(CheckpointError, match="does not say its sizes; load its folder"):
        dr.load(tmp_path / "theirs.bin", device="cpu")


def test_names_of_the_catalogue():
    assert lookup("sam-vit-h").name == "facebook/sam-vit-huge"
    assert lookup("facebook/sam-vit-base").licence == "Apache-2.0"
    sizes = [sum(p.numel() for p in n.model.parameters()) for n in networks_called("sam-vit-b")]
    assert sizes == [89_670_912, 4_058_340]
    assert len(networks_called("mobile-sam")) == 2


def test_transformers_makes_the_same_pixels(tmp_path):
    """From the preprocessor_config.json that is written beside the weights."""
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    model = made(TINY)
    dr.save(model, tmp_path / "sam")
    image = Image.fromarray(picture((45, 67)))
    expected = SamImageProcessorPil.from_pretrained(tmp_path / "sam")(image, return_tensors="pt")
    small = image.resize((64, 43), Image.Resampling.BILINEAR)
    pixels = torch.tensor(np.array(small)).permute(2, 0, 1)[None]
    assert expected["reshaped_input_sizes"][0].tolist() == [43, 64]
    assert (model.normalised(pixels) - expected["pixel_values"]).abs().max() < 1e-5
