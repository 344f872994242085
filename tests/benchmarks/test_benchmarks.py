"""The benchmarks run, at tiny sizes, and compare like with like. The figures are not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import checkpoint  # noqa: E402
import contenders  # noqa: E402
import machine  # noqa: E402
import run as side_by_side  # noqa: E402

TASKS = ("text", "unet1", "unet2", "inpaint", "control", "decode", "picture")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    parent = tmp_path_factory.mktemp("checkpoint")
    checkpoint.folders(parent, tiny=True)
    return parent


def run(*arguments: str | Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "--tiny", "--threads", "1"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environment
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_both_contenders_do_the_same(folder):
    sizes = checkpoint.TINY
    inputs = contenders.Inputs(sizes["unet"]["sample_size"], sizes["text"]["hidden_size"])
    for path in checkpoint.folders(folder, tiny=True).values():
        theirs, ours = contenders.Diffusers(path), contenders.Darkroom(path)
        for task in TASKS:
            results = [contenders.job(contender, task, inputs, 2) for contender in (theirs, ours)]
            a, b = (result.astype(float) for result in results)
            assert a.shape == b.shape
            assert a.std() > 0.01
            tolerance = 1 if task == "picture" else 1e-4  # of 255 levels
            assert np.abs(a - b).max() <= tolerance
        assert contenders.read_all(ours) == pytest.approx(contenders.read_all(theirs), rel=1e-3)
        floats = [weight.dtype for weight in (*ours.weights(), *theirs.weights())]
        assert set(floats) == {torch.float32}


@pytest.mark.slow
def test_a_run_measures_and_a_second_one_adds(folder, tmp_path):
    said = run("--repeats", "1", "--folder", folder, "--out", tmp_path, "--only", "unet1")
    for name in ("darkroom", "darkroom, plain", "diffusers, memory kept"):
        assert f"| one U-Net step, batch 1 | {name} |" in said
    run("--repeats", "1", "--folder", folder, "--out", tmp_path, "--only", "decode", "--no-others")
    (path,) = tmp_path.glob("*.json")
    fields = json.loads(path.read_text())
    assert len(fields["times"]) == 2
    decode = fields["times"]["VAE decode"]
    assert set(decode) == {"diffusers", "darkroom", "psnr", "load"}
    assert decode["psnr"]["darkroom"] > 90
    assert decode["darkroom"]["median"] > 0
    assert path.with_suffix(".md").read_text().count("| VAE decode |") == 2
    assert fields["machine"]["packages"]["torch"] == torch.__version__.removeprefix("v")


@pytest.mark.slow
def test_a_process_of_its_own_says_its_peak(folder):
    command = [sys.executable, ROOT / "benchmarks" / "probe.py", "darkroom", "unet2"]
    command += [folder / "tiny-fp32", "8", "32", "2", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 50 * 2**20 < found["peak"] < 2 * 2**30
    assert found["wall"] > 0


def test_parts_are_chosen_by_name():
    assert side_by_side.chosen("decode, text") == ("text", "decode")
    assert side_by_side.chosen(None) == side_by_side.PARTS
    with pytest.raises(typer.BadParameter, match="unet: expected some of import, load"):
        side_by_side.chosen("unet,text")


def test_ratios_and_medians():
    times = {"diffusers": [(4.0, 8.0), (2.0, 4.0), (3.0, 6.0)], "darkroom": [(1.5, 2.0)]}
    found = side_by_side.summary(times)
    assert (found["diffusers"]["median"], found["diffusers"]["most"]) == (3.0, 4.0)
    assert found["darkroom"]["ratio"] == 2.0
    assert found["darkroom"]["ratio of CPU time"] == 3.0
    a = np.array([[0.0, 1.0]])
    assert side_by_side.agreement(a, a) == 999
    assert side_by_side.agreement(a, a + 0.1) == 20.0


def test_the_machine_is_named():
    facts = machine.describe(2)
    assert facts["cores"] >= 1
    assert facts["processor"] in machine.line(facts)
    assert machine.slug(facts).endswith("-cores")
