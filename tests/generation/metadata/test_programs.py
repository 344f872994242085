"""Pictures of ComfyUI, InvokeAI, Fooocus and NovelAI, written as those programs write them."""

import copy
import io
import json
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager

from darkroom.app.drawing.request import Request
from darkroom.errors import ConfigError
from darkroom.generation.metadata import Params, SourceImage, UsedControl, UsedSizes, read_params
from darkroom.generation.metadata.programs import comfyui, fooocus, invokeai, novelai
from darkroom.generation.metadata.programs.wording import of_comfyui, of_invoke, of_novelai
from darkroom.generation.redraw import arguments_of
from darkroom.text.prompt import Piece, parse_emphasis


def png(**texts: Any) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text if isinstance(text, str) else json.dumps(text))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def missing(params: Params) -> tuple[str, ...]:
    assert params.origin is not None
    return params.origin.missing


def questions(params: Params) -> set[str]:
    assert params.origin is not None
    return set(params.origin.questions)


# --- ComfyUI

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "_meta": {"title": "KSampler"},
        "inputs": {
            "seed": 156680208700286, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m",
            "scheduler": "karras", "denoise": 1, "model": ["4", 0], "positive": ["6", 0],
            "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\v1-5.safetensors"}},
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 512, "height": 768, "batch_size": 1},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["8", 0]}},
}  # fmt: skip


def graph(**changes: Any) -> dict[str, Any]:
    """The plain graph with other inputs, ``n3=dict(steps=4)``, or other nodes, ``n9=None``."""
    nodes = copy.deepcopy(GRAPH)
    for name, change in changes.items():
        if change is None:
            del nodes[name[1:]]
        elif "class_type" in change:
            nodes[name[1:]] = change
        else:
            nodes[name[1:]]["inputs"] |= change
    return nodes


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def comfy(**changes: Any) -> Params:
    return read_params(png(prompt=graph(**changes), workflow='{"nodes": []}'))


def test_a_plain_graph_is_read() -> None:
    params = comfy()
    assert (params.prompt, params.negative, params.seed) == ("a red fox", "blurry", 156680208700286)
    assert (params.steps, params.guidance, params.size) == (20, 8.0, (768, 512))
    assert (params.sampler, params.spacing, params.model) == ("dpmpp_2m", "karras", "v1-5")
    assert not missing(params)
    assert not questions(params)


def test_links_loras_and_the_last_layer_are_followed() -> None:
    params = comfy(
        n10=node("LoraLoader", lora_name="a/fox.safetensors", strength_model=0.8,
                 strength_clip=0.5, model=["4", 0], clip=["4", 1]),
        n11=node("LoraLoaderModelOnly", lora_name="fur.safetensors", strength_model=1,
                 model=["10", 0]),
        n12=node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["10", 1]),
        n13=node("PrimitiveString", value="a cat"),
        n14=node("Reroute", **{"": ["12", 0]}),
        n15=node("Seed (rgthree)", seed=7),
        n3={"model": ["11", 0], "seed": ["15", 0]},
        n6={"text": ["13", 0], "clip": ["14", 0]},
        n7={"clip": ["12", 0]},
    )  # fmt: skip
    assert params.prompt == "a cat<lora:fox:0.5:0.8><lora:fur:0:1>"
    assert (params.clip_skip, params.seed) == (1, 7)


