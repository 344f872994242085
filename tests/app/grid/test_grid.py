"""``darkroom grid`` and styles on a tiny real model: axes, sheets, resuming."""

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from app_commands import command, environment
from PIL import Image

from darkroom.app.drawing.request import Request
from darkroom.app.drawing.styles import Style, available, chosen, read
from darkroom.app.grid import page, sheet
from darkroom.app.grid.axes import NOTHING, against, axis
from darkroom.app.grid.cells import cells, drawn
from darkroom.app.grid.drawing import batches
from darkroom.app.outcome import UsageError
from darkroom.errors import ConfigError
from darkroom.generation.generate import develop
from darkroom.generation.metadata import read_params
from darkroom.text.remembered import remembering
from generation import small

FAST = ("--size", "64x64", "--steps", "2")
BASE = Request(prompts=("a red fox",), seed=0)
STYLES = {"wet": Style("wet", "wet {prompt}", "dry"), "late": Style("late", "late")}


def labels(text: str) -> list[str]:
    return [value.label for value in axis(text, STYLES).values]


def applied(text: str, request: Request = BASE) -> list[Request]:
    return [value.change(request) for value in axis(text, STYLES).values]


def test_axes_are_lists_and_ranges():
    assert labels("steps=10, 20,30") == ["10", "20", "30"]
    assert labels("guidance=3..9/3") == ["3", "6", "9"]
    assert labels("strength=0.1..0.3/0.1") == ["0.1", "0.2", "0.3"]
    assert [r.guidance for r in applied("guidance=1.5,3..4/0.5")] == [1.5, 3, 3.5, 4]
    assert [r.size for r in applied("size=64x32")] == [(32, 64)]
    assert [r.prompts[0] for r in applied('prompt=a cat,"a dog, sitting"')] == [
        "a cat",
        "a dog, sitting",
    ]
    assert [r.negative for r in applied('negative="",blurry')] == [None, "blurry"]
    assert [r.model for r in applied("model=a,b")] == ["a", "b"]
    weights = [[(lora.name, lora.unet) for lora in r.loras] for r in applied("lora:x=0,0.5,1")]
    assert weights == [[], [("x", 0.5)], [("x", 1.0)]]


def test_timesteps_are_an_axis():
    found = axis('timesteps="999,499","999,749,499,249"', {})
    assert [value.change(BASE).timesteps for value in found.values] == [
        (999, 499),
        (999, 749, 499, 249),
    ]


def test_words_are_searched_and_replaced():
    request = Request(prompts=("a red fox",), negative="red", seed=0)
    found = applied("replace=red,blue,", request)
    assert [(r.prompts[0], r.negative) for r in found] == [
        ("a red fox", "red"),
        ("a blue fox", "blue"),
        ("a  fox", None),
    ]
    both = [axis("replace=red,blue", {}), axis("replace=fox,cat", {}), NOTHING]
    assert cells(BASE, both)[-1].prompt == "a blue cat"
    with pytest.raises(UsageError, match="'cow' is in none of the prompts"):
        applied("replace=cow,cat")


def test_prompts_are_built_in_the_order_of_their_parts():
    """Whatever axis is which: other prompts, words in them, styles around them."""
    style, word = axis("style=none,wet", STYLES), axis("replace=red,blue", STYLES)
    texts = [cell.prompt for cell in cells(BASE, [style, word, NOTHING], (STYLES["late"],))]
    assert texts == [
        "a red fox, late",
        "wet a red fox, late",
        "a blue fox, late",
        "wet a blue fox, late",
    ]
    found = cells(BASE, [against("sharp"), style, NOTHING])
    assert [cell.prompt for cell in found][3] == "wet a red fox, sharp"
    assert found[3].request.negative == "dry"
    assert len({cell.key for cell in found}) == 4
    assert [cell.key for cell in cells(BASE, [against("sharp"), style, NOTHING])] == [
        cell.key for cell in found
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "expected NAME=VALUES"),
        ("step=1", "did you mean 'steps'"),
        ("steps=0", "from 1 to 1000"),
        ("steps=1,1", "'1' is there twice"),
        ("guidance=9..3/1", "that rises"),
        ("guidance=1..9/0", "that rises"),
        ("sampler=eulr", "did you mean 'euler'"),
        ("style=wetter", "did you mean 'wet'"),
        ("replace=fox", "what to look for"),
        ("lora:x=a", "expected NAME:WEIGHT"),
    ],
)
def test_wrong_axes_are_one_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        axis(text, STYLES)
    assert "\n" not in str(caught.value)


def test_seeds_are_drawn_in_batches():
    model = small.model()
    axes = [axis("seed=5,1,9", {}), axis("guidance=2,3", {}), NOTHING]
    found = batches(cells(Request(prompts=("a",), size=(64, 64)), axes), model)
    assert [[cell.seed for cell in batch.cells] for batch in found] == [[5, 1, 9], [5, 1, 9]]


