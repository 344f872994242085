"""Every layout against the reference libraries: names and shapes at full size, on meta."""

import pytest
import torch
from torch import Tensor

import oracles
from cases import quick
from darkroom.errors import LayoutError
from darkroom.models import unet as unets
from darkroom.models.autoencoder import SD_AUTOENCODER, SDXL_AUTOENCODER, Autoencoder
from darkroom.models.clip_text import CLIP_L, OPENCLIP_BIGG, OPENCLIP_H, ClipTextModel
from darkroom.weights.layout import Change, Entry, convert, identify, revert, unused
from darkroom.weights.layouts import autoencoder, clip_text, single_file, unet

SD1 = tuple(unet.SD1_PRESETS)
PRESETS = {**unet.SD1_PRESETS, **unet.LINEAR_PRESETS}
FEW = ["sd15", "sd15-inpaint", "sd21", "sdxl", "sdxl-refiner"]
GOLDEN = {  # features-and-formats.md, section 0.4: numbers, tensors
    "sd15": (859_520_964, 686),
    "sd15-inpaint": (859_535_364, 686),
    "sd21": (865_910_724, 686),
    "sd21-depth": (865_913_604, 686),
    "sdxl": (2_567_463_684, 1680),
}


def shapes(state) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def meta(model, config) -> dict[str, Tensor]:
    with torch.device("meta"):
        return model(config).state_dict()


@pytest.mark.parametrize("preset", quick(FEW, PRESETS))
def test_unet_has_the_names_and_shapes_of_diffusers(preset: str) -> None:
    config = PRESETS[preset]
    layout = unet.DIFFUSERS_SD1 if preset in SD1 else unet.DIFFUSERS
    ours = meta(unets.UNet, config)
    theirs = oracles.unet(config, linear=preset not in SD1, device="meta").state_dict()
    if preset in GOLDEN:
        assert (sum(t.numel() for t in ours.values()), len(ours)) == GOLDEN[preset]
    assert shapes(layout.revert(ours, config)) == shapes(theirs)
    assert shapes(layout.convert(theirs, config)) == shapes(ours)
    assert identify(theirs, unet.LAYOUTS) == (layout, preset)