def test_other_samplers_and_sources_of_comfyui() -> None:
    custom = {
        "n3": node("SamplerCustom", add_noise=True, noise_seed=5, cfg=1, model=["4", 0],
                   positive=["6", 0], negative=["7", 0], sampler=["20", 0], sigmas=["21", 0],
                   latent_image=["5", 0]),
        "n20": node("KSamplerSelect", sampler_name="euler_ancestral"),
        "n21": node("SDTurboScheduler", steps=1, denoise=1, model=["4", 0]),
    }  # fmt: skip
    params = comfy(**custom)
    assert (params.sampler, params.spacing, params.steps) == ("euler_ancestral", "trailing", 1)
    assert (params.negative, params.guidance) == (None, 1.0)
    assert missing(params) == ("the noise that its sampler adds at each step",)
    assert questions(comfy(**custom | {"n21": node("SDTurboScheduler", steps=4)})) == {"spacing"}
    guided = custom | {
        "n3": node("SamplerCustomAdvanced", noise=["22", 0], guider=["23", 0], sampler=["20", 0],
                   sigmas=["21", 0], latent_image=["5", 0]),
        "n21": node("BasicScheduler", scheduler="simple", steps=9, denoise=1, model=["4", 0]),
        "n22": node("RandomNoise", noise_seed=6),
        "n23": node("CFGGuider", cfg=3.5, model=["4", 0], positive=["6", 0], negative=["7", 0]),
    }  # fmt: skip
    params = comfy(**guided)
    assert (params.seed, params.guidance, params.spacing) == (6, 3.5, "trailing")
    said = {name: value for name, value in GRAPH["3"]["inputs"].items() if name != "seed"}
    advanced = node("KSamplerAdvanced", noise_seed=4, start_at_step=0, end_at_step=10_000,
                    add_noise="enable", return_with_leftover_noise="disable", **said)  # fmt: skip
    assert comfy(n3=advanced).seed == 4
    params = comfy(n3={"denoise": 0.6}, n5=node("VAEEncode", pixels=["30", 0], vae=["4", 2]),
                   n30=node("LoadImage", image="a.png"))  # fmt: skip
    assert isinstance(params.image, SourceImage)
    assert int(params.steps * params.image.strength) == 20  # it takes all 20 of 20 / 0.6


@pytest.mark.parametrize(
    ("scheduler", "timesteps"),
    [
        ("karras", ()),
        ("simple", (999, 857, 714, 571, 428, 285, 142)),
        ("beta", (999, 928, 782, 598, 401, 217, 71)),
    ],
)
def test_levels_that_are_no_spacing_are_counted_out(scheduler, timesteps) -> None:
    """ComfyUI's "beta" is spread over timesteps, A1111's and diffusers' over sigmas."""
    params = comfy(n3={"scheduler": scheduler, "steps": 7})
    assert params.timesteps == timesteps and params.steps == 7
    assert arguments_of(params)[1].get("spacing") == ("karras" if not timesteps else None)
    again = Request(redrawn=params, steps=9).params(params.seeds)
    assert (again.timesteps, again.steps) == ((), 9) and again.spacing == params.spacing


def test_what_comfyui_does_otherwise_is_listed() -> None:
    params = comfy(
        n3={"sampler_name": "uni_pc", "scheduler": "normal", "model": ["11", 0]},
        n5={"batch_size": 4},
        n6={"text": "a (red:1.4) fox"},
        n8={"vae": ["10", 0]},
        n10=node("VAELoader", vae_name="mse.pt"),
        n11=node("RescaleCFG", model=["4", 0], multiplier=0.7),
    )
    assert missing(params) == (
        "which picture of a batch of 4 this is", "VAE: mse.pt", "its way of weighting words",
    )  # fmt: skip
    assert (params.rescale, params.sampler) == (0.7, "unipc")
    assert params.options == {"order": 3, "scale": "bh1"}
    assert questions(comfy(n3={"sampler_name": "res_multistep"})) == {"sampler"}
    assert questions(comfy(n3={"scheduler": "kl_optimal"})) == {"spacing"}
    assert questions(comfy(n3={"cfg": 0})) == {"guidance"}


