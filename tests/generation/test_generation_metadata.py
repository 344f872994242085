"""Parameters in picture files: what we write, others read; what others wrote, we read."""

import io
import json
import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import piexif
import piexif.helper
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager

from darkroom.errors import ConfigError
from darkroom.generation.metadata import (
    Origin,
    Params,
    SourceImage,
    UsedAnnotator,
    UsedControl,
    UsedNoise,
    infotext,
    read_params,
)
from darkroom.generation.picture import Picture
from darkroom.images import ImageError

FORMATS = ("png", "jpg", "webp")
FULL = Params(
    prompt='a red fox, (sharp:1.2) "quoted"',
    negative="blurry, bad: hands",
    seeds=(7, 8, 2**63),
    index=1,
    steps=30,
    sampler="dpmpp_2m",
    spacing="karras",
    options={"order": 2},
    size=(512, 640),
    guidance=7.5,
    rescale=0.25,
    interval=(0.1, 0.9),
    image=SourceImage(sha256="ab" * 32, strength=0.6),
    model="v1-5-pruned",
    family="sd1",
    fingerprint="0123456789abcdef",
    dtype="float32",
    device="cpu",
    threads=2,
    notes=("decoded again in float32",),
    darkroom="0.1.0",
    torch="2.13.0",
)
PROMPTS = ("a fox", "ein Bär: süß, 100 %", "狐と🦊", "two\nlines", "", "Steps: 3", 'a "b" \\c')


def pixels(height: int = 48, width: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_our_own_parameters_come_back_whole(tmp_path, format, prompt) -> None:
    params = Params.from_plain({**FULL.to_plain(), "prompt": prompt, "negative": prompt or None})
    path = Picture(pixels(), params).save(tmp_path / f"x.{format}")
    assert read_params(path) == params
    assert read_params(path.read_bytes()) == params
    with Image.open(path) as opened:
        assert read_params(opened) == params


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prompt", ["a fox, (sharp:1.2)", "狐と🦊", "two\nlines"])
def test_sd_parsers_reads_it(tmp_path, format, prompt) -> None:
    params = Params.from_plain({**FULL.to_plain(), "prompt": prompt})
    path = Picture(pixels(), params).save(tmp_path / f"x.{format}")
    found = ParserManager().parse(str(path))
    assert found is not None
    sampler = found.samplers[0]
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters["seed"] == "8"
    assert sampler.parameters["cfg_scale"] == "7.5"
    assert sampler.parameters["steps"] == "30"
    assert sampler.parameters["scheduler"] == "Karras"
    assert sampler.model is not None
    assert sampler.model.name == "v1-5-pruned"
    assert [p.value for p in sampler.prompts] == [prompt]
    assert [p.value for p in sampler.negative_prompts] == ["blurry, bad: hands"]


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_piexif_reads_the_user_comment(tmp_path, format) -> None:
    """piexif is what the web UI reads with; it refuses the tag as Pillow writes it."""
    params = Params.from_plain({**FULL.to_plain(), "prompt": "a 狐🦊"})
    path = Picture(pixels(), params).save(tmp_path / f"x.{format}")
    tags = piexif.load(str(path))
    text = piexif.helper.UserComment.load(tags["Exif"][piexif.ExifIFD.UserComment])
    assert text == infotext.write(params)
    assert tags["0th"][piexif.ImageIFD.Software] == b"Darkroom 0.1.0"


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_what_piexif_wrote_is_read(tmp_path, format) -> None:
    text = infotext.write(FULL)
    comment = piexif.helper.UserComment.dump(text, encoding="unicode")
    exif = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})
    path = tmp_path / f"x.{format}"
    pixels().save(path, exif=exif)
    assert read_params(path) == infotext.read(text)


WEB_UI_READER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_text_follows_the_grammar_of_the_web_ui(prompt) -> None:
    """The web UI's rule: the last line must hold at least three pairs."""
    params = Params.from_plain({**FULL.to_plain(), "prompt": prompt, "model": 'my: "model", v1'})
    *lines, last = infotext.write(params).split("\n")
    pairs = dict(WEB_UI_READER.findall(last))
    assert len(pairs) >= 3
    assert pairs["Size"] == "640x512"
    assert pairs["RNG"] == "CPU"
    assert pairs["Schedule type"] == "Karras"
    assert pairs["Denoising strength"] == "0.6"
    assert json.loads(pairs["Model"]) == 'my: "model", v1'
    assert "Negative prompt: blurry, bad: hands" in lines


