"""``darkroom control`` on a tiny real model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import darkroom as dr
import oracles
from darkroom.generation.metadata import UsedAnnotator, read_params
from darkroom.models.control.controlnet import ControlNet

FAST = ("--steps", "2")
SIZE = ("--size", "48x48")


@pytest.fixture
def line(darkroom, model_folder):
    """The flags for the tiny model and a random network for it; a photograph lies beside."""
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    small.resize((64, 64)).save("photo.png")
    model = dr.load(model_folder, device="cpu")
    net = ControlNet.from_unet(model.unet, model.autoencoder.factor).eval()
    oracles.randomize(net)
    dr.save(net, "net")
    return ("--model", str(model_folder), "--net", "net")


def test_a_photograph_s_edges_and_the_same_again(darkroom, line):
    options = ("--kind", "canny", "--low", "10", "--high", "250")
    act = ("--weight", "0.5", "--end", "0.9", "--save-hint", "h.png", "--seed", "7")
    ended = darkroom("control", "photo.png", "a cat", *line, *FAST, *options, *act)
    assert ended.code == 0, ended.error
    drawn = ended.out.strip()
    (used,) = read_params(drawn).controls
    assert (used.net, used.weight, used.end) == ("net", 0.5, 0.9)
    assert used.annotator == UsedAnnotator(kind="canny", options={"low": 10, "high": 250})
    for said, name in (((), "b.png"), (options, "d.png")):  # what drew the hint is in the picture
        ended = darkroom("control", "photo.png", *line, *said, "--from", drawn, "--out", name)
        assert ended.code == 0, ended.error
        assert Image.open(name).tobytes() == Image.open(drawn).tobytes()
    ended = darkroom("control", "--hint", "h.png", *line, "--from", drawn, "--out", "c.png")
    assert ended.code == 0, ended.error
    assert Path("c.png").read_bytes() == Path("b.png").read_bytes()


def test_another_hint_with_from_is_refused_or_said(darkroom, line, model_folder, monkeypatch):
    start = ("--seed", "7", "--out", "a.png", "--low", "10")
    assert darkroom("control", "photo.png", "a cat", *line, *FAST, *start).code == 0
    Image.open("photo.png").rotate(90).save("other.png")
    monkeypatch.setenv("DARKROOM_MODELS", str(model_folder.parent))
    again = ("--from", "a.png")
    ended = darkroom("control", "other.png", *again)
    assert "the hint is not the one that the picture was drawn after" in ended.error
    note = "b.png: the hint is not the one that the picture was drawn after"
    ended = darkroom("control", "other.png", *again, "--seed", "8", "--out", "b.png")
    assert ended.code == 0, ended.error
    assert note in ended.err
    for name, said in (("c.png", ("--low", "90")), ("d.png", ("--seed", "8")), ("e.png", SIZE)):
        ended = darkroom("control", "photo.png", *again, *said, "--out", name)
        assert ended.code == 0, ended.error
        assert "is not the one" not in ended.err
    (used,) = read_params("c.png").controls
    assert used.annotator == UsedAnnotator(kind="canny", options={"low": 90, "high": 200})
    ended = darkroom("control", "photo.png", *again, "--kind", "scribble", "--low", "9")
    assert "an option of canny, not of scribble" in ended.error
    ended = darkroom("generate", *again)
    assert "say darkroom control PHOTO --from PICTURE" in ended.error


def test_a_hint_of_the_web_ui_that_we_cannot_draw(darkroom, line):
    text = (
        "a cat\nSteps: 2, Sampler: DDIM, CFG scale: 4, Seed: 1, Size: 64x64, "
        'ControlNet 0: "Module: lineart, Model: net, Weight: 1"'
    )
    tags = PngImagePlugin.PngInfo()
    tags.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save("a.png", pnginfo=tags)
    again = ("control", "photo.png", *line, "--from", "a.png")
    assert "drawn by 'lineart', which is not among canny" in darkroom(*again).error
    ended = darkroom(*again, "--kind", "scribble")
    assert ended.code == 0, ended.err


def test_two_nets_and_hints(darkroom, line):
    hints = ("--hint", "photo.png", "--hint", "photo.png", "--net", "net", "--guess")
    ended = darkroom("control", "a cat", *line, *hints, *FAST, "--weight", "1", "--weight", "0.2")
    assert ended.code == 0, ended.error
    used = read_params(ended.out.strip()).controls
    assert [(one.weight, one.guess) for one in used] == [(1.0, True), (0.2, True)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("photo.png", "a cat", "--kind", "cany"), "did you mean 'canny'"),
        (("a cat", "--hint", "photo.png", "--kind", "canny"), "no effect without a PHOTO"),
        (("photo.png", "a cat", "--kind", "hed", "--low", "3"), "an option of canny"),
        (("photo.png", "a cat", "--weight", "1", "--weight", "2"), "give one for all 1 nets"),
        (("missing.png", "a cat"), "missing.png"),
    ],
)
def test_flags_that_do_not_fit(darkroom, line, flags, message):
    ended = darkroom("control", *flags, *line, *FAST)
    assert ended.code != 0
    assert message in ended.error


def test_a_start_adapters_a_style_and_a_refiner(darkroom, line, adapters, model_folder):
    """Every one is in the picture, which is drawn again bit for bit."""
    Image.open("photo.png").resize((96, 96)).rotate(90).save("start.png")
    start = ("--image", "start.png", "--strength", "0.75")
    last = ("--refiner", model_folder, "--refiner-start", "0.5")
    ended = darkroom(
        *("control", "photo.png", "a thing", *line, "--steps", "4", "--seed", "3"),
        *(*adapters, *start, *last, "--style", "cinematic", "--out", "a.png"),
    )
    assert ended.code == 0, ended.err
    params = read_params("a.png")
    assert params.image is not None
    assert params.image.strength == 0.75
    assert [used.name for used in params.embeddings] == ["thing"]
    assert [used.name for used in params.hypernetworks] == ["push"]
    assert params.styles == ("cinematic",)
    assert params.refiner is not None
    assert params.refiner.start == 0.5
    assert len(params.controls) == 1
    again = ("control", "photo.png", *line, "--from", "a.png", "--refiner", model_folder)
    ended = darkroom(*again, "--image", "start.png", *adapters[:2], "--out", "b.png")
    assert ended.code == 0, ended.err
    assert Image.open("b.png").tobytes() == Image.open("a.png").tobytes()
    assert "give --image FILE" in darkroom(*again).error
    ended = darkroom("control", "photo.png", "a", *line, "--strength", "0.5")
    assert "no effect without --image" in ended.error
