"""``--from`` a picture of another program, or of a stranger."""

import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from darkroom.generation.metadata import read_params

LINE = "Steps: 2, Sampler: {}, CFG scale: {}, Seed: 7, Size: 64x64, Model: {}"


def picture(name: str, **texts: object) -> str:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text if isinstance(text, str) else json.dumps(text))
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


def a1111(name: str, sampler="Euler", scale="4", model="x", more="", negative="") -> str:
    line = LINE.format(sampler, scale, model) + more
    return picture(name, parameters=f"a cat{negative and f'{chr(10)}Negative prompt: '}{negative}"
                   f"\n{line}")  # fmt: skip


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_an_unknown_sampler_is_said_by_the_user(darkroom, model_folder):
    name = a1111("a.png", "Restart", more=", Schedule type: Align Your Steps")
    line = ("generate", "--from", name, "--model", model_folder, "--out", "o.png")
    ended = darkroom(*line)
    assert ended.code == 2
    assert (
        "drawn by A1111, and its sampler 'Restart' is none of Darkroom's; its noise schedule "
        "'Align Your Steps' is none of Darkroom's; say --sampler NAME and --spacing NAME"
    ) in ended.error
    assert "'Restart'" not in (error := darkroom(*line, "--sampler", "euler")).error
    assert error.code == 2
    ended = darkroom(*line, "--sampler", "heun", "--spacing", "karras")
    assert ended.code == 0, ended.err
    params = read_params("o.png")
    assert (params.sampler, params.spacing, params.origin) == ("heun", "karras", None)


def test_one_note_lists_what_is_not_reproduced(darkroom, model_folder):
    more = (
        ", Hires upscale: 2, Hires upscaler: Latent, Denoising strength: 0.6, Variation seed: 5, "
        "Variation seed strength: 0.3, ENSD: 31337, Tiling: True, Face restoration: GFPGAN"
    )
    name = a1111("a.png", "Euler a", more=more, negative="dog")
    ended = darkroom("generate", "--from", name, "--model", model_folder, "--count", "2", "--json")
    assert ended.code == 0, ended.err
    note = (
        "drawn by A1111; drawn again with the noise of an NVIDIA GPU (RNG: GPU), Variation seed: 5 "
        "at 0.3, ENSD: 31337; not reproduced: Hires upscale: 2, Hires upscaler: Latent, Denoising "
        "strength: 0.6, Tiling, Face restoration: GFPGAN"
    )
    assert ended.err.count("not reproduced") == 1
    assert f"--from: {note}" in ended.err.replace("\n", " ")
    assert ended.answer["notes"] == [note]
    params = read_params(ended.answer["pictures"][0]["path"])
    assert (params.prompt, params.negative, params.size) == ("a cat", "dog", (64, 64))
    assert (params.seeds, params.sampler, params.image) == ((7, 8), "euler_ancestral", None)


def test_a_picture_of_a1111_is_drawn_as_flags_would_draw_it(darkroom, model_folder):
    name = a1111("a.png", "DPM++ 2M Karras", scale="5", more=", RNG: CPU")
    darkroom("generate", "--from", name, "--model", model_folder, "--out", "a/b.png")
    darkroom(
        *("generate", "a cat", "--model", model_folder, "--steps", "2", "--sampler", "dpmpp_2m"),
        *("--spacing", "karras", "--guidance", "5", "--seed", "7", "--size", "64x64"),
        *("--out", "a/c.png"),
    )
    assert pixels("a/b.png") == pixels("a/c.png")


def test_guidance_below_one_and_open_fields_are_errors(darkroom, model_folder):
    name = a1111("a.png", scale="0")
    ended = darkroom("generate", "--from", name, "--model", model_folder)
    assert ended.code == 2
    assert "its CFG scale 0 follows the negative prompt" in ended.error
    assert "say --guidance X" in ended.error
    line = ("generate", "--from", name, "--model", model_folder, "--guidance", "1")
    assert darkroom(*line, "--out", "o.png").code == 0
    assert read_params("o.png").guidance == 1.0
    name = picture("b.png", parameters="a\nSteps: 2, Sampler: Euler, CFG scale: 3")
    ended = darkroom("generate", "--from", name)
    assert ended.code == 2
    assert "say --seed N, --size WxH and --model NAME|PATH" in ended.error


