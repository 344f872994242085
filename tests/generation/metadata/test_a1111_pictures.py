"""Pictures of A1111 and its relatives: what is read, what is listed, what must be said."""

import io
import json
import struct

import piexif
import pytest
from PIL import Image, PngImagePlugin, features

from darkroom.errors import ConfigError
from darkroom.generation.metadata import Params, UsedNoise, infotext, read_params
from darkroom.generation.metadata.methods import SPACINGS, of_a1111
from darkroom.generation.metadata.pairs import pairs
from darkroom.names import SAMPLER_NAMES, SPACING_NAMES
from darkroom.sampling.table import TABLE

MAIN = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x768, Model: m"


def missing(params: Params) -> tuple[str, ...]:
    assert params.origin is not None
    return params.origin.missing


def questions(params: Params) -> set[str]:
    assert params.origin is not None
    return set(params.origin.questions)


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


# --- samplers and schedules


@pytest.mark.parametrize(
    ("said", "sampler", "spacing"),
    [
        ("Euler a", "euler_ancestral", "linspace"),
        ("LMS Karras", "lms", "karras"),
        ("DPM++ 2M", "dpmpp_2m", "linspace"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"),
        ("DPM++ 3M SDE Karras", "dpmpp_3m_sde", "karras"),
        ("DPM++ SDE Karras", "dpmpp_sde", "karras"),
        ("DPM++ 2S a Karras", "dpmpp_2s", "karras"),
        ("DPM2 a", "dpm2_ancestral", "linspace"),
        ("Euler, Schedule type: Beta", "euler", "beta"),
        ("Euler, Schedule type: SGM Uniform", "euler", "sgm_uniform"),
        ("Euler SGM Uniform", "euler", "sgm_uniform"),
        ("DDIM", "ddim", "leading"),
        ("PLMS", "pndm", "leading"),
        ("LCM", "lcm", ""),
        ("DPM++ 2M, Schedule type: Automatic", "dpmpp_2m", "karras"),
        ("DPM++ 2M SDE, Schedule type: Automatic", "dpmpp_2m_sde", "exponential"),
        ("Euler, Schedule type: Polyexponential", "euler", "exponential"),
        ("Euler, Schedule type: Simple", "euler", "trailing"),
        ("Euler, Schedule type: Turbo", "euler", "trailing"),
        ("Euler, Schedule type: Normal", "euler", "linspace"),
        ("Euler, Schedule type: DDIM", "euler", "leading"),
    ],
)
def test_known_methods_are_ours(said, sampler, spacing) -> None:
    params = infotext.read(f"a\n{MAIN.replace('Euler', said)}")
    assert (params.sampler, params.spacing) == (sampler, spacing)
    assert not questions(params)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Restart", {"sampler"}),
        ("DPM fast", {"sampler"}),
        ("DPM adaptive Karras", {"sampler"}),
        ("DDIM CFG++", {"sampler"}),
        ("Euler a CFG++", {"sampler"}),
        ("Euler, Schedule type: Align Your Steps", {"spacing"}),
        ("Euler, Schedule type: KL Optimal", {"spacing"}),
        ("Restart, Schedule type: Align Your Steps", {"sampler", "spacing"}),
        (", Schedule type: Karras", {"sampler"}),
    ],
)
def test_unknown_methods_are_never_the_default(said, wanted) -> None:
    params = infotext.read(f"a\n{MAIN.replace('Euler', said)}")
    assert questions(params) == wanted


def test_every_row_of_the_table_is_read() -> None:
    for name, row in TABLE.items():
        for label, options in row.a1111.items():
            for said in (f"{label} Karras", f"{label.upper()} karras"):
                method = of_a1111(said, "")
                assert (method.sampler, method.spacing) == (name, "karras")
                assert (method.options, method.questions) == (options, {})
            assert of_a1111(label, "Automatic").spacing == row.automatic
    for spacing, labels in SPACINGS.items():
        for label in labels:
            assert of_a1111("Euler", label).spacing == spacing
    assert set(SPACINGS) == set(SPACING_NAMES)


def test_what_we_write_we_read_as_the_same_method() -> None:
    for sampler in SAMPLER_NAMES:
        for spacing in SPACING_NAMES:
            said = Params(prompt="a", sampler=sampler, spacing=spacing, steps=3, darkroom="1")
            read = infotext.read(infotext.write(said))
            assert (read.sampler, read.spacing, read.origin) == (sampler, spacing, None)


# --- what is not reproduced