def test_texts_are_encoded_once(monkeypatch):
    model = small.model()
    calls = []
    own = type(model.text_encoder).plan
    monkeypatch.setattr(
        type(model.text_encoder), "plan", lambda self, *a: calls.append(a) or own(self, *a)
    )
    from dataclasses import replace

    remembered = replace(model, text_encoder=remembering(model.text_encoder))
    for steps in (2, 4):
        for prompt in ("a fox", "a [cat:dog:0.5]"):
            plain = develop(model, prompt, steps=steps)[0]
            again = develop(remembered, prompt, steps=steps)[0]
            assert plain.image.tobytes() == again.image.tobytes()
            assert plain.params == again.params
    # what is not wanted, once; the schedule of the second prompt changes with the steps
    assert len(calls) == 2 * 4 + (1 + 1 + 2)
    assert remembering("no encoder of ours") == "no encoder of ours"


def test_a_grid_is_drawn_and_goes_on(darkroom, model_folder):
    line = ("grid", "a red <fox>", "--model", model_folder, *FAST[:2], "--out", "g")
    ended = darkroom(*line, "--x", "steps=1,2", "--y", "seed=3,4", "--z", "guidance=2,5")
    assert ended.code == 0, ended.err
    assert ended.out.split() == ["g/grid.png", "g/grid.html", "g/grid.csv"]
    assert "8 of 8 cells in" in ended.err
    pictures = {path.name: path.stat().st_mtime_ns for path in Path("g/cells").iterdir()}
    assert len(pictures) == 8
    with Image.open("g/grid.png") as image:
        assert image.width > 2 * 128
        assert image.height > 4 * 128
    text = Path("g/grid.html").read_text("utf-8")
    assert text.count("data:image/png;base64,") == 8
    assert "<fox>" not in text
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert all((Path("g") / link).is_file() for link in re.findall(r'<a href="([^"]+)"', text))
    with open("g/grid.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["x"], row["y"], row["z"]) for row in rows[:3]] == [
        ("1", "3", "2"),
        ("2", "3", "2"),
        ("1", "4", "2"),
    ]
    for row in rows:
        params = read_params(Path("g") / row["file"])
        assert (params.steps, params.seed) == (int(row["x"]), int(row["y"]))
        assert params.guidance == float(row["z"]) == float(row["guidance"])
    one = next(Path("g/cells").iterdir())
    one.unlink()
    ended = darkroom(*line, "--x", "steps=1,2", "--y", "seed=3,4", "--z", "guidance=2,5", "--json")
    assert (ended.answer["drawn"], ended.answer["reused"]) == (1, 7)
    after = {path.name: path.stat().st_mtime_ns for path in Path("g/cells").iterdir()}
    assert {name for name in pictures if after[name] != pictures[name]} == {one.name}
    ended = darkroom(*line, "--x", "steps=1,2,3", "--y", "seed=3", "--guidance", "2", "--dry-run")
    assert [row.count("(drawn)") for row in ended.out.splitlines()] == [1, 1, 0]


def test_a_cell_is_drawn_again_by_generate(darkroom, model_folder):
    darkroom("grid", "a fox", "--model", model_folder, *FAST, "--x", "seed=1,2", "--out", "g")
    cell = sorted(drawn(Path("g/cells")).values())[0]
    ended = darkroom("generate", "--from", cell, "--model", model_folder, "--out", "again.png")
    assert ended.code == 0, ended.err
    with Image.open(cell) as first, Image.open("again.png") as second:
        assert first.tobytes() == second.tobytes()