def test_sizes_of_xl() -> None:
    inputs = {"text_g": "a", "text_l": "a", "width": 10, "height": 20, "crop_w": 3, "crop_h": 4,
              "target_width": 50, "target_height": 60, "clip": ["4", 1]}  # fmt: skip
    params = comfy(n6=node("CLIPTextEncodeSDXL", **inputs))
    assert params.sizes == UsedSizes(original=(20, 10), crop=(4, 3), target=(60, 50))
    with pytest.raises(ConfigError, match="are told different texts"):
        comfy(n6=node("CLIPTextEncodeSDXL", **inputs | {"text_l": "b"}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"n10": GRAPH["3"]}, "it has 2 samplers"),
        ({"n3": None}, "it has no sampler"),
        ({"n3": node("KSampler (Efficient)", seed=1)}, "the sampler 'KSampler (Efficient)' is"),
        ({"n6": node("ConditioningCombine", a=["7", 0])}, "the node 'ConditioningCombine' lies"),
        ({"n4": node("UNETLoader", unet_name="flux")}, "the node 'UNETLoader' lies before"),
        ({"n5": node("EmptySD3LatentImage", width=8)}, "from the node 'EmptySD3LatentImage'"),
        ({"n10": node("ImageScale", image=["8", 0])}, "the node 'ImageScale' follows"),
        ({"n3": {"steps": "many"}}, "its steps is no whole number"),
        ({"n3": {"model": ["99", 0]}}, "an input of it leads nowhere"),
        ({"n3": {"model": ["10", 0]}, "n10": node("Reroute", a=["10", 0])}, "lie in a circle"),
        (
            {"n6": {"text": ["10", 0]}, "n10": node("Join", a="x", b="y")},
            "text comes from the node",
        ),
        ({"n3": {"denoise": 0.5}}, "its sampler starts with denoise 0.5"),
    ],
)
def test_a_graph_that_is_not_plain_is_named(changes, why) -> None:
    with pytest.raises(ConfigError) as caught:
        comfy(**changes)
    text = str(caught.value)
    assert text.startswith("ComfyUI drew the picture with a graph that Darkroom cannot follow: ")
    assert why in text
    assert "its chunk 'prompt' holds " in text
    assert "CLIPTextEncode" in text


def test_the_editors_workflow_alone_is_named() -> None:
    nodes = [{"type": "KSampler"}, {"type": "VAEDecode"}, {"type": "VAEDecode"}]
    with pytest.raises(ConfigError, match=r"ComfyUI .* 3 nodes \(VAEDecode x2, KSampler\)"):
        read_params(png(workflow={"nodes": nodes}))


def test_a_graph_in_exif_is_read() -> None:
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(GRAPH)
    exif[0x010F] = 'workflow:{"nodes": []}'
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", exif=exif)
    assert read_params(buffer.getvalue()) == comfy()


def test_large_and_broken_graphs_end() -> None:
    many = {str(i): node("SaveImage", images=[str(i - 1), 0]) for i in range(100, 9000)}
    assert comfy(**{f"n{name}": value for name, value in many.items()}).steps == 20
    chain = {str(i): node("Reroute", a=[str(i + 1), 0]) for i in range(100, 9000)}
    with pytest.raises(ConfigError):
        comfy(n3={"model": ["100", 0]}, **{f"n{name}": value for name, value in chain.items()})
    for broken in ('{"1": {"class_type": 1}}', '{"1": {"class_type": "KSampler", "inputs": []}}',
                   '{"a": ' * 20_000, "[1]", "null", '{"1": NaN}'):  # fmt: skip
        with pytest.raises(ConfigError):
            read_params(png(prompt=broken))


# --- InvokeAI

FLAT: dict[str, Any] = {
    "app_version": "4.2.0", "generation_mode": "txt2img", "positive_prompt": "a red fox",
    "negative_prompt": "blurry", "width": 512, "height": 768, "seed": 5, "rand_device": "cpu",
    "cfg_scale": 7.5, "cfg_rescale_multiplier": 0, "steps": 30, "scheduler": "dpmpp_2m_k",
    "seamless_x": False, "model": {"key": "1", "hash": "x", "name": "dreamshaper", "base": "sd-1"},
    "controlnets": [], "loras": [{"model": {"name": "fur"}, "weight": 0.6}], "clip_skip": 1,
}  # fmt: skip


def test_invokeai_is_read() -> None:
    params = read_params(png(invokeai_metadata=FLAT, invokeai_graph='{"id": "1"}'))
    assert params.prompt == "a red fox<lora:fur:0.6>"
    assert (params.negative, params.seed, params.steps) == ("blurry", 5, 30)
    assert (params.sampler, params.spacing, params.size) == ("dpmpp_2m", "karras", (768, 512))
    assert (params.guidance, params.clip_skip, params.model) == (7.5, 1, "dreamshaper")
    assert not missing(params)
    assert not questions(params)


