"""LoRA names against diffusers: at full size on the meta device, and by numbers on tiny models."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import oracles
from cases import quick
from darkroom.adapters.lora import LowRank, targets
from darkroom.errors import LayoutError, ModelMismatchError, ModelNotFoundError
from darkroom.models.clip_text import CLIP_L, OPENCLIP_BIGG, ClipTextModel
from darkroom.models.unet import SD15, SDXL, UNet
from darkroom.weights.adapters.lora import LoraFile, find_lora, fit, networks, open_lora
from darkroom.weights.layouts import lora, unet
from darkroom.weights.load import load
from weights import loras, tiny

PIPELINES = {"sd1": tiny.sd1, "sd2": tiny.sd2, "sdxl": tiny.sdxl}
FULL = {
    "sd1": (SD15, (("text", CLIP_L),)),
    "sdxl": (SDXL, (("text", CLIP_L), ("text2", OPENCLIP_BIGG))),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pipeline by family, and our model of it, each made once."""
    made = {}

    def get(family: str):
        if family not in made:
            pipeline = PIPELINES[family]()
            made[family] = (
                pipeline,
                load(tiny.save(pipeline, tmp_path_factory.mktemp(family) / family)),
            )
        return made[family]

    return get


def full_size(family: str) -> dict[str, nn.Module]:
    config, towers = FULL[family]
    with torch.device("meta"):
        return {"unet": UNet(config), **{name: ClipTextModel(text) for name, text in towers}}


def layers(model: nn.Module) -> list[str]:
    """Paths of what a LoRA may change."""
    kinds = nn.Linear | nn.Conv2d
    return [path for path, layer in model.named_modules() if isinstance(layer, kinds)]


@pytest.mark.parametrize("family", quick(["sd1"], FULL))
def test_every_layer_of_the_full_size_has_names_of_its_own(family: str) -> None:
    parts = full_size(family)
    names = lora.layer_names(parts)
    config = FULL[family][0]
    theirs = layers(oracles.unet(config, linear=family != "sd1", device="meta"))
    ours = [f"lora_unet_{path.replace('.', '_')}" for path in theirs]
    assert len(set(ours)) == len(ours) == len(targets(parts["unet"]))
    assert len({names[name] for name in ours}) == len(ours)
    for table in (unet.diffusers(config), unet.ldm(config)):
        for entry in table:  # no name of one layout means another layer in the other
            if entry.ours in targets(parts["unet"]):
                for name in (f"lora_unet_{entry.theirs.replace('.', '_')}", f"unet.{entry.theirs}"):
                    assert names[name] == ("unet", entry.ours)
    for part, prefix in (("text", "lora_te_"), ("text", "lora_te1_"), ("text2", "lora_te2_")):
        if part in parts:
            found = {place for name, place in names.items() if name.startswith(prefix)}
            wanted = set(targets(parts[part])) - {"projection"}
            assert wanted <= {path for _, path in found}
            assert {place[0] for place in found} == {part}


def test_compvis_names_of_sdxl_mean_what_diffusers_takes_them_for() -> None:
    from diffusers.loaders import lora_conversion_utils as theirs

    parts = full_size("sdxl")
    ours = targets(parts["unet"])
    paths = [e.theirs for e in unet.ldm(SDXL) if e.ours in ours and ".attention." in str(e.ours)]
    assert len(paths) == 722
    down = {
        f"lora_unet_{path.replace('.', '_')}.lora_down.weight": torch.tensor(number)
        for number, path in enumerate(paths)
    }
    config = oracles.unet(SDXL, linear=True, device="meta").config
    converted = {
        theirs._convert_unet_lora_key(key): number
        for key, number in theirs._maybe_map_sgm_blocks_to_diffusers(dict(down), config).items()
    }

    def places(state: dict[str, Tensor]) -> dict[int, str]:
        up = {key.replace("down.weight", "up.weight"): number for key, number in state.items()}
        return {int(c.tensors["down"]): c.path for c in lora.read({**state, **up}, parts)}

    assert places(down) == places(converted)
    assert len(places(down)) == 722


