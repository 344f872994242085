"""LoRAs whose layers have numbers, and textual inversions that lie in the file of a LoRA."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import oracles
from darkroom.errors import CheckpointError, LayoutError
from darkroom.generation.adapters.lora import Lora
from darkroom.generation.generate import develop
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.unet import UNet, UNetConfig
from darkroom.weights.adapters.lora import fit, open_lora
from darkroom.weights.assemble import on_meta
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.numbered_lora import named
from generation import small

UNET = UNetConfig(channels=(32, 64), heads=(2, 2), depth=(1, 1), text_channels=48, groups=8)
TEXT = TextConfig(channels=48, heads=2, layers=3, hidden=96)
CLASSES = {
    "plain": ("CrossAttention", "Attention", "GEGLU"),
    "extended": ("ResnetBlock2D", "CrossAttention", "Attention", "GEGLU"),
}


def layers(model: nn.Module, classes) -> list[tuple[str, nn.Module]]:
    """As the trainer counts them: each layer of each module of these classes, once."""
    found = {}
    for name, module in model.named_modules():
        if type(module).__name__ in classes:
            for inner, layer in module.named_modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    found[f"{name}.{inner}"] = layer
    return list(found.items())


def numbered(part: str, model: nn.Module, classes, old: bool = False):
    """A file of random matrices, and the same in diffusers' names."""
    g, state, expected = torch.Generator().manual_seed(0), {}, {}
    places = layers(model, classes)
    if old:  # the feed-forward layer before the second attention, as of diffusers 0.11
        names = [name for name, _ in places]
        places.sort(key=lambda place: old_order(place[0], names))
    for number, (name, layer) in enumerate(places):
        out, *rest = layer.weight.shape
        down = torch.randn(2, *rest, generator=g)
        up = torch.randn(out, 2, *(1 for _ in rest[1:]), generator=g)
        state |= {f"{part}:{number}:up": up, f"{part}:{number}:down": down}
        expected |= {f"{part}.{name}.lora.up.weight": up, f"{part}.{name}.lora.down.weight": down}
    return state, expected


def old_order(name: str, names: list[str]) -> tuple:
    block, inside, tail = name.partition(".transformer_blocks.0.")
    first = (
        min(i for i, other in enumerate(names) if other.startswith(block + inside)) if inside else 0
    )
    head = tail.split(".")[0]
    rank = ("attn1", "ff", "attn2").index(head) if inside else 0
    return (first if inside else names.index(name), rank, names.index(name))


@pytest.fixture(scope="module")
def parts():
    with on_meta():
        return {"unet": UNet(UNET), "text": ClipTextModel(TEXT)}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_numbers_are_the_layers_of_diffusers_unet(parts, kind, old):
    theirs = oracles.unet(UNET, linear=False, device="meta")
    state, expected = numbered("unet", theirs, CLASSES[kind], old)
    metadata = {"unet": json.dumps(CLASSES[kind])}
    found = named(state, metadata, parts)
    assert found.keys() == expected.keys()
    assert all(found[name] is expected[name] for name in found)


def test_numbers_are_the_layers_of_transformers_text_tower(parts):
    theirs = oracles.text(TEXT, device="meta")
    state, expected = numbered("text_encoder", theirs, ("CLIPAttention",))
    found = named(state, {}, parts)
    prefix = "text_encoder.text_model."
    said = {name.replace(prefix, "text_encoder."): value for name, value in found.items()}
    wanted = {name.replace(prefix, "text_encoder."): value for name, value in expected.items()}
    assert said.keys() == wanted.keys()
    assert all(said[name] is wanted[name] for name in said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("unet:3:up"), "unet:3 comes without its other half"),
        (lambda s: [s.pop(f"unet:0:{side}") for side in ("up", "down")], "do not fit the model's"),
        (lambda s: s.update({"unet:0:up": torch.zeros(7, 2)}), "do not fit the model's"),
        (lambda s: s.update({"x": torch.zeros(1)}), "x is no part of a numbered LoRA"),
    ],
)
def test_what_does_not_fit_is_said(parts, change, message):
    state, _ = numbered("unet", oracles.unet(UNET, False, "meta"), CLASSES["plain"])
    change(state)
    with pytest.raises(LayoutError, match=message):
        named(state, {"unet": json.dumps(CLASSES["plain"])}, parts)