def test_a_text_of_the_web_ui_is_read() -> None:
    found = infotext.read(
        "a house, (big:1.3)\nsecond line\nNegative prompt: ugly,\nbad\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 768x512, "
        'Model hash: fe4efff1e1, Model: "sd, v1", Denoising strength: 0.7, Version: v1.10.1'
    )
    assert found == Params(
        prompt="a house, (big:1.3)\nsecond line",
        negative="ugly,\nbad",
        seeds=(965400086,),
        steps=20,
        sampler="dpmpp_2m",
        spacing="karras",
        size=(512, 768),
        guidance=7.0,
        model="sd, v1",
        image=SourceImage(sha256="", strength=0.7),
        noise=UsedNoise(source="cuda"),
        origin=Origin(program="A1111"),
    )


CONTROLS = (
    UsedControl(
        net="models/control_v11p_sd15_canny.pth", weight=0.5, start=0.1, end=0.75,
        annotator=UsedAnnotator(kind="canny", options={"low": 10.0, "high": 250.0}),
    ),
    UsedControl(
        net="hf:owner/depth", guess=True,
        annotator=UsedAnnotator(kind="depth", options={"resolution": 384}),
    ),
    UsedControl(net="a: b, c.safetensors"),
)  # fmt: skip


def test_controls_are_said_as_the_extension_says_them() -> None:
    """It splits at commas, then at colons; so must we be able to read it."""
    params = Params.from_plain({**FULL.to_plain(), "image": None})
    text = infotext.write(replace(params, controls=CONTROLS))
    units = [json.loads(value) for key, value in WEB_UI_READER.findall(text.split("\n")[-1])
             if key.startswith("ControlNet")]  # fmt: skip
    assert units[0] == (
        "Module: canny, Model: control_v11p_sd15_canny, Weight: 0.5, Resize Mode: Crop and Resize, "
        "Threshold A: 10, Threshold B: 250, Guidance Start: 0.1, Guidance End: 0.75, "
        "Pixel Perfect: True, Control Mode: Balanced"
    )
    assert "Processor Res: 384, " in units[1]
    assert "Control Mode: ControlNet is more important" in units[1]
    for unit in units:
        assert all(len(item.strip().split(": ")) == 2 for item in unit.split(","))
    names = ["control_v11p_sd15_canny", "depth", "a_ b_ c"]
    read = infotext.read(text).controls
    assert read == tuple(replace(c, net=n) for c, n in zip(CONTROLS, names, strict=True))


def test_controls_of_the_web_ui_are_read() -> None:
    unit = (
        "Module: {}, Model: control_v11p_sd15_scribble [d4ba51ff], Weight: 1.34, Resize Mode: Just "
        "Resize, Low Vram: False, Processor Res: 512, Threshold A: 64, Guidance Start: 0, "
        "Guidance End: 1, Pixel Perfect: False, Control Mode: Balanced, Hr Option: Both"
    )
    kinds = ("scribble_xdog", "scribble_hed", "lineart", "none", "None")
    said = [f"ControlNet {i}: {json.dumps(unit.format(kind))}" for i, kind in enumerate(kinds)]
    controls = infotext.read("a\nSteps: 20, Sampler: LMS, " + ", ".join(said)).controls
    assert {(c.net, c.weight) for c in controls} == {("control_v11p_sd15_scribble", 1.34)}
    assert [c.annotator for c in controls] == [
        UsedAnnotator(kind="scribble", options={"threshold": 64.0, "resolution": 512}),
        UsedAnnotator(kind="scribble_hed"),  # with a network; we would draw it without
        UsedAnnotator(kind="lineart"),
        None,
        None,
    ]


def test_controls_of_older_extensions_are_read() -> None:
    canny = UsedAnnotator(kind="canny", options={"low": 100.0, "high": 200.0})
    wanted = (UsedControl(net="x", weight=0.5, start=0.1, end=0.9, annotator=canny),)
    old = (
        'ControlNet 0: "preprocessor: canny, model: x [d14c016b], weight: 0.5, '
        'starting/ending: (0.1, 0.9), preprocessor params: (512, 100, 200)"'
    )
    flat = (
        "ControlNet Enabled: True, ControlNet Preprocessor: canny, ControlNet Model: x [d14c016b], "
        "ControlNet Weight: 0.5, ControlNet Starting Step: 0.1, ControlNet Ending Step: 0.9, "
        'ControlNet Preprocessor Parameters: "(512, 100, 200)"'
    )
    for text in (old, flat, flat.replace("ControlNet ", "ControlNet-0 ")):
        found = infotext.read(f"a\nSteps: 20, Sampler: LMS, Seed: 1, {text}")
        assert found.controls == wanted
        assert found.origin is not None
        assert not found.origin.missing


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text) -> None:
    try:
        infotext.read(text)
    except ConfigError as error:
        assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=300))