@pytest.mark.parametrize("family", quick(["sd1"], PIPELINES))
def test_kohya_s_files_change_the_numbers_as_merged_weights_do(family: str, saved) -> None:
    pipeline, model = saved(family)
    changes = loras.random(pipeline)
    merged = copy.deepcopy({part: getattr(pipeline, part, None) for part in loras.PARTS})
    before = tiny.our_outputs(model)
    try:
        loras.merge(pipeline, changes, 0.7)
        layers = fit(LoraFile(name="x", tensors=loras.kohya(changes, family != "sdxl")), model)
        with attached(model, layers, 0.7):
            changed = tiny.our_outputs(model)
            tiny.assert_same(model, pipeline)
    finally:
        for part, module in merged.items():
            if module is not None:
                setattr(pipeline, part, module)
    for name in ("text", "unet"):
        assert (changed[name] - before[name]).abs().max() > 0.01
    again = tiny.our_outputs(model)
    assert all(torch.equal(tensor, again[name]) for name, tensor in before.items())


def attached(model, layers, weight):
    from contextlib import ExitStack

    from darkroom.adapters.lora import Lora

    stack = ExitStack()
    for part, found in layers.items():
        stack.enter_context(Lora(networks(model)[part], found, weight))
    return stack


def flat(layers: dict[str, dict[str, LowRank]]) -> dict[tuple[str, str], LowRank]:
    return {(part, path): layer for part, found in layers.items() for path, layer in found.items()}


def same(a, b) -> None:
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for place in a:
        assert torch.equal(a[place].down, b[place].down)
        assert torch.equal(a[place].up, b[place].up)
        assert a[place].scale == b[place].scale


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_all_namings_say_the_same(family: str, saved) -> None:
    pipeline, model = saved(family)

    def layers(state: dict[str, Tensor]):
        return fit(LoraFile(name="x", tensors=state), model)

    changes = loras.random(pipeline)
    expected = layers(loras.kohya(changes))
    assert len(flat(expected)) == len(changes)
    for names in (
        ("lora_A", "lora_B"),
        ("lora_A.default", "lora_B.default"),
        ("lora.down", "lora.up"),
        ("lora_linear_layer.down", "lora_linear_layer.up"),
    ):
        same(layers(loras.dotted(changes, *names)), expected)

    attention = loras.random(pipeline, only=loras.ATTENTION, alpha=3.0)  # the rank: scale 1
    expected = layers(loras.kohya(attention))
    same(layers(loras.processors(attention)), expected)
    same(layers(loras.dotted(attention, "lora_A", "lora_B", alpha=False)), expected)

    of_unet = [change for change in attention if change.part == "unet"]
    expected = layers(loras.kohya(of_unet))
    state = loras.dotted(of_unet, "lora_A", "lora_B", alpha=False)
    for prefix in ("", "base_model.model.", "unet.base_model.model."):
        same(layers({prefix + key.removeprefix("unet."): t for key, t in state.items()}), expected)
    same(
        layers({k.removeprefix("unet."): t for k, t in loras.processors(of_unet).items()}), expected
    )


def test_peft_s_alpha_in_the_metadata(saved, tmp_path) -> None:
    pipeline, model = saved("sd1")
    changes = loras.random(pipeline, only=("to_q", "q_proj"))
    state = loras.dotted(changes, "lora_A", "lora_B", alpha=False)
    config = {"unet.lora_alpha": 6, "text_encoder.lora_alpha": 12, "text_encoder.use_rslora": True}
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(state, path, {"lora_adapter_metadata": json.dumps(config)})
    found = fit(open_lora(tmp_path), model)
    assert {layer.scale for layer in found["unet"].values()} == {2.0}
    assert {layer.scale for layer in found["text"].values()} == {12 / 3**0.5}