def test_a_plain_graph_of_comfyui_is_drawn(darkroom, model_folder):
    graph = {
        "3": {"class_type": "KSampler", "inputs": {
            "seed": 7, "steps": 2, "cfg": 4, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
            "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.ckpt"}},
        "5": {"class_type": "EmptyLatentImage",
              "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
    }  # fmt: skip
    name = picture("c.png", prompt=graph)
    ended = darkroom("generate", "--from", name)
    assert ended.code == 3
    assert "the picture was drawn by 'v1-5', which is not found" in ended.error
    line = ("generate", "--from", name, "--model", model_folder, "--out", "o.png")
    assert darkroom(*line).code == 0
    assert read_params("o.png").prompt == "a cat"
    name = picture("d.png", prompt=graph | {"8": graph["3"]})
    ended = darkroom("generate", "--from", name, "--model", model_folder)
    assert ended.code == 2
    assert ended.error.startswith("error: ComfyUI drew the picture with a graph")


def test_inspect_says_whose_picture_it_is(darkroom):
    ended = darkroom("inspect", a1111("a.png", "DPM fast", more=", NGMS: 3"))
    lines = dict(line.split("\t") for line in ended.out.splitlines() if "\t" in line)
    assert lines["drawn by"] == "A1111"
    assert lines["not reproduced"] == "NGMS: 3"
    assert lines["to be decided"] == "its sampler 'DPM fast' is none of Darkroom's"
    ended = darkroom("inspect", picture("b.png", workflow={"nodes": [{"type": "KSampler"}]}))
    assert ended.code == 0
    assert "ComfyUI drew the picture; its chunk 'workflow' holds" in ended.out


def test_inspect_shows_no_strangers_escapes(darkroom):
    line = LINE.format("Euler", 3, "m\x1b[31m")
    ended = darkroom("inspect", picture("a.png", parameters=f"a\x1b[2J cat\n{line}, K: \x1b[0m"))
    assert "a?[2J cat" in ended.out
    assert "\x1b" not in ended.out


OURS = {"prompt": "a", "seeds": [1], "steps": 2, "size": [64, 64], "sampler": "euler"}


@pytest.mark.parametrize(
    ("changes", "what", "flag"),
    [
        ({"model": "hf:evil/model"}, "model 'hf:evil/model'", "--model"),
        ({"model": "runwayml/stable-diffusion-v1-5"}, "model 'runwayml/", "--model"),
        ({"model": "emoji", "refiner": {"name": "hf:e/r", "start": 0.5}}, "'hf:e/r'", "--refiner"),
        ({"model": "emoji", "embeddings": [{"name": "hf:e/t:t.pt"}]}, "textual", "--embedding"),
        ({"model": "emoji", "loras": [{"name": "hf:e/l:l.pt"}]}, "LoRA 'hf:e/l", "--lora"),
        ({"model": "emoji", "hypernetworks": [{"name": "hf:e/h"}]}, "'hf:e/h'", "--hypernetwork"),
        ({"model": "https://evil/x"}, "model 'https://evil/x'", "--model"),
    ],
)
def test_a_stranger_reaches_no_network(darkroom, monkeypatch, changes, what, flag):
    def connect(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", connect)
    name = picture("x.png", darkroom=OURS | changes)
    ended = darkroom("generate", "--from", name, "--out", "o")
    assert ended.code == 2
    assert what in ended.error
    assert f"{flag} yourself" in ended.error
    assert "--allow-remote" in ended.error
    assert not Path("o").exists()


def test_a_strangers_nets_and_encoders_reach_no_network(darkroom):
    Image.new("RGB", (64, 64)).save("photo.png")
    drawn = OURS | {"model": "emoji"}
    control = {"net": "hf:e/net", "annotator": {"kind": "canny"}}
    name = picture("x.png", darkroom=drawn | {"controls": [control]})
    ended = darkroom("control", "photo.png", "--from", name)
    assert "the remote control network 'hf:e/net'" in ended.error
    control = {"net": "emoji-edges", "annotator": {"kind": "hed"}}
    name = picture("y.png", darkroom=drawn | {"controls": [control]})
    ended = darkroom("control", "photo.png", "--from", name)
    assert "the remote annotator 'hf:" in ended.error
    selected = {"text": "dog", "segmenter": "hf:e/sam"}
    name = picture("z.png", darkroom=drawn | {"inpaint": {"selected": selected}})
    ended = darkroom("edit", "photo.png", "--from", name)
    assert "the remote segmenter 'hf:e/sam'" in ended.error


def test_a_huge_batch_is_drawn_alone(darkroom, model_folder):
    name = picture("x.png", darkroom=OURS | {"seeds": [*range(9000)], "index": 9})
    ended = darkroom("generate", "--from", name, "--model", model_folder, "--out", "o.png")
    assert ended.code == 0, ended.err
    assert "one of a batch of 9,000; it is drawn alone" in ended.err.replace("\n", " ")
    params = read_params("o.png")
    assert (params.seeds, params.index) == ((9,), 0)