def test_what_invokeai_does_otherwise() -> None:
    changes = {
        "seamless_x": True, "hrf_enabled": True, "hrf_strength": 0.4,
        "vae": {"name": "mse"}, "positive_style_prompt": "oil", "scheduler": "euler",
        "positive_prompt": "a red++ (fox)0.5", "rand_device": "cuda",
    }  # fmt: skip
    params = read_params(png(invokeai_metadata=FLAT | changes))
    assert set(missing(params)) == {
        "seamless_x", "hrf_enabled", "hrf_strength: 0.4", "vae: mse",
        "positive_style_prompt", "its way of weighting words", "the noise of cuda",
    }  # fmt: skip
    assert params.prompt == "a (red:1.21) (fox:0.5)<lora:fur:0.6>"
    assert (params.sampler, params.spacing) == ("euler", "")  # the model's own
    params = read_params(png(invokeai_metadata=FLAT | {"positive_prompt": '("a","b").blend(1,2)'}))
    assert questions(params) == {"prompt"}
    assert questions(read_params(png(invokeai_metadata=FLAT | {"scheduler": "er_sde"}))) == {
        "sampler"
    }
    with pytest.raises(ConfigError, match="InvokeAI drew .* made by 'flux_txt2img'; it holds inv"):
        read_params(png(invokeai_metadata=FLAT | {"generation_mode": "flux_txt2img"}))
    older = {"model": {"model_name": "sd15", "base_model": "sd-1"}, "loras": []}
    assert read_params(png(invokeai_metadata=FLAT | older)).model == "sd15"


def test_control_networks_of_invokeai_are_read() -> None:
    net = {
        "control_model": {"name": "canny"},
        "control_weight": 0.5,
        "begin_step_percent": 0,
        "end_step_percent": 0.8,
        "control_mode": "balanced",
        "image": {"image_name": "a.png"},
    }
    params = read_params(png(invokeai_metadata=FLAT | {"controlnets": [net]}))
    assert params.controls == (UsedControl(net="canny", weight=0.5, end=0.8),)
    assert not missing(params)
    with pytest.raises(ConfigError, match="InvokeAI drew .* by an IP-Adapter; it holds"):
        read_params(png(invokeai_metadata=FLAT | {"ipAdapters": [{"weight": 1}]}))


def test_older_invokeai_is_read() -> None:
    image = {
        "prompt": [{"prompt": "a fox [blurry] in snow", "weight": 1}], "steps": 50, "seed": 7,
        "cfg_scale": 7.5, "height": 512, "width": 640, "sampler": "k_lms", "type": "txt2img",
        "postprocessing": None, "variations": [], "hires_fix": True,
    }  # fmt: skip
    data = {"model": "stable diffusion", "model_weights": "stable-diffusion-1.5", "image": image}
    params = read_params(png(**{"sd-metadata": data, "Dream": '"x" -s 1'}))
    assert (params.prompt, params.negative) == ("a fox in snow", "blurry")
    assert (params.steps, params.seed, params.size) == (50, 7, (512, 640))
    assert (params.sampler, params.spacing) == ("lms", "linspace")
    assert missing(params) == ("hires_fix",)
    dream = '"a \\"fox\\" [blurry]" -s 20 -S 123 -W 512 -H 768 -C 7.5 -A k_euler_a -G 0.8'
    params = read_params(png(Dream=dream))
    assert (params.prompt, params.negative, params.size) == ('a "fox"', "blurry", (768, 512))
    assert (params.sampler, params.spacing, params.seed) == ("euler_ancestral", "karras", 123)
    assert missing(params) == ("-G 0.8",)
    assert questions(params) == {"model"}


# --- Fooocus