def test_what_fits_nothing_is_named(saved, tmp_path) -> None:
    pipeline, model = saved("sd1")
    state = loras.kohya(loras.random(pipeline, only=("to_q",)))
    first = next(iter(state)).split(".")[0]

    def refused(kind, message: str, changed: dict[str, Tensor]) -> None:
        with pytest.raises(kind, match=message):
            fit(LoraFile(name="x", tensors=changed), model)

    stray = {"lora_unet_down_blocks_9_conv.lora_down.weight": torch.zeros(3, 3)}
    refused(LayoutError, "x: 1 tensors fit no layer.*down_blocks_9_conv", {**state, **stray})
    refused(LayoutError, "no part of a LoRA.*dorra", {**state, f"{first}.dorra": torch.ones(1)})
    refused(LayoutError, "no part of a LoRA", {**state, f"{first}.alpha": torch.ones(2)})
    without = {key: t for key, t in state.items() if key != f"{first}.lora_up.weight"}
    refused(LayoutError, f"1 tensors come without their other half.*{first}", without)
    refused(LayoutError, "holds no tensors", {})
    wide = {**state, f"{first}.lora_down.weight": torch.zeros(3, 77)}
    refused(ModelMismatchError, f"{first}.*do not fit a layer of 32 to 32", wide)
    twice = {**state, **loras.dotted(loras.random(pipeline, only=("to_q",)), "lora_A", "lora_B")}
    refused(LayoutError, "that has one already", twice)


SDXL_KEY = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"


def test_a_lora_for_another_base_is_refused_by_name(saved, tmp_path) -> None:
    _, model = saved("sd1")
    path = tmp_path / "film.safetensors"
    tensors = {
        f"{SDXL_KEY}.lora_down.weight": torch.zeros(2, 2048),
        f"{SDXL_KEY}.lora_up.weight": torch.zeros(640, 2),
    }
    save_file(tensors, path)
    with pytest.raises(ModelMismatchError, match="LoRA for SDXL; the model is SD 1.x"):
        fit(open_lora(path), model)
    for file in (LoraFile(name="x", tensors=tensors), LoraFile(name="x", tensors=hada(SDXL_KEY))):
        with pytest.raises(
            ModelMismatchError, match=f"x: {SDXL_KEY}.* is a LoRA for SDXL; the model is SD 1.x"
        ):
            fit(file, model)
    stray = {key.replace("blocks_4_1", "blocks_9_1"): t for key, t in tensors.items()}
    with pytest.raises(LayoutError, match="x: this is a LoRA for SDXL.*fit no layer.*blocks_9_1"):
        fit(LoraFile(name="x", tensors=stray), model)


def hada(key: str) -> dict[str, Tensor]:
    return {
        f"{key}.hada_{name}": torch.zeros(shape)
        for name, shape in {
            "w1_a": (640, 2), "w1_b": (2, 2048), "w2_a": (640, 2), "w2_b": (2, 2048)
        }.items()
    }  # fmt: skip


def test_loras_are_found_by_name(tmp_path, monkeypatch, saved) -> None:
    pipeline, _ = saved("sd1")
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path / "more"))
    state = loras.kohya(loras.random(pipeline, only=("to_q",)))
    (tmp_path / "home/models").mkdir(parents=True)
    (tmp_path / "more/Lora/people").mkdir(parents=True)
    save_file(state, tmp_path / "home/models/film grain.safetensors")
    save_file(state, tmp_path / "more/Lora/people/fox.v1.safetensors")
    assert find_lora("film grain") == tmp_path / "home/models/film grain.safetensors"
    for name in ("fox.v1", "fox.v1.safetensors"):
        assert find_lora(name) == tmp_path / "more/Lora/people/fox.v1.safetensors"
    assert open_lora("fox.v1").name == open_lora(find_lora("fox.v1")).name == "fox.v1"
    with pytest.raises(
        ModelNotFoundError, match="no LoRA is called 'film grian'; did you mean 'film"
    ):
        find_lora("film grian")
    save_file({"conv_in.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "net.safetensors")
    save_file(
        {"down_blocks.0.x": torch.zeros(1), "encoder.down_blocks.0": torch.zeros(1),
         "decoder.up_blocks.0": torch.zeros(1)},
        tmp_path / "vae.safetensors",
    )  # fmt: skip
    with pytest.raises(ModelMismatchError, match="expected a LoRA, this is: autoencoder"):
        open_lora(tmp_path / "vae.safetensors")
