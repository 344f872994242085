"""The measure of the built-in model: its parts on pictures with known answers, then the script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import emoji_metric as metric  # noqa: E402

COLOURS = {"red": (229, 57, 53), "green": (67, 160, 71), "blue": (30, 136, 229)}


def write_emoji(folder: Path) -> Path:
    """Twelve cut-outs: discs and squares in three colours, and their large versions."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for name, colour in COLOURS.items():
        for shape in ("disc", "square"):
            for size in ("", "large "):
                image = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
                edge = 20 if size else 40
                draw = ImageDraw.Draw(image)
                paint = draw.ellipse if shape == "disc" else draw.rectangle
                paint((edge, edge, 127 - edge, 127 - edge), fill=(*colour, 255))
                file = f"images/{size}{name}_{shape}.png"
                image.save(folder / file)
                rows.append(
                    {"file_name": file, "text": f"{size}{name} {shape}", "subgroup": shape,
                     "tags": [], "skin_tone": False}
                )  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture(scope="module")
def emoji(tmp_path_factory) -> metric.Emoji:
    return metric.read(write_emoji(tmp_path_factory.mktemp("emoji")))


def test_pictures_lie_on_white(emoji):
    assert emoji.pictures.shape == (12, 64, 64, 3)
    assert np.allclose(emoji.pictures[0, 0, 0], 1)
    assert np.allclose(emoji.pictures[0, 32, 32], np.array(COLOURS["red"]) / 255, atol=1e-3)


def test_the_distance_is_the_root_mean_square():
    a, b = np.zeros((1, 64, 64, 3), np.float32), np.full((1, 64, 64, 3), 0.5, np.float32)
    b[..., 0] = 0
    assert metric.distances(a, b)[0, 0] == pytest.approx((0.25 * 2 / 3) ** 0.5)
    assert metric.distances(b, b)[0, 0] == pytest.approx(0, abs=1e-6)
    board = np.indices((64, 64)).sum(0)[None, ..., None] % 2 * np.ones(3)
    assert metric.distances(board, 1 - board)[0, 0] == pytest.approx(0)  # averaged away


def test_a_shift_of_one_pixel_is_forgiven(emoji):
    for shift in ((1, 0), (0, -1), (1, 1)):
        moved = np.roll(emoji.pictures, shift, axis=(1, 2))
        found = metric.verdicts(emoji, moved, np.arange(12))
        assert all(verdict.exact for verdict in found)


def test_verdicts_tell_exact_subgroup_and_neither(emoji):
    named = np.array([0, 0, 0])  # the red disc is drawn as itself, large, and as a large square
    exact, subgroup, neither = metric.verdicts(emoji, emoji.pictures[[0, 1, 3]], named)
    assert exact == metric.Verdict(0, True, True)
    assert subgroup == metric.Verdict(1, False, True)
    assert neither == metric.Verdict(3, False, False)
    assert metric.chance(emoji, named) == 0.5


def test_twins_count_as_exact(emoji):
    twins = metric.Emoji(
        [*emoji.rows, {**emoji.rows[0], "subgroup": "twin"}],
        np.concatenate((emoji.pictures, emoji.pictures[:1])),
    )
    (verdict,) = metric.verdicts(twins, emoji.pictures[:1], np.array([12]))
    assert verdict.exact
    assert metric.to_nearest_other(twins, twins.base)[0] == pytest.approx(0, abs=1e-6)
    assert metric.to_nearest_other(emoji, emoji.base)[0] > 0.05


def test_wilson():
    low, high = metric.wilson(90, 100)  # published example values: 0.826 to 0.945
    assert (low, high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    assert metric.wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert metric.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("name", COLOURS)
def test_hue_and_border(name):
    picture = np.ones((64, 64, 3), np.float32)
    picture[20:40, 20:40] = np.array(COLOURS[name]) / 255
    angle = metric.mean_hue(picture)
    assert angle is not None
    assert metric.nearest_hue(angle, COLOURS) == name
    colours = {**COLOURS, "white": (255, 255, 255)}
    assert metric.border_colour(picture, colours) == "white"
    picture[:3] = picture[-3:] = picture[:, :3] = picture[:, -3:] = np.array(COLOURS[name]) / 255
    assert metric.border_colour(picture, colours) == name


def test_grey_has_no_hue_and_redness_is_red():
    grey = np.full((64, 64, 3), 0.5, np.float32)
    assert metric.mean_hue(grey) is None
    assert metric.redness(grey) == 0
    red = grey * np.array([2, 0, 0], np.float32)
    assert metric.redness(red) == 1
    assert metric.mean_hue(red) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_the_script_measures_a_model(tmp_path):
    from weights import tiny

    model = tiny.save(tiny.sd1(), tmp_path / "model")
    data = write_emoji(tmp_path / "data")
    command = [sys.executable, ROOT / "benchmarks" / "emoji_names.py", model, "--data", data]
    command += "--names 5 --seeds 2 --steps 1 --probes 1 --threads 1 --guidance 2".split()
    command += ["--out", tmp_path, "--sheet", tmp_path / "sheet.png"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*emoji-names-model.json")
    fields = json.loads(path.read_text())
    assert fields["names"]["exact"]["of"] == 10
    assert 0 <= fields["names"]["subgroup or exact"]["share"] <= 1
    assert set(fields["guidance"]) == {"1", "2", "4", "7.5"}
    assert fields["drawn"] == 10 + 4 * 3 + 7 + 11 + 3 * 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (640, 64)
    text = path.with_suffix(".md").read_text()
    assert all(f"## {part}" in text for part in ("Names", "Colours", "Grounds", "Negative"))