def test_a_killed_grid_goes_on(darkroom, model_folder):
    line = ("grid", "a fox", "--model", str(model_folder), "--size", "64x64", "--out", "g")
    more = ("--x", "steps=40..59/1", "--y", "guidance=2,3,4")
    process = subprocess.Popen(
        command(*line, *more), stderr=subprocess.PIPE, env=environment(OMP_NUM_THREADS="1")
    )
    deadline = time.monotonic() + 60
    while len(drawn(Path("g/cells"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 5, error
    assert b"the same command goes on from here" in error
    there = drawn(Path("g/cells"))
    assert all(read_params(path).steps >= 40 for path in there.values())  # each is whole
    assert not Path("g/grid.png").exists()
    ended = darkroom(*line, *more, "--dry-run", "--json")
    assert ended.answer["reused"] == len(there)


def test_wrong_grids_are_one_line(darkroom):
    for line, message in (
        (("a fox",), "give an axis"),
        (("--x", "steps=1,2"), "give a PROMPT"),
        (("a fox", "--x", "steps=1", "--y", "steps=2"), "steps is on two axes"),
        (("a fox", "--x", "steps=1", "--ab", "b"), "--ab is an x axis"),
        (("a fox", "--x", "strength=0.5"), "without --image"),
        (("a fox", "--x", "refiner-start=0.5"), "without --refiner"),
        (("a fox", "--x", "negative=a", "--guidance", "1"), "has no effect at guidance 1"),
        (("a fox", "--x", "model=nowhere"), "nowhere"),
    ):
        ended = darkroom("grid", *line)
        assert ended.code in (2, 3)
        assert message in ended.error


def test_a_sheet_of_anything_fits(tmp_path):
    Image.new("RGB", (2000, 900)).save(tmp_path / "a.png")
    axes = [axis(f"prompt={'very long words ' * 30},b", {}), NOTHING, NOTHING]
    places = {(i, 0, 0): tmp_path / "a.png" for i in range(2)}
    assert sheet.sheet("t", axes, places).size[0] < sheet.LARGEST
    many = axis("seed=0..40/1", {})
    places = {(i, 0, 0): tmp_path / "a.png" for i in range(41)}
    assert sheet.sheet("t", [many, NOTHING, NOTHING], places).size[0] <= sheet.LARGEST
    page.write(tmp_path / "x.html", "t", [axes[0], NOTHING, NOTHING], places, "about")
    assert (tmp_path / "x.html").stat().st_size < 100_000


# --- styles


def test_styles_are_applied_as_a1111_does():
    assert Style("a", "{prompt}, oil", "ugly").applied("a fox", "blurry") == (
        "a fox, oil",
        "blurry, ugly",
    )
    assert Style("a", "oil").applied("a fox", "") == ("a fox, oil", "")
    assert Style("a", "", "no {prompt}").applied("a fox", "") == ("a fox", "no ")


def test_styles_are_read_from_toml_and_csv(home, tmp_path):
    table = '\ufeffname,prompt,negative_prompt\nhead,,\nOil,"{prompt}, oil, thick",photo\n'
    (tmp_path / "styles.csv").write_text(table, "utf-8")
    assert read(tmp_path / "styles.csv") == [Style("Oil", "{prompt}, oil, thick", "photo")]
    home.mkdir()
    (home / "styles.toml").write_text('[cinematic]\nprompt = "{prompt}, mine"\n')
    assert available()["cinematic"].prompt == "{prompt}, mine"
    assert "watercolor" in available()
    assert [style.name for style in chosen(["Oil"], tmp_path / "styles.csv")] == ["Oil"]
    with pytest.raises(UsageError, match="did you mean 'cinematic'"):
        chosen(["cinematc"])
    for name, text in (
        ("a.toml", "[a]\nprmpt = 'x'"),
        ("b.toml", "[["),
        ("c.csv", "a,b\n1,2\n"),
        ("d.toml", "a = 1"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match="expected"):
            read(tmp_path / name)


def test_a_style_is_in_the_picture(darkroom, model_folder):
    line = ("generate", "a fox", "--model", model_folder, *FAST, "--seed", "1")
    ended = darkroom(*line, "--style", "sketch", "--style", "comic", "--out", "a.png")
    assert ended.code == 0, ended.err
    params = read_params("a.png")
    assert params.styles == ("sketch", "comic")
    assert params.prompt.startswith("pencil sketch of a fox, ")
    assert params.negative is not None
    ended = darkroom("generate", "--from", "a.png", "--model", model_folder, "--out", "b.png")
    assert ended.code == 0, ended.err
    assert read_params("b.png") == params
    ended = darkroom(*line, "--style", "sketch", "--guidance", "1", "--out", "c.png")
    assert ended.code == 0, ended.err
    assert "the negative prompt of the style has no effect" in ended.err
    ended = darkroom(*line, "--style", "sketch", "--guidance", "1", "--negative", "wet")
    assert "has no effect at guidance 1" in ended.error
    ended = darkroom("generate", "--from", "a.png", "--guidance", "1", "--model", model_folder)
    assert "negative prompt has no effect" in ended.error


def test_a_refiner_takes_over(darkroom, model_folder):
    line = ("generate", "a fox", "--model", model_folder, "--size", "64x64", "--steps", "6")
    ended = darkroom(*line, "--refiner", model_folder, "--refiner-start", "0.5", "--out", "a.png")
    assert ended.code == 0, ended.err
    assert read_params("a.png").refiner.start == 0.5
    more = ("--model", model_folder, "--refiner", model_folder)
    ended = darkroom("generate", "--from", "a.png", *more, "--out", "b.png")
    assert ended.code == 0, ended.err
    with Image.open("a.png") as first, Image.open("b.png") as second:
        assert first.tobytes() == second.tobytes()
    assert "without --refiner" in darkroom(*line, "--refiner-start", "0.5").error
    assert "--refiner" in darkroom(*line, "--refiner", "nowhere").error
