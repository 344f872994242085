"""Every script for a figure of the book runs, on tiny models and tiny runs."""

import inspect
import re
import runpy
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.names import SAMPLER_NAMES, SPACING_NAMES
from darkroom.recipes import mnist
from darkroom.training.fit import FitOptions
from weights import tiny

FIGURES = Path(__file__).parents[1] / "examples" / "figures"
TITLE, GAP = 14, 4  # of labelled_grid


def figure(name: str) -> Callable[..., None]:
    return runpy.run_path(str(FIGURES / f"{name}.py"))["main"]


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def curves(path: Path) -> int:
    return len([n for n in ET.parse(path).iter() if n.tag.endswith("polyline")])


@pytest.fixture(scope="module")
def sd1(tmp_path_factory) -> str:
    return str(tiny.save(tiny.sd1(), tmp_path_factory.mktemp("sd1")))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """MNIST's four files, with bars of ten lengths for digits."""
    folder = tmp_path_factory.mktemp("digits")
    for part, count in (("train", 40), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        bars = np.zeros((count, 28, 28), np.uint8)
        for bar, label in zip(bars, labels, strict=True):
            bar[12:16, 4 : 6 + 2 * label] = 255
        for name, values in (("images-idx3", bars), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(header + values.tobytes())
    return folder


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory) -> Callable[[bool], Path]:
    """The book's recipe at a tiny size: the folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs")

    def finished(conditional: bool) -> Path:
        out = folder / f"mnist-{conditional}"
        if (out / "run.json").is_file():
            return out
        config = mnist.Config(data=digits, out=out, mode="book", conditional=conditional)
        small = replace(config.model, channels=(8, 16), attention=(False, True), blocks=1, groups=4)
        fit = FitOptions(steps=20, batch=4, warmup=0)
        for _ in mnist.train(replace(config, model=small, fit=fit)):
            pass
        return out

    return finished


def test_noise_curve(tmp_path):
    figure("noise_curve")(out=tmp_path)
    assert curves(tmp_path / "noise_curve.svg") == 2
    assert curves(tmp_path / "alpha_bar.svg") == 3


def test_corruption(digits, tmp_path):
    figure("corruption")(data=digits, out=tmp_path, digits=3)
    sheet = picture(tmp_path / "corruption.png")
    left = sheet.shape[1] - 9 * (56 + GAP)
    first, last = sheet[TITLE : TITLE + 56, left : left + 56], sheet[TITLE:, -60:-4]
    assert sheet.shape[0] == TITLE + 3 * (56 + GAP)
    assert len(np.unique(first)) < len(np.unique(last))


@pytest.mark.slow
def test_training_loss(run, tmp_path, capsys):
    figure("training_loss")(runs=[run(False)], out=tmp_path)
    assert curves(tmp_path / "training_loss.svg") == 1
    assert "mean_loss" in capsys.readouterr().out


@pytest.mark.slow
def test_progressive_digits(run, tmp_path):
    figure("progressive_digits")(run=run(False), out=tmp_path, count=2)
    sheet = picture(tmp_path / "progressive_digits.png")
    assert sheet.shape[:2] == (TITLE + 2 * (64 + GAP), 11 * (64 + GAP))


@pytest.mark.slow
def test_digits_in_one_step(run, tmp_path):
    figure("digits_in_one_step")(run=run(True), out=tmp_path)
    assert picture(tmp_path / "digits_in_one_step.png").shape[1] == 10 * (64 + GAP)
    assert picture(tmp_path / "digits_in_more_steps.png").shape[0] == TITLE + 10 * (64 + GAP)


def test_levels(sd1, tmp_path, capsys):
    figure("levels")(model=sd1, out=tmp_path, steps=6)
    assert 2 <= curves(tmp_path / "levels.svg") < 12  # samplers of the same levels share a curve
    assert curves(tmp_path / "spacings.svg") == len(SPACING_NAMES)
    assert "dpmpp_3m_sde" in capsys.readouterr().out


@pytest.mark.slow
def test_block_shapes(sd1, tmp_path):
    figure("block_shapes")(model="sd2", out=tmp_path)
    text = (tmp_path / "block_shapes.txt").read_text()
    assert "2x320x96x96 2x1280 2x77x1024" in text
    assert "down.0.residual: ResidualBlock" in text
    assert "cross_attention: Attention" in text
    figure("block_shapes")(model=sd1, out=tmp_path, batch=1)
    assert "1x32x8x8" in (tmp_path / "block_shapes.txt").read_text()


def test_guidance_scales(sd1, tmp_path):
    scales = [1.0, 5.0]
    figure("guidance_scales")(model=sd1, out=tmp_path, prompts=["cat"], scales=scales, steps=2)
    sheet = picture(tmp_path / "guidance_scales.png")[TITLE:]
    assert not np.array_equal(sheet[:64, -132:-68], sheet[:64, -64 - GAP : -GAP])


@pytest.mark.slow
def test_samplers(sd1, tmp_path):
    figure("samplers")(model=sd1, out=tmp_path, prompt="cat", steps=[2])
    assert picture(tmp_path / "samplers.png").shape[0] == TITLE + len(SAMPLER_NAMES) * (64 + GAP)


def test_strengths(sd1, tmp_path):
    Image.radial_gradient("L").convert("RGB").resize((64, 64)).save(tmp_path / "first.png")
    for image in (None, tmp_path / "first.png"):
        figure("strengths")(model=sd1, out=tmp_path, image=image, strengths=[0.5], steps=2)
        assert picture(tmp_path / "strengths.png").shape[0] == TITLE + 64 + GAP


def test_estimates(sd1, tmp_path):
    figure("estimates")(model=sd1, out=tmp_path, prompt="cat", steps=4, every=2)
    sheet = picture(tmp_path / "estimates.png")
    assert sheet.shape[0] == TITLE + 2 * (64 + GAP)
    assert not np.array_equal(sheet[TITLE : TITLE + 64, -68:-4], sheet[TITLE + 68 : -4, -68:-4])


def test_latents(sd1, tmp_path):
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "first.png")
    figure("latents")(pictures=[tmp_path / "first.png"], model=sd1, out=tmp_path)
    assert picture(tmp_path / "latents.png").shape[1] == 6 * (64 + GAP)


@pytest.mark.slow
def test_similarity(sd1, tmp_path, capsys):
    figure("similarity")(
        model=sd1, out=tmp_path, captions=["cat", "the cat", "a"], seeds=1, steps=1, updates=5
    )
    for name in ("before", "after"):
        cells = ET.parse(tmp_path / f"similarity_{name}.svg").iter()
        assert len([n for n in cells if n.tag.endswith("rect")]) == 1 + 9
    assert "nearest to their caption" in capsys.readouterr().out


def test_every_figure_is_tested_and_listed():
    names = {path.stem for path in FIGURES.glob("*.py")}
    assert names == set(re.findall(r'figure\("(\w+)"\)', Path(__file__).read_text()))
    page = (FIGURES.parents[1] / "docs" / "examples.md").read_text()
    for path in [*FIGURES.glob("*.py"), *FIGURES.parent.glob("*.py")]:
        assert f"{path.relative_to(FIGURES.parents[1])}" in page, path
    for name in names:
        assert inspect.signature(figure(name)).parameters["out"].default == Path("pictures")