def test_a_hires_pass_is_no_image_to_image() -> None:
    hires = "Denoising strength: 0.6, Hires upscale: 2, Hires steps: 5, Hires upscaler: Latent"
    params = infotext.read(f"a\n{MAIN}, {hires}, RNG: CPU")
    assert params.image is None
    assert params.inpaint is None
    assert set(missing(params)) == set(hires.split(", "))
    old = infotext.read(f"a\n{MAIN}, Denoising strength: 0.7, First pass size: 0x0, RNG: CPU")
    assert old.image is None
    plain = infotext.read(f"a\n{MAIN}, Denoising strength: 0.7, RNG: CPU")
    assert plain.image is not None
    assert not missing(plain)


def test_everything_unknown_is_listed_once() -> None:
    changes = (
        "Seed resize from: 512x512, Variation seed: x, RNG: XPU, "
        "Face restoration: CodeFormer, VAE: mse, Token merging ratio: 0.5, Emphasis: Ignore, "
        "Schedule max sigma: 10, NGMS: 4, Some new thing: 3"
    )
    params = infotext.read(f"a\n{MAIN}, {changes}, Tiling: True, Version: v1.10.1")
    assert missing(params) == (*changes.split(", "), "Tiling")


@pytest.mark.parametrize(
    ("said", "noise"),
    [
        ("RNG: CPU", None),
        ("RNG: CPU, ENSD: 0, Variation seed: 3, Variation seed strength: 0", None),
        ("Version: v1.10.1", UsedNoise(source="cuda")),
        ("RNG: GPU", UsedNoise(source="cuda")),
        ("RNG: NV, ENSD: 31337", UsedNoise(source="cuda", later=31337)),
        ("RNG: CPU, Variation seed: 5, Variation seed strength: 0.3",
         UsedNoise(variation=5, strength=0.3)),
    ],
)  # fmt: skip
def test_the_noise_is_drawn_as_it_was(said, noise) -> None:
    params = infotext.read(f"a\n{MAIN}, {said}")
    assert params.noise == noise
    assert not missing(params)
    ours = infotext.write(Params(prompt="a", steps=3, noise=noise, sampler="euler", darkroom="1"))
    assert infotext.read(ours).noise == noise
    sde = infotext.read(f"a\n{MAIN.replace('Euler', 'DPM++ 2M SDE')}, {said}")
    assert missing(sde) == ("the Brownian noise of its sampler",)


@pytest.mark.parametrize(("said", "ours"), [("No norm", "no_norm"), ("None", "none")])
def test_the_weighting_of_words_is_kept(said, ours) -> None:
    params = infotext.read(f"a\n{MAIN}, Emphasis: {said}, RNG: CPU")
    assert params.weighting == ours
    assert not missing(params)
    text = infotext.write(Params(prompt="a", steps=3, weighting=ours, darkroom="1"))
    assert f"Emphasis: {said}" in text
    assert infotext.read(text).weighting == ours


def test_what_does_nothing_is_not_listed() -> None:
    idle = (
        "RNG: CPU, Tiling: False, VAE: Automatic, Emphasis: Original, Clip skip: 2, "
        'Model hash: 6ce0161689, Lora hashes: "fox: abc, b: cd", TI hashes: "x: 12", '
        'Version: v1.10.1, Hashes: {"model": "abc", "vae": "de"}, Face restoration: None'
    )
    params = infotext.read(f"a\n{MAIN}, {idle}")
    assert missing(params) == ()
    assert params.clip_skip == 1


def test_many_settings_of_an_extension_are_one_word() -> None:
    said = ", ".join(f"ADetailer setting{i}: {i}" for i in range(20))
    assert missing(infotext.read(f"a\n{MAIN}, RNG: CPU, {said}")) == ("ADetailer (20 settings)",)


def test_eta_of_ancestral_samplers_is_read() -> None:
    params = infotext.read(f"a\n{MAIN.replace('Euler', 'Euler a')}, Eta: 0.67")
    assert params.options == {"eta": 0.67} and "Eta: 0.67" not in missing(params)
    assert "eta" not in infotext.read(f"a\n{MAIN}, Eta: 0.67").options


def test_the_refiner_and_eta_are_read() -> None:
    text = "Refiner: xl_refiner_1.0.safetensors [7440042bbd], Refiner switch at: 0.7, RNG: CPU"
    params = infotext.read(f"a\n{MAIN}, {text}")
    assert params.refiner is not None
    assert (params.refiner.name, params.refiner.start) == ("xl_refiner_1.0", 0.7)
    assert not missing(params)
    params = infotext.read(f"a\n{MAIN.replace('Euler', 'DDIM')}, Eta DDIM: 0.5, RNG: CPU")
    assert params.options == {"eta": 0.5}
    assert not missing(params)
    assert missing(infotext.read(f"a\n{MAIN}, Eta: 0.5, RNG: CPU")) == ("Eta: 0.5",)