@pytest.mark.parametrize("metadata", ["[", "3", '["Attn"]', "[" * 100_000])
def test_odd_metadata_are_one_line(parts, metadata):
    state, _ = numbered("unet", oracles.unet(UNET, False, "meta"), CLASSES["plain"])
    with pytest.raises(LayoutError, match="metadata 'unet'|'Attn'"):
        named(state, {"unet": metadata}, parts)


def lora(model) -> dict[str, torch.Tensor]:
    layer = model.unet.down[0].residual.conv1
    out, *rest = layer.weight.shape
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    return {
        f"{stem}.lora_down.weight": torch.ones(1, *rest) * 0.01,
        f"{stem}.lora_up.weight": torch.ones(out, 1, 1, 1),
    }


@pytest.mark.parametrize("form", ["string_to_param.*", "emb_params", "clip_g"])
def test_a_bundled_textual_inversion_is_used_by_its_word(tmp_path, form):
    model = small.model(family="sd1")
    width = model.text_encoder.towers[0].model.config.channels
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(3))
    path = tmp_path / "fox.safetensors"
    save_file(lora(model) | {f"bundle_emb.foxtoken.{form}": vectors}, path)
    assert inspect(path).details["textual inversions"] == ("foxtoken",)
    assert inspect(path).kind == "LoRA"
    file = open_lora(path)
    assert [e.words for e in file.embeddings] == [("foxtoken",)]
    assert fit(file, model)["unet"]
    options = {"seeds": [1], "steps": 2, "size": (32, 32)}
    with_word = develop(model, "a foxtoken", Lora(path), **options)[0]
    words_alone = develop(model, "a foxtoken", Lora(lora(model)), **options)[0]
    assert with_word.image.tobytes() != words_alone.image.tobytes()
    assert not with_word.params.embeddings  # the LoRA names the file
    assert [used.name for used in with_word.params.loras] == ["fox"]
    without = [develop(model, "a fox", l, **options)[0] for l in (Lora(path), Lora(lora(model)))]
    assert without[0].image.tobytes() == without[1].image.tobytes()


def test_words_of_a_numbered_file_are_used(tmp_path):
    model = small.model(family="sd1")
    width = model.text_encoder.towers[0].model.config.channels
    theirs = oracles.text(model.text_encoder.towers[0].model.config, device="meta")
    state, _ = numbered("text_encoder", theirs, ("CLIPAttention",))
    path = tmp_path / "n.safetensors"
    metadata = {"text_encoder": '["CLIPAttention"]', "<s1>": "<embed>"}
    save_file(state | {"<s1>": torch.randn(width)}, path, metadata=metadata)
    report = inspect(path)
    assert (report.kind, report.layout, report.unknown_count) == ("LoRA", "numbered", 0)
    assert report.details["textual inversions"] == ("<s1>",)
    options = {"seeds": [1], "steps": 2, "size": (32, 32)}
    pictures = [develop(model, text, Lora(path), **options)[0] for text in ("a <s1>", "a")]
    assert pictures[0].image.tobytes() != pictures[1].image.tobytes()


def test_a_damaged_one_is_one_line(tmp_path):
    path = tmp_path / "fox.safetensors"
    save_file(lora(small.model()) | {"bundle_emb.a.b": torch.zeros(3, 4, 5)}, path)
    with pytest.raises(CheckpointError, match="the textual inversion in it: a: vectors of shape"):
        open_lora(path)