FOOOCUS: dict[str, Any] = {
    "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689", "clip_skip": 2, "guidance_scale": 4,
    "full_prompt": ["cinematic still a red fox . emotional", "a red fox, rich"],
    "full_negative_prompt": ["anime, cartoon"], "prompt": "a red fox", "negative_prompt": "",
    "lora_combined_1": "sd_xl_offset.safetensors : 0.1", "metadata_scheme": "fooocus",
    "loras": [["sd_xl_offset.safetensors", 0.1, "4852686128"]], "performance": "Speed",
    "prompt_expansion": "a red fox, rich", "refiner_model": "None", "refiner_switch": 0.5,
    "resolution": "(1152, 896)", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras",
    "seed": "8030711", "sharpness": 2, "steps": 30, "styles": "['Fooocus V2']",
    "vae": "Default (model)", "version": "Fooocus v2.5.5",
}  # fmt: skip


def test_fooocus_is_read() -> None:
    data = png(parameters=FOOOCUS, fooocus_scheme="fooocus")
    params = read_params(data)
    assert params.prompt == (
        "cinematic still a red fox . emotional BREAK a red fox, rich<lora:sd_xl_offset:0.1>"
    )
    assert (params.negative, params.seed, params.steps) == ("anime, cartoon", 8030711, 30)
    assert (params.sampler, params.spacing, params.size) == ("dpmpp_2m_sde", "karras", (896, 1152))
    assert params.model == "juggernautXL_v8Rundiffusion"
    assert missing(params) == (
        "adm_guidance: (1.5, 0.8, 0.3)", "sharpness: 2",
        "the noise that its sampler adds at each step",
    )  # fmt: skip
    found = ParserManager().parse(io.BytesIO(data))
    assert found is not None
    assert found.generator.value == "Fooocus"


def test_the_first_form_of_fooocus_is_read() -> None:
    """Its fields were called as in its log, and it did not say its steps."""
    data = {
        "Prompt": "a fox", "Negative Prompt": "b", "Styles": "['Fooocus V2']", "Seed": 3,
        "Performance": "Quality", "Resolution": "(512, 768)", "Sharpness": 2.0, "Sampler": "euler",
        "Guidance Scale": 4.0, "Base Model": "x.safetensors", "Refiner Model": "None",
        "Scheduler": "karras", "LoRA 1": "fur.safetensors : 0.1", "Version": "v2.1.860",
    }  # fmt: skip
    params = read_params(png(parameters=data))
    assert (params.prompt, params.steps, params.model) == ("a fox<lora:fur:0.1>", 60, "x")
    assert (params.size, params.sampler) == ((768, 512), "euler")
    assert missing(params) == ("sharpness: 2.0", "styles: ['Fooocus V2']")


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_fooocus_in_exif(format) -> None:
    """It puts the user's comment into IFD0, as plain text."""
    exif = Image.Exif()
    exif[0x9286] = json.dumps(FOOOCUS)
    exif[0x0131] = "Fooocus v2.5.5"
    exif[0x927C] = "fooocus"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format, exif=exif)
    assert read_params(buffer.getvalue()) == read_params(png(parameters=FOOOCUS))


@pytest.mark.parametrize(
    ("data", "program"),
    [
        ({"sui_image_params": {"prompt": "a", "model": "x"}}, "SwarmUI"),
        ({"Prompt": "a", "software": "RuinedFooocus"}, "RuinedFooocus"),
        ({"prompt": "a", "steps": 3}, "another program"),
    ],
)
def test_json_of_others_is_named_and_draws_nothing(data, program) -> None:
    with pytest.raises(ConfigError, match=rf"{program} drew .* holds parameters \(JSON: "):
        read_params(png(parameters=data))


# --- NovelAI

NOVELAI: dict[str, Any] = {
    "prompt": "{red} fox, [snow], (eyes)", "steps": 28, "height": 1216, "width": 832,
    "scale": 5.0, "uncond_scale": 1.0, "cfg_rescale": 0.2, "seed": 3656298, "n_samples": 1,
    "noise_schedule": "karras", "sampler": "k_euler_ancestral", "sm": True, "sm_dyn": False,
    "uc": "lowres", "request_type": "PromptGenerateRequest", "signed_hash": "x",
}  # fmt: skip