@pytest.mark.parametrize("scale", ["0", "0.5"])
def test_a_scale_below_one_is_kept_and_asked_about(scale) -> None:
    text = f"a\n{MAIN.replace('scale: 7', f'scale: {scale}')}"
    params = infotext.read(text)
    assert params.guidance == float(scale)
    assert questions(params) == {"guidance"}
    off = infotext.read(f"{text}, App: SD.Next")  # diffusers' scale, where 0 is off
    assert off.guidance == float(scale)
    assert not questions(off)


def test_what_the_text_leaves_open_is_asked() -> None:
    assert questions(infotext.read("a\nSteps: 20, Model hash: 1, VAE: x")) == {
        "seed", "guidance", "size", "model", "sampler",
    }  # fmt: skip
    line = "Sampler: Euler, CFG scale: 7, Seed: -1, Size: 512x512, Model: m"
    assert questions(infotext.read(f"a\n{line}")) == {"steps", "seed"}
    assert questions(infotext.read(f"a\n{MAIN.replace('20', '0')}")) == {"steps"}


@pytest.mark.parametrize(
    ("version", "program"),
    [
        ("Version: v1.10.1", "A1111"),
        ("Version: f2.0.1v1.10.1-previous-304-g394da019", "Forge"),
        ("App: SD.Next, Version: 1a2b3c4", "SD.Next"),
        ("Version: ComfyUI", "ComfyUI"),
        ("Version: Fooocus v2.5.5", "Fooocus v2.5.5"),
    ],
)
def test_relatives_are_told_apart(version, program) -> None:
    origin = infotext.read(f"a\n{MAIN}, {version}").origin
    assert origin is not None
    assert origin.program == program


# --- the text itself


def test_prompts_of_several_lines_that_look_like_parameters() -> None:
    prompt = "a sign: Steps: 20, no\n\nSteps: to the sea, Negative prompt: none"
    params = infotext.read(f"{prompt}\nNegative prompt: ugly\nbad, Seed: 3, x: 4\n{MAIN}")
    assert params.prompt == prompt
    assert params.negative == "ugly\nbad, Seed: 3, x: 4"
    assert (params.steps, params.size) == (20, (768, 512))
    assert infotext.read(f"a\n{MAIN}\nNegative prompt: b\n{MAIN.replace('20', '9')}").steps == 9
    assert infotext.read(f"{MAIN}\r\n").prompt == ""


@pytest.mark.parametrize("gap", [",\n", "\n", ",\r\n  "])
def test_parameters_over_several_lines(gap) -> None:
    params = infotext.read(f"a\ncat\nNegative prompt: b\n{MAIN.replace(', ', gap)}")
    assert (params.prompt, params.negative, params.model) == ("a\ncat", "b", "m")
    assert not questions(params)


def test_resources_of_civitai_are_listed() -> None:
    said = [{"type": "checkpoint", "modelVersionId": 1}, {"type": "lora", "modelVersionId": 22,
            "weight": 0.8}]  # fmt: skip
    text = f"a\n{MAIN}, RNG: CPU, Civitai resources: {json.dumps(said)}, Civitai metadata: {{}}"
    assert missing(infotext.read(text)) == ("Civitai's lora 22",)
    assert missing(infotext.read(f"a\n{MAIN}, RNG: CPU, Civitai resources: [[]]")) == (
        "Civitai resources: [[]]",
    )


def test_fooocus_in_the_words_of_a1111() -> None:
    text = (
        f'a\n{MAIN}, Lora hashes: "xl: 4852", Lora weights: "xl: 0.1, b.safetensors: 1", '
        "Raw prompt: a, Performance: Speed, Sharpness: 2, RNG: CPU, Version: Fooocus v2.5.5"
    )
    params = infotext.read(text)
    assert params.prompt == "a<lora:xl:0.1><lora:b:1>"
    assert missing(params) == ("Sharpness: 2",)


def test_old_hypernetworks_and_options_of_unipc_are_read() -> None:
    params = infotext.read(f"a\n{MAIN}, Hypernet: push(ab12cd34), Hypernet strength: 0.5, RNG: CPU")
    assert params.prompt == "a<hypernet:push:0.5>"
    text = MAIN.replace("Euler", "UniPC")
    assert infotext.read(f"a\n{text}").options == {"order": 3, "scale": "bh1"}
    params = infotext.read(f"a\n{text}, UniPC variant: bh2, UniPC order: 2, RNG: CPU")
    assert params.options == {"order": 2, "scale": "bh2"}
    assert not missing(params)


def test_utf_8_in_a_chunk_of_latin_1_is_read() -> None:
    for text, wanted in ((f"ein Bär\n{MAIN}".encode(), "ein Bär"),
                         (f"ein Bär\n{MAIN}".encode("latin-1"), "ein Bär")):  # fmt: skip
        info = PngImagePlugin.PngInfo()
        info.add(b"tEXt", b"parameters\0" + text)
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
        assert read_params(buffer.getvalue()).prompt == wanted