@pytest.mark.parametrize(
    "preset",
    quick(
        ["sd15", "sd21", "sdxl"],
        [p for p in PRESETS if not p.startswith("sdxl-in") and "lcm" not in p],
    ),
)
def test_unet_in_ldm_names_is_what_diffusers_expects_of_a_single_file(preset: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = PRESETS[preset]
    layout = unet.LDM_SD1 if preset in SD1 else unet.LDM
    ours = meta(unets.UNet, config)
    reverted = layout.revert(ours, config)
    with_prefix = {f"model.diffusion_model.{name}": t for name, t in reverted.items()}
    reference = oracles.unet(config, linear=preset not in SD1, device="meta")
    theirs = convert_ldm_unet_checkpoint(with_prefix, dict(reference.config))
    assert shapes(theirs) == shapes(reference.state_dict())
    assert shapes(layout.convert(reverted, config)) == shapes(ours)
    assert identify(reverted, unet.LAYOUTS) == (layout, preset)


def test_autoencoder_in_both_namings() -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    ours = meta(Autoencoder, SD_AUTOENCODER)
    assert (sum(t.numel() for t in ours.values()), len(ours)) == (83_653_863, 248)
    reference = oracles.autoencoder(SD_AUTOENCODER, device="meta")
    theirs = reference.state_dict()
    assert shapes(autoencoder.DIFFUSERS.revert(ours, SD_AUTOENCODER)) == shapes(theirs)
    assert shapes(autoencoder.DIFFUSERS.convert(theirs, SD_AUTOENCODER)) == shapes(ours)

    ldm = autoencoder.LDM.revert(ours, SD_AUTOENCODER)
    assert ldm["encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    with_prefix = {f"first_stage_model.{name}": t for name, t in ldm.items()}
    converted = convert_ldm_vae_checkpoint(with_prefix, dict(reference.config))
    assert shapes(converted) == shapes(theirs)
    assert shapes(autoencoder.LDM.convert(ldm, SD_AUTOENCODER)) == shapes(ours)


def test_autoencoder_reads_the_old_names_of_its_attention() -> None:
    theirs = oracles.autoencoder(SD_AUTOENCODER, device="meta").state_dict()
    new_to_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, tensor in theirs.items():
        for new, ancient in new_to_old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{ancient}.")
        old[name] = tensor
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in old
    assert identify(old, autoencoder.LAYOUTS) == (autoencoder.DIFFUSERS, "sd")
    ours = autoencoder.DIFFUSERS.convert(old, SD_AUTOENCODER)
    assert shapes(ours) == shapes(meta(Autoencoder, SD_AUTOENCODER))
    convolutional = {k: t[:, :, None, None] if "query.weight" in k else t for k, t in old.items()}
    assert shapes(autoencoder.DIFFUSERS.convert(convolutional, SD_AUTOENCODER)) == shapes(ours)
    both = {**theirs, **old}
    with pytest.raises(LayoutError, match="another tensor of the file holds"):
        autoencoder.DIFFUSERS.convert(both, SD_AUTOENCODER)


TOWERS = {
    "clip-l": (CLIP_L, 123_060_480, 196),
    "openclip-h": (OPENCLIP_H, 340_387_840, 372),
    "openclip-bigg": (OPENCLIP_BIGG, 694_659_840, 517),
}


@pytest.mark.parametrize("preset", TOWERS)
def test_text_tower_has_the_names_and_shapes_of_transformers(preset: str) -> None:
    config, numbers, tensors = TOWERS[preset]
    ours = meta(ClipTextModel, config)
    assert (sum(t.numel() for t in ours.values()), len(ours)) == (numbers, tensors)
    theirs = oracles.text(config, device="meta").state_dict()
    # transformers 5 leaves the prefix out in memory where there is no projection, not on disk
    on_disk = {k if k.startswith("text_") else f"text_model.{k}": t for k, t in theirs.items()}
    layout = clip_text.HUGGINGFACE
    assert shapes(layout.revert(ours, config)) == shapes(on_disk)
    assert shapes(layout.convert(theirs, config)) == shapes(ours)
    assert shapes(layout.convert(on_disk, config)) == shapes(ours)
    extra = {
        "text_model.embeddings.position_ids": torch.empty(1, 77),
        "logit_scale": torch.ones(()),
    }
    assert shapes(layout.convert({**on_disk, **extra}, config)) == shapes(ours)
    bare = {name.removeprefix("text_model."): t for name, t in on_disk.items()}
    assert identify(on_disk, clip_text.LAYOUTS)[1] == preset
    assert identify(bare, clip_text.LAYOUTS)[1] == preset


@pytest.mark.parametrize("preset", TOWERS)
def test_text_tower_in_openclip_names_is_what_diffusers_expects(preset: str) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    config, _, _ = TOWERS[preset]
    ours = meta(ClipTextModel, config)
    reverted = clip_text.OPENCLIP.revert(ours, config)
    assert shapes(clip_text.OPENCLIP.convert(reverted, config)) == shapes(ours)
    assert identify(reverted, clip_text.LAYOUTS) == (clip_text.OPENCLIP, preset)
    reference = oracles.text(config, device="meta")
    theirs = {f"p.{name}": t for name, t in reverted.items()}
    converted = convert_open_clip_checkpoint(reference, theirs, prefix="p.")
    assert shapes(converted) == shapes(clip_text.HUGGINGFACE.revert(ours, config))


def test_openclip_h_of_sd2_leaves_the_last_layer_and_the_projection_out() -> None:
    ours = meta(ClipTextModel, OPENCLIP_H)
    file = clip_text.OPENCLIP.revert(ours, OPENCLIP_H)
    last = {k.replace("resblocks.22", "resblocks.23"): t for k, t in file.items() if ".22." in k}
    assert len(last) == 12
    full = {**file, **last, "text_projection": torch.empty(1024, 1024, device="meta")}
    full["logit_scale"] = torch.ones(())
    assert shapes(clip_text.OPENCLIP.convert(full, OPENCLIP_H)) == shapes(ours)
    stranger = {k.replace("resblocks.23", "resblocks.24"): t for k, t in last.items()}
    with pytest.raises(LayoutError, match="12 keys not in this layout"):
        clip_text.OPENCLIP.convert({**full, **stranger}, OPENCLIP_H)


@pytest.mark.parametrize(
    ("layout", "config"),
    [
        (unet.DIFFUSERS_SD1, unets.SD15),
        (unet.LDM_SD1, unets.SD15),
        (autoencoder.DIFFUSERS, SD_AUTOENCODER),
        (autoencoder.LDM, SD_AUTOENCODER),
        (clip_text.HUGGINGFACE, CLIP_L),
        (clip_text.OPENCLIP, OPENCLIP_BIGG),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_key_counts(layout, config) -> None:
    theirs = layout.revert(meta(layout.model, config), config)
    first, *_, last = theirs
    stranger = {**theirs, "one.of.mine": torch.empty(1), "two": torch.empty(1)}
    with pytest.raises(LayoutError, match=r"2 keys not in this layout, such as one\.of\.mine, two"):
        layout.convert(stranger, config)
    for name in (first, last):
        fewer = {key: tensor for key, tensor in theirs.items() if key != name}
        with pytest.raises(LayoutError, match="missing"):
            layout.convert(fewer, config)
        wrong = {**theirs, name: torch.empty(3, 3, 3, device="meta")}
        with pytest.raises(LayoutError, match="another shape"):
            layout.convert(wrong, config)
    with pytest.raises(LayoutError, match=r"no place in this layout: mine\.weight"):
        layout.revert({"mine.weight": torch.empty(1)}, config)


def test_messages_list_five_keys_at_most() -> None:
    state = {f"k{n}.weight": torch.empty(1) for n in range(9)}
    with pytest.raises(LayoutError) as caught:
        convert(state, [])
    assert "9 keys" in str(caught.value)
    assert str(caught.value).count("weight") == 5
    assert "\n" not in str(caught.value)


def test_entries_rename_split_change_and_drop() -> None:
    half = Change(lambda w: w / 2, lambda w: w * 2)
    entries = [
        Entry("a", "first"),
        Entry("qkv", ("q", "k", "v")),
        Entry("table", "position.weight", bare=True),
        Entry("scaled", "second", half),
        *unused("old", "a.buffer"),
    ]
    state = {
        "a.weight": torch.randn(2),
        "a.bias": torch.randn(2),
        "qkv.weight": torch.randn(6, 4),
        "qkv.bias": torch.randn(6),
        "table": torch.randn(3, 2),
        "scaled.weight": torch.randn(2),
        "scaled.bias": torch.randn(2),
    }
    dropped = {"old": torch.ones(1), "old.deep.weight": torch.ones(1), "a.buffer": torch.ones(1)}
    ours = convert({**state, **dropped}, entries)
    assert set(ours) == {
        *("first.weight", "first.bias", "position.weight", "second.weight", "second.bias"),
        *(f"{n}.{leaf}" for n in "qkv" for leaf in ("weight", "bias")),
    }
    assert torch.equal(ours["k.weight"], state["qkv.weight"][2:4])
    assert torch.equal(ours["second.weight"], state["scaled.weight"] / 2)
    assert torch.equal(ours["second.bias"], state["scaled.bias"])
    back = revert(ours, entries)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    del ours["v.bias"]
    with pytest.raises(LayoutError, match=r"qkv\.bias needs v\.bias"):
        revert(ours, entries)
    with pytest.raises(LayoutError, match="cannot be split into 3"):
        convert({"qkv.weight": torch.randn(7, 4)}, entries)
    with pytest.raises(LayoutError, match=r"table\.weight"):  # a bare tensor is no module
        convert({"table.weight": torch.randn(3, 2)}, entries)


FAMILY_PARTS = {
    "sd1": {"unet": "sd15", "text": "clip-l"},
    "sd2": {"unet": "sd21-depth", "text": "openclip-h"},
    "sdxl": {"unet": "sdxl", "text": "clip-l", "text2": "openclip-bigg"},
    "sdxl-refiner": {"unet": "sdxl-refiner", "text2": "openclip-bigg"},
}


@pytest.mark.parametrize("name", FAMILY_PARTS)
def test_a_single_file_is_divided_and_joined(name: str) -> None:
    family = single_file.FAMILIES[name]
    parts = {"autoencoder": (SD_AUTOENCODER, meta(Autoencoder, SD_AUTOENCODER))}
    for part, preset in FAMILY_PARTS[name].items():
        model = unets.UNet if part == "unet" else ClipTextModel
        config = PRESETS[preset] if part == "unet" else clip_text.PRESETS[preset]
        parts[part] = config, meta(model, config)
    file = single_file.join(parts, family)
    assert single_file.family_of(file) is family
    extra = ("alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "betas", "denoiser.sigmas")
    for key in (*extra, "model_ema.decay", "model_ema.diffusion_modelout2weight", "logvar"):
        file[key] = torch.empty(1)
    found = single_file.read(file, family)
    assert found.keys() == parts.keys()
    for part, (config, tensors) in parts.items():
        assert found[part][0] == config
        assert shapes(found[part][1]) == shapes(tensors)
    file["something.else"] = torch.empty(1)
    assert single_file.foreign(file, family) == ["something.else"]
    with pytest.raises(LayoutError, match="has no text3"):
        single_file.join({"text3": (CLIP_L, {})}, family)


def test_the_two_autoencoder_presets_differ_in_scale_only() -> None:
    assert shapes(meta(Autoencoder, SD_AUTOENCODER)) == shapes(meta(Autoencoder, SDXL_AUTOENCODER))
    assert SD_AUTOENCODER.scale != SDXL_AUTOENCODER.scale


def test_no_text_tower_no_family() -> None:
    with pytest.raises(LayoutError, match="no text tower"):
        single_file.family_of({"model.diffusion_model.out.2.bias": 0})
