"""Every example runs, on tiny models."""

import inspect
import io
import json
import re
import runpy
import subprocess
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
from cases import quick
from vision import things
from weights import tiny

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
EMOJI = ROOT / "src" / "darkroom" / "assets" / "emoji" / "model_index.json"
built_in = pytest.mark.skipif(not EMOJI.is_file(), reason="the built-in model is not there yet")


@pytest.fixture(scope="module")
def sd1(tmp_path_factory) -> Path:
    return tiny.save(tiny.sd1(), tmp_path_factory.mktemp("sd1"))


def example(name: str) -> Callable[..., None]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def pixels(picture: Any) -> np.ndarray:
    image = Image.open(picture) if isinstance(picture, Path) else picture
    return np.asarray(image.convert("RGB")).astype(int)


def test_deep_dive_is_what_develop_does(sd1, tmp_path):
    example("deep_dive")(model=str(sd1), prompt="the cat", out=tmp_path)
    model = dr.load(sd1, dtype="float32", device="cpu")
    guidance = dr.Guidance(7.5, negative="")
    expected = dr.develop(model, "the cat", guidance, seeds=[32], steps=30, sampler="lms")
    drawn = pixels(tmp_path / "deep_dive.png")
    assert drawn.std() > 1
    assert np.abs(drawn - pixels(expected[0].image)).max() <= 1  # rounding of floats


def test_deep_dive_takes_at_most_30_lines():
    source = (EXAMPLES / "deep_dive.py").read_text()
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    blank |= {tokenize.ENDMARKER, tokenize.ENCODING}
    tokens = list(tokenize.tokenize(io.BytesIO(source.encode()).readline))
    docstring = next(token for token in tokens if token.type == tokenize.STRING)
    code = {token.start[0] for token in tokens if token.type not in blank}
    code -= set(range(docstring.start[0], docstring.end[0] + 1))
    assert 20 < len(code) <= 30


def test_step_by_step_saves_every_nth_estimate(sd1, tmp_path):
    example("step_by_step")(model=str(sd1), out=tmp_path, steps=5, every=2)
    names = sorted(path.name for path in tmp_path.glob("step_0*.png"))
    assert names == ["step_000.png", "step_002.png", "step_004.png", "step_005.png"]  # 6 calls
    sheet = pixels(tmp_path / "step_by_step.png")
    assert sheet.shape == (128, 128, 3)
    first, last = (pixels(tmp_path / name) for name in (names[0], names[-1]))
    assert np.array_equal(sheet[:64, :64], first)
    assert np.array_equal(sheet[64:, 64:], last)
    assert not np.array_equal(first, last)


def test_swap_sampler_draws_one_picture_each(sd1, tmp_path):
    names = runpy.run_path(str(EXAMPLES / "swap_sampler.py"))["SAMPLERS"]
    example("swap_sampler")(model=str(sd1), out=tmp_path, steps=3)
    drawn = {name: pixels(tmp_path / f"{name}.png").tobytes() for name in names}
    assert len(set(drawn.values())) == len(names)
    for name in names:
        described = json.loads(Image.open(tmp_path / f"{name}.png").text["darkroom"])
        assert described["sampler"] == name
    assert pixels(tmp_path / "swap_sampler.png").shape == (192, 192, 3)


def test_unconditional_is_what_diffusers_draws(tmp_path):
    with tiny.seeded(4):
        unet = diffusers.UNet2DModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
    folder = tmp_path / "model"
    tiny.shaken(unet).save_pretrained(folder)
    scheduler = diffusers.DDPMScheduler()
    scheduler.save_pretrained(folder)

    example("unconditional")(model=str(folder), out=tmp_path, steps=10, every=5)
    names = {path.name for path in tmp_path.glob("unconditional_*.png")}
    assert names == {f"unconditional_{i:04d}.png" for i in (0, 5, 9)}

    pipeline = diffusers.DDPMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    (expected,) = pipeline(generator=generator, num_inference_steps=10).images
    assert np.abs(pixels(tmp_path / "unconditional.png") - pixels(expected)).max() <= 1


@pytest.mark.parametrize("model", ["tiny", "emoji-clip"])
def test_eight_pictures_and_their_descriptions(model, tmp_path, capsys):
    if model == "tiny":
        model = str(things.encoder().save(tmp_path / "model"))
    elif not (EMOJI.parents[1] / model).is_dir():
        pytest.skip("the built-in encoder is not there yet")
    example("similarity_matrix")(model=model, out=tmp_path)
    assert pixels(tmp_path / "similarity_matrix.png").shape > (700, 700, 3)
    assert "of 8 descriptions" in capsys.readouterr().out


@pytest.mark.slow
def test_examples_are_programs(sd1, tmp_path):
    command = [sys.executable, EXAMPLES / "step_by_step.py", "--model", sd1, "--out", tmp_path]
    command += ["--steps", "2", "--prompt", "the cat"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "step_by_step.png").is_file()


@built_in
@pytest.mark.parametrize(
    "name", quick(["deep_dive", "step_by_step"], ["deep_dive", "step_by_step", "swap_sampler"])
)
def test_examples_run_as_they_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example(name)()
    assert pixels(tmp_path / "pictures" / f"{name}.png").std() > 10


def test_every_example_is_tested():
    tested = set(re.findall(r'example\("(\w+)"\)', Path(__file__).read_text()))
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}


def test_every_example_takes_a_model_and_a_folder():
    for path in EXAMPLES.glob("*.py"):
        parameters = inspect.signature(example(path.stem)).parameters
        assert isinstance(parameters["model"].default, str)
        assert parameters["out"].default == Path("pictures")