@example("\u00c3\u00a9")  # Latin-1 that would be UTF-8, too
def test_any_prompt_survives_the_file(prompt) -> None:
    prompt = prompt.replace("\0", "")
    params = Params.from_plain({**FULL.to_plain(), "prompt": prompt})
    for format in ("PNG", "WEBP"):
        assert read_params(Picture(pixels(8, 8), params).to_bytes(format)) == params


@pytest.mark.parametrize("format", FORMATS)
def test_provenance_can_be_switched_off(tmp_path, format) -> None:
    picture = Picture(pixels(), FULL)
    marked = picture.save(tmp_path / f"marked.{format}").read_bytes()
    plain = picture.save(tmp_path / f"plain.{format}", mark=False).read_bytes()
    bare = picture.save(tmp_path / f"bare.{format}", mark=False, describe=False).read_bytes()
    kind = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert kind in marked
    assert b"Darkroom 0.1.0" in marked
    assert kind not in plain
    assert b"Software" not in plain
    assert read_params(plain) == FULL
    assert b"fox" not in bare
    with pytest.raises(ConfigError, match="no generation parameters"):
        read_params(bare)


def test_pixels_are_kept(tmp_path) -> None:
    picture = Picture(pixels(), FULL)
    for name in ("x.png", "x.webp"):
        with Image.open(picture.save(tmp_path / name, quality=100)) as opened:
            assert np.array_equal(np.array(opened.convert("RGB")), np.array(pixels()))
    assert Image.open(io.BytesIO(picture._repr_png_())).format == "PNG"


def test_saving_is_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "x.png"
    Picture(pixels(), FULL).save(path)
    before = path.read_bytes()
    broken = Picture(pixels(), Params.from_plain({**FULL.to_plain(), "prompt": long_text(10**6)}))
    with pytest.raises(ConfigError, match="at most 60,000 fit"):
        broken.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    assert broken.save(path, describe=False) == path
    with pytest.raises(ConfigError, match="ends in .png"):
        broken.save(tmp_path / "x.bmp")


@pytest.mark.parametrize("format", FORMATS)
def test_a_long_prompt_fits(format) -> None:
    params = Params.from_plain({**FULL.to_plain(), "prompt": long_text(20_000)})
    data = Picture(pixels(), params).to_bytes(format)
    assert read_params(data) == params
    assert len(data) - len(Picture(pixels(), params).to_bytes(format, describe=False)) < 64_000


def long_text(length: int) -> str:
    """Hard to compress."""
    letters = np.random.default_rng(1).integers(33, 127, length, dtype=np.uint8)
    return letters.tobytes().decode().replace("<", "a")


def test_hostile_metadata_is_one_error() -> None:
    def png(key: str, text: str) -> bytes:
        info = PngImagePlugin.PngInfo()
        info.add_itxt(key, text)
        buffer = io.BytesIO()
        pixels().save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()

    plain = FULL.to_plain()
    for text in (
        json.dumps({**plain, "format": 99}),
        json.dumps({**plain, "unknown": 1}),
        json.dumps({**plain, "steps": "30"}),
        json.dumps({**plain, "index": 3}),
        json.dumps({**plain, "seeds": []}),
        json.dumps({"prompt": 1}),
        "[1]",
        "{",
    ):
        with pytest.raises(ConfigError):
            read_params(png("darkroom", text))
    for data in (b"", b"no picture", png("a", "b")[:60], Picture(pixels(), FULL).to_bytes()[:20]):
        with pytest.raises((ImageError, ConfigError)):
            read_params(data)


def test_a_compressed_bomb_is_not_unpacked() -> None:
    bomb = b"Darkroom\0" + zlib.compress(b" " * 50_000_000, 9)
    exif = piexif.dump({"Exif": {piexif.ExifIFD.MakerNote: bomb}})
    buffer = io.BytesIO()
    pixels().save(buffer, "WEBP", exif=exif)
    with pytest.raises(ConfigError, match="no generation parameters"):
        read_params(buffer.getvalue())


def test_too_many_pixels_are_refused_by_the_header() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">LLBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match="50 million pixels"):
        read_params(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