def test_lines_after_the_line_of_parameters() -> None:
    after = "Template: a {red|blue}, big: cat\nNegative Template: b, Seed: 9, x: 1"
    params = infotext.read(f"a cat\n{MAIN}, RNG: CPU\n{after}")
    assert (params.prompt, params.seeds, missing(params)) == ("a cat", (1,), ())
    params = infotext.read(f"a cat\n{MAIN}, RNG: CPU\nNGMS: 3\nWhat: ever")
    assert missing(params) == ("NGMS: 3", "What: ever")


def test_values_with_lines_commas_quotes_and_json() -> None:
    value = 'two\nlines, a "quote": \\ and more'
    text = f'Steps: 3, A key: {json.dumps(value)}, Raw: "one\ntwo", Json: {{"a": [1, 2]}}, B: '
    text += 'x"y, Open: "never closed, C: 1, Bad: [1, 2, D: 4'
    assert dict(pairs(text)) == {
        "Steps": "3",
        "A key": value,
        "Raw": "one\ntwo",
        "Json": '{"a": [1, 2]}',
        "B": 'x"y',
        "Open": '"never closed',
        "C": "1",
        "Bad": "[1",
        "D": "4",
    }


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        '"' * 300_000,
        'a: "' * 70_000,
        'a:"\\",' * 50_000,
        "a: [" * 70_000,
        "a: {" + '"b": {' * 50_000,
        "Steps: 1\n" * 30_000,
        "Steps: 1, a: 1, b\n" * 15_000,
        "\n" * 300_000,
        " " * 300_000,
        "ControlNet 0: " + "[a" * 130_000,
        "Negative prompt:\n" * 50_000,
        "ab: cd, " * 30_000,
    ],
)
def test_hostile_texts_take_linear_time(text) -> None:
    """Each would take hours if it were quadratic."""
    for tried in (text, f"{text}\n{MAIN}", f"{MAIN}, {text}"):
        try:
            infotext.read(tried)
        except ConfigError as error:
            assert "\n" not in str(error)


def test_texts_are_capped() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a" * 1_000_001)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    with pytest.raises(ConfigError, match="has 1,000,001 characters; at most 1,000,000"):
        read_params(buffer.getvalue())


# --- encodings

TEXT = f"ein Bär, 狐 🦊\nNegative prompt: schlecht\n{MAIN}"
WIDE = b"UNICODE\0"


@pytest.mark.parametrize(
    "format",
    [
        "JPEG",
        "WEBP",
        "PNG",
        pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="none")),
    ],
)
@pytest.mark.parametrize(
    "comment",
    [
        WIDE + TEXT.encode("utf-16-be"),
        WIDE + TEXT.encode("utf-16-le"),
        WIDE + b"\xfe\xff" + TEXT.encode("utf-16-be"),
        WIDE + b"\xff\xfe" + TEXT.encode("utf-16-le"),
        WIDE + TEXT.encode(),
        b"ASCII\0\0\0" + TEXT.encode(),
        bytes(8) + TEXT.encode(),
        bytes(8) + TEXT.encode("utf-16-le"),
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        WIDE + TEXT.encode("utf-16-le") + b"\0\0",
    ],
)
def test_comments_of_every_encoding(format, comment) -> None:
    exif = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format, exif=exif)
    params = read_params(buffer.getvalue())
    assert (params.prompt, params.negative) == ("ein Bär, 狐 🦊", "schlecht")


def test_damaged_exif_is_one_line() -> None:
    buffer = io.BytesIO()
    exif = b"Exif\0\0MM\0\xff\0\0\0\x08"
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", exif=exif)
    with pytest.raises(ConfigError, match="its EXIF block is damaged"):
        read_params(buffer.getvalue())


def test_a_text_behind_the_pixels_is_read() -> None:
    data = png(parameters=f"a\n{MAIN}")
    head, chunks, place = data[:8], [], 8
    while place < len(data):
        (length,) = struct.unpack(">L", data[place : place + 4])
        chunks.append(data[place : place + length + 12])
        place += length + 12
    texts = [chunk for chunk in chunks if chunk[4:8] == b"iTXt"]
    rest = [chunk for chunk in chunks if chunk[4:8] != b"iTXt"]
    moved = b"".join((head, *rest[:-1], *texts, rest[-1]))
    assert read_params(moved) == read_params(data)


def test_other_texts_are_named() -> None:
    with pytest.raises(ConfigError, match=r"its texts: Title, Data \(JSON: a, b\)"):
        read_params(png(Title="x", Data='{"a": 1, "b": 2}'))
