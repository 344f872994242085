"""LoRAs in runs: the pictures of merged weights, and nothing left behind."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cases import quick
from darkroom.acceleration import Acceleration, accelerate
from darkroom.errors import ConfigError, ModelMismatchError, ModelNotFoundError, PromptError
from darkroom.generation.adapters.lora import Lora
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.metadata import Params, UsedLora, read_params
from darkroom.generation.redraw import redraw
from darkroom.ops.packed import can_pack
from darkroom.weights.load import load
from generation import small
from weights import loras, tiny

PROMPT = "the cat on a red house"
SIZE = {"size": (64, 64), "steps": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data folder whose model folder is known."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        (folder / "models").mkdir()
        patch.setenv("DARKROOM_HOME", str(folder))
        patch.delenv("DARKROOM_MODELS", raising=False)
        yield folder


def small_lora(path: Path, model, seed: int = 1) -> Path:
    """A kohya file for the small model: of the U-Net's and the text tower's attention."""
    g, state = torch.Generator().manual_seed(seed), {}
    for stem, layer in {
        "lora_unet_mid_block_attentions_0_proj_in": model.unet.middle.attention.input,
        "lora_unet_down_blocks_0_resnets_0_conv1": model.unet.down[0].residual.conv1,
        "lora_te_text_model_encoder_layers_1_mlp_fc1": model.text_encoder.towers[0]
        .model.blocks[1]
        .up,
    }.items():
        out, *rest = layer.weight.shape
        state[f"{stem}.lora_down.weight"] = torch.randn((2, *rest), generator=g)
        state[f"{stem}.lora_up.weight"] = torch.randn((out, 2, *(1 for _ in rest[1:])), generator=g)
        state[f"{stem}.alpha"] = torch.tensor(1.0)
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def model():
    return small.model(family="sd1")


@pytest.fixture(scope="module")
def fox(home, model) -> Path:
    small_lora(home / "models/film.safetensors", model, seed=2)
    return small_lora(home / "models/fox.safetensors", model)


def last(model, prompt: str, *features, **arguments):
    *_, step = generate(model, prompt, *features, **{"steps": 3, "seeds": [5], **arguments})
    return step.x


def hooks(model) -> int:
    return sum(
        len(module._forward_hooks)
        for part in (model.unet, model.text_encoder)
        for module in part.modules()
    )


@pytest.mark.parametrize("family", quick(["sdxl"], ["sd1", "sdxl"]))
def test_pictures_are_those_of_diffusers_with_merged_weights(family, tmp_path) -> None:
    """Two LoRAs, one of them weaker on the text; the model is accelerated, as an app's is."""
    pipeline = getattr(tiny, family)()
    pipeline.set_progress_bar_config(disable=True)
    model = load(tiny.save(pipeline, tmp_path / "model"), device="cpu")
    accelerate(model, Acceleration(channels_last=True, packed=can_pack()))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    one = loras.random(pipeline)
    two = loras.random(pipeline, only=loras.ATTENTION, seed=3)
    save_file(loras.kohya(one, family == "sd1"), tmp_path / "one.safetensors")
    save_file(loras.dotted(two, "lora_A", "lora_B"), tmp_path / "two.safetensors")
    plain = last(model, PROMPT, Guidance(5.0), noise=noise, **SIZE)
    ours = last(
        model, PROMPT, Guidance(5.0), Lora(tmp_path / "one.safetensors", 0.6),
        Lora(tmp_path / "two.safetensors", -0.5, 0.25), noise=noise, **SIZE,
    )  # fmt: skip
    assert torch.equal(last(model, PROMPT, Guidance(5.0), noise=noise, **SIZE), plain)
    loras.merge(pipeline, one, 0.6)
    loras.merge(pipeline, two, -0.5, 0.25)
    theirs = pipeline(
        PROMPT, num_inference_steps=3, guidance_scale=5.0, height=64, width=64,
        latents=noise.clone(), output_type="latent",
    ).images  # fmt: skip
    assert (ours - plain).abs().max() > 0.5
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("family", quick(["sd1"], ["sd1", "sdxl"]))
def test_pictures_are_those_of_diffusers_load_lora_weights(family, tmp_path) -> None:
    pytest.importorskip("peft")
    pipeline = getattr(tiny, family)()
    pipeline.set_progress_bar_config(disable=True)
    model = load(tiny.save(pipeline, tmp_path / "model"), device="cpu")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    changes = loras.random(pipeline, only=loras.ATTENTION)
    path = tmp_path / "one.safetensors"
    save_file(loras.kohya(changes, family == "sd1"), path)
    ours = last(model, PROMPT, Guidance(5.0), Lora(path, 0.6), noise=noise, **SIZE)
    pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="one")
    pipeline.set_adapters(["one"], [0.6])
    theirs = pipeline(
        PROMPT, num_inference_steps=3, guidance_scale=5.0, height=64, width=64,
        latents=noise.clone(), output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_the_prompt_s_tags_are_features(model, fox) -> None:
    plain = last(model, PROMPT)
    feature = last(model, PROMPT, Lora("fox", 0.8), Lora("film", 0.5, -1.0))
    tagged = last(model, f"<lora:fox:0.8>{PROMPT}<lora:film:-1:.5>")
    assert torch.equal(feature, tagged)
    assert not torch.allclose(plain, tagged)
    assert torch.equal(last(model, PROMPT), plain)
    assert torch.equal(last(model, PROMPT, Lora(fox, 0.0)), plain)
    only_text = last(model, PROMPT, Lora(fox, 0.0, 1.0))
    only_unet = last(model, PROMPT, Lora(fox, 1.0, 0.0))
    for one in (only_text, only_unet):
        assert not torch.allclose(one, plain)
        assert not torch.allclose(one, last(model, PROMPT, Lora(fox)))


def test_nothing_is_left_of_runs_that_are_abandoned_fail_or_take_turns(model, fox) -> None:
    plain = last(model, PROMPT)
    with_fox = last(model, PROMPT, Lora(fox))
    unused = generate(model, PROMPT, Lora(fox), steps=3)
    assert torch.equal(last(model, PROMPT), plain)
    next(unused)
    assert hooks(model) == 0
    assert torch.equal(last(model, PROMPT), plain)

    class Fails(Guidance):
        def wrap(self, denoise, run):
            def fails(x, sigma, cond):
                denoise(x, sigma, cond)
                raise RuntimeError("in the middle of a step")

            return fails

    with pytest.raises(RuntimeError, match="in the middle"):
        list(generate(model, PROMPT, Lora(fox), Fails(1.0), steps=3))
    assert hooks(model) == 0

    a = generate(model, PROMPT, Lora(fox), steps=3, seeds=[5])
    b = generate(model, PROMPT, steps=3, seeds=[5])
    pairs = list(zip(a, b, strict=True))
    assert torch.equal(pairs[-1][0].x, with_fox)
    assert torch.equal(pairs[-1][1].x, plain)


def test_a_picture_knows_its_loras_and_is_drawn_again(model, fox, home, tmp_path) -> None:
    [picture] = develop(model, "a cat <lora:film:.5>", Lora(fox, 0.8, 0.3), steps=2)
    first, second = picture.params.loras
    assert (first.name, first.weight, first.text_weight, first.tagged) == ("fox", 0.8, 0.3, False)
    assert (second.name, second.weight, second.tagged) == ("film", 0.5, True)
    assert len(first.sha256) == 64
    path = picture.save(tmp_path / "cat.png")
    assert read_params(path) == picture.params
    assert str(home).encode() not in path.read_bytes()
    assert redraw(model, path).image.tobytes() == picture.image.tobytes()

    kept = fox.read_bytes()
    try:
        small_lora(fox, model, seed=9)
        with pytest.raises(ModelMismatchError, match="LoRA 'fox' of SHA-256 .*put that file back"):
            redraw(model, path)
        assert redraw(model, path, exact=False).image.tobytes() != picture.image.tobytes()
        fox.unlink()
        with pytest.raises(
            ModelNotFoundError, match="drawn with the LoRA 'fox'.*no LoRA is called"
        ):
            redraw(model, path)
    finally:
        fox.write_bytes(kept)
    [tensors] = develop(model, "a cat", Lora(Lora(fox).file.tensors), steps=2)
    with pytest.raises(ConfigError, match="given as tensors"):
        redraw(model, tensors.params)
    assert Params(prompt="x").loras == ()
    assert UsedLora(name="x").weight == 1.0


def test_what_cannot_be_is_refused_at_the_call(model, fox, tmp_path) -> None:
    with pytest.raises(
        PromptError, match="asks for '<lora:foxx:1>': no LoRA .* did you mean 'fox'"
    ):
        generate(model, "a <lora:foxx:1>")
    with pytest.raises(PromptError, match="into the prompt"):
        generate(model, "a", Guidance(3.0, negative="<lora:fox:1>"))
    with pytest.raises(ModelNotFoundError, match="no LoRA is called 'nothing'"):
        Lora("nothing")
    with pytest.raises(ConfigError, match="finite"):
        Lora(fox, float("nan"))
    wide = small.model(unet=type(small.UNET)(**{**vars(small.UNET), "channels": (24, 48)}))
    with pytest.raises(ModelMismatchError, match=r"fox.safetensors: .*do not fit a layer"):
        generate(wide, "a", Lora(fox))
    compiled = copy.copy(model.unet)
    compiled.compile(backend="eager")
    with pytest.raises(ModelMismatchError, match="compiled"):
        generate(replace(model, unet=compiled), "a", Lora(fox))