def novel(**changes: Any) -> bytes:
    return png(
        Title="AI generated image", Description="{red} fox", Software="NovelAI",
        Source="Stable Diffusion XL C1E1DE52", Comment=NOVELAI | changes,
    )  # fmt: skip


def test_novelai_is_read() -> None:
    params = read_params(novel())
    assert params.prompt == r"(red:1.05) fox, (snow:0.9524), \(eyes\)"
    assert (params.negative, params.seed, params.steps) == ("lowres", 3656298, 28)
    assert (params.sampler, params.spacing) == ("euler_ancestral", "karras")
    assert (params.size, params.rescale) == ((1216, 832), 0.2)
    assert missing(params) == (
        "its model (Stable Diffusion XL C1E1DE52)", "the noise of its GPU", "sm",
    )  # fmt: skip
    assert questions(params) == {"model"}
    with pytest.raises(ConfigError, match="NovelAI drew .* a request 'InpaintingRequest'"):
        read_params(novel(request_type="InpaintingRequest"))
    found = ParserManager().parse(io.BytesIO(novel()))
    assert found is not None
    assert found.generator.value == "NovelAI"


# --- words


@pytest.mark.parametrize(
    ("read", "text", "pieces"),
    [
        (of_comfyui, "a [b] AND (c:1.2)", [("a [b] and ", 1), ("c", 1.2)]),
        (of_comfyui, r"\(a\) back\slash BREAK", [(r"(a) back\slash break", 1)]),
        (of_comfyui, "embedding:sub/bad_hands, x", [("bad_hands, x", 1)]),
        (of_invoke, "a-b red++, (c d)- [e] (f", [
            ("a-b ", 1), ("red", 1.21), (", ", 1), ("c d", 0.9), (" [e] (f", 1)]),
        (of_invoke, "(plain) (2)1.5", [("plain ", 1), ("2", 1.5)]),
        (of_novelai, "{{a}} [b] 1.5::c d:: (e)", [
            ("a", 1.1025), (" ", 1), ("b", 0.9524), (" ", 1), ("c d", 1.5), (" (e)", 1)]),
        (of_novelai, "{a 10:30 }] ::", [("a 10:30 ", 1.05), ("] ::", 1)]),
    ],
)  # fmt: skip
def test_words_weigh_as_they_did(read, text, pieces) -> None:
    found = parse_emphasis(read(text))
    assert [piece.text for piece in found] == [words for words, _ in pieces]
    assert [piece.weight for piece in found] == pytest.approx([w for _, w in pieces], rel=1e-3)
    assert all(isinstance(piece, Piece) for piece in found)


@pytest.mark.parametrize(
    "sign", ["(", ")", "+", "-", "{", "[", "1", "1::", "::", "\\", "a++ ", ")."]
)
def test_hostile_words_take_linear_time(sign) -> None:
    for read in (of_comfyui, of_invoke, of_novelai):
        read(sign * 30_000)


JUNK = (None, True, -1, 1.5, 10**400, 1e308, "", "a" * 500, [], {}, [[]], {"a": {}}, float("nan"))


@pytest.mark.parametrize(
    ("reader", "chunk", "whole"),
    [
        (comfyui.read, "prompt", GRAPH["3"]["inputs"]),
        (invokeai.read, "invokeai_metadata", FLAT),
        (fooocus.read, "parameters", FOOOCUS),
        (novelai.read, "Comment", NOVELAI),
    ],
)
def test_odd_values_are_read_or_refused_in_one_line(reader, chunk, whole) -> None:
    for name in whole:
        for junk in JUNK:
            changed = whole | {name: junk}
            data = graph(n3=changed) if chunk == "prompt" else changed
            texts = {chunk: json.dumps(data), "Software": "NovelAI" if chunk == "Comment" else ""}
            try:
                params = reader(texts)
            except ConfigError as error:
                assert "\n" not in str(error)
                assert len(str(error)) < 600
            else:
                assert params is not None
                assert params.sampler or "sampler" in questions(params)
                assert Params.from_plain(json.loads(json.dumps(params.to_plain()))) == params
