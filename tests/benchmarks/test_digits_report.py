"""The published page of the diffusion recipes is what their runs say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import digits as publisher  # noqa: E402
import machine  # noqa: E402

from darkroom.recipes import run  # noqa: E402

MODEL = "channels = [4, 4]\nattention = [false, false]\nblocks = 1\ngroups = 2\nhead_channels = 4"
CLASSIFIER = """
recipe = "digit-classifier"
data = "{data}"
out = "{out}"
model = {{channels = [4, 4, 4], features = 8}}
fit = {{steps = 2}}
"""
CONDITIONAL = """
recipe = "mnist"
data = "{data}"
out = "{out}"
conditional = true
classifier = "{classifier}"
steps = 2
samples = 10
held_out = 10
[model]
{model}
[fit]
steps = 25
batch = 2
"""


@pytest.fixture
def digits(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    random = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels, labels = random.integers(0, 256, (40, 28, 28)), np.arange(40) % 10
        for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            sizes = np.array([0x800 + values.ndim, *values.shape], ">u4").tobytes()
            (folder / f"{part}-{name}-ubyte").write_bytes(sizes + values.astype("u1").tobytes())
    return folder


def test_the_page_holds_what_the_runs_logged(digits, tmp_path, monkeypatch):
    runs, recipe = tmp_path / "runs", tmp_path / "recipe.toml"
    for name, text in (("digit-classifier", CLASSIFIER), ("mnist-conditional", CONDITIONAL)):
        classifier = runs / "digit-classifier"
        values = {"data": digits, "out": runs / name, "classifier": classifier, "model": MODEL}
        recipe.write_text(text.format(**values))
        for _ in run(recipe):
            pass
    monkeypatch.setattr(publisher, "PICTURES", tmp_path)
    monkeypatch.setattr(publisher, "SWEEP", [("ddim", 2, 1.5)])
    monkeypatch.setattr(machine, "RESULTS", tmp_path / "results")
    publisher.main(runs, digits, True, 4)
    (page,), (data,) = (list((tmp_path / "results").glob(f"*{e}")) for e in (".md", ".json"))
    report = json.loads(data.read_text())
    judged = json.loads((runs / "mnist-conditional" / "judged.json").read_text())
    found = report["runs"]["mnist-conditional"]
    assert found["steps"] == 25 and found["batch"] == 2
    assert {key: found[key] for key in judged} == judged
    assert report["sweep"][0]["sampler"] == "ddim" and report["sweep"][0]["frechet"] > 0
    assert "## mnist-conditional" in page.read_text() and "| accuracy |" in page.read_text()
    for name in ("samples.png", "noised.png", "loss.svg"):
        assert (tmp_path / f"mnist-conditional-{name}").is_file()
