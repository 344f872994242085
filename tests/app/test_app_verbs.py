"""``inspect``, ``doctor``, ``bench`` and ``train``."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from app_commands import command, environment
from PIL import Image

TRAINING = """
recipe = "autoencoder"
data = "shapes"
out = "run"
size = 16
save_every = 5
[model]
latent_channels = 4
channels = [16, 16]
blocks = 1
groups = 8
middle_attention = false
[fit]
steps = {steps}
batch = 2
"""


def test_inspect_a_folder_and_a_file(darkroom, model_folder):
    report = darkroom("inspect", model_folder, "--json").answer
    assert report["tensors"] > 100
    weights = next(model_folder.glob("unet/*.safetensors"))
    ended = darkroom("inspect", weights)
    assert ended.code == 0
    assert "U-Net" in ended.out
    assert "float32" in ended.out


def test_inspect_a_picture(darkroom, model_folder):
    darkroom(
        *("generate", "a cat", "--model", model_folder, "--size", "64x64", "--steps", "2"),
        *("--seed", "5", "--negative", "dull", "--out", "cat.jpg"),
    )
    report = darkroom("inspect", "cat.jpg", "--json").answer
    assert report["kind"] == "picture"
    assert report["params"]["prompt"] == "a cat"
    lines = dict(line.split("\t") for line in darkroom("inspect", "cat.jpg").out.splitlines()[1:])
    assert lines["prompt"] == "a cat"
    assert lines["negative"] == "dull"
    assert lines["seed"] == "5"
    assert lines["size"] == "64x64"


def test_inspect_a_picture_that_says_nothing(darkroom):
    Image.new("RGB", (8, 8)).save("plain.png")
    ended = darkroom("inspect", "plain.png", "--json")
    assert ended.code == 0
    assert "no generation parameters" in ended.answer["notes"][0]


def test_inspect_a_registered_name(darkroom, model_folder):
    darkroom("models", "add", model_folder, "--name", "tiny")
    assert darkroom("inspect", "tiny", "--json").answer["tensors"] > 100
    assert "did you mean 'tiny'?" in darkroom("inspect", "tinny").error


def test_inspect_damage(darkroom):
    Path("broken.safetensors").write_bytes(b"\xff" * 100)
    Path("broken.png").write_bytes(b"\xff" * 100)
    for name in ("broken.safetensors", "broken.png"):
        ended = darkroom("inspect", name)
        assert ended.code == 3
        assert name in ended.error


def test_inspect_needs_no_torch(model_folder):
    weights = next(model_folder.glob("unet/*.safetensors"))
    code = (
        "import sys; from darkroom.app.cli import run\n"
        f"assert run(['inspect', {str(weights)!r}]) == 0\n"
        f"assert run(['inspect', {str(model_folder)!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_inspect_layers(darkroom, model_folder):
    ended = darkroom("inspect", model_folder, "--layers", "--depth", "1", "--size", "64x128")
    assert ended.code == 0
    assert "autoencoder, decoding" in ended.out
    assert "1x3x128x64" in ended.out
    plain = darkroom("inspect", "mnist", "--layers", "--depth", "1", "--json").answer
    (network,) = plain["networks"]
    blocks = {block["name"]: block for block in network["blocks"]}
    assert blocks["down"]["parameters"] == 1_827_968
    assert blocks[""]["inputs"] == [[1, 1, 32, 32], [1]]
    assert blocks[""]["flops"] > 1e9


def test_inspect_layers_errors(darkroom):
    ended = darkroom("inspect", "mnsit", "--layers")
    assert ended.code == 3
    assert "did you mean 'mnist'?" in ended.error
    assert "sdxl-turbo" in ended.error
    assert darkroom("inspect", "mnist").code == 3  # without --layers it is no file
    ended = darkroom("inspect", "mnist", "--depth", "2")
    assert ended.code == 2
    assert "--depth: goes with --layers" in ended.error


def test_doctor(darkroom, monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "LD_PRELOAD", "DARKROOM_ACCELERATE"):
        monkeypatch.delenv(name, raising=False)
    ended = darkroom("doctor", "--json")
    facts = ended.answer
    assert ended.code == 0
    assert facts["usable"] is True
    assert facts["torch"]["devices"][0]["name"] == "cpu"
    assert facts["packages"]["torch"]
    assert facts["memory"]["total"] > facts["memory"]["available"] > 0
    assert facts["disk"]["here"]["free"] > 0
    assert all(problem["remedy"] for problem in facts["problems"])
    glibc = facts["allocator"]["libc"] == "glibc"
    assert facts["allocator"]["set_by"] == ("darkroom" if glibc else None)
    assert not [p for p in facts["problems"] if "glibc" in p["what"]]
    with monkeypatch.context() as context:
        context.setenv("DARKROOM_ACCELERATE", "0")
        no = darkroom("doctor", "--json").answer
    assert len([p for p in no["problems"] if "glibc" in p["what"]]) == glibc
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0")
    again = darkroom("doctor", "--json").answer
    assert again["allocator"]["keeps_freed_memory"] is True


def test_doctor_in_words(darkroom):
    ended = darkroom("doctor")
    assert ended.code == 0
    for word in ("torch", "memory", "disk", "models", "extras", "usable"):
        assert word in ended.out


@pytest.mark.slow
def test_bench(darkroom, model_folder):
    ended = darkroom(
        *("bench", "--model", model_folder, "--size", "64x64", "--repeat", "2", "--steps", "2"),
        "--json",
    )
    assert ended.code == 0, ended.err
    assert ended.answer["size"] == "64x64"
    assert ended.answer["peak_memory"] > 10_000_000
    parts = ended.answer["parts"]
    assert list(parts)[:4] == ["load", "text", "unet", "decode"]
    for part in parts.values():
        assert 0 < part["least"] <= part["median"] <= part["most"]
    words = darkroom("bench", "--model", model_folder, "--size", "64x64", "--repeat", "1")
    assert words.out.startswith("PART\tMEDIAN\tLEAST\tMOST\nload\t")


@pytest.fixture
def recipe() -> Path:
    """A recipe of a second, and its data, in the working folder."""
    Path("shapes").mkdir()
    rows = []
    for i in range(4):
        pixels = np.full((16, 16, 4), 60 * i, np.uint8)
        Image.fromarray(pixels).save(f"shapes/{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": "a grey", "tags": []}))
    Path("shapes/metadata.jsonl").write_text("\n".join(rows))
    path = Path("recipe.toml")
    path.write_text(TRAINING.format(steps=12))
    return path


def test_train(darkroom, recipe):
    ended = darkroom("train", recipe, "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["step"] == ended.answer["steps"] == 12
    assert ended.answer["loss"] > 0
    assert "loss" in ended.err
    assert "done" in ended.err
    again = darkroom("train", recipe)
    assert again.code == 0
    assert "already trained to its end" in again.err


def test_train_elsewhere(darkroom, recipe):
    assert darkroom("train", recipe, "--out", "other").code == 0
    assert Path("other").is_dir()
    assert not Path("run").exists()


def test_dry_run(darkroom, recipe):
    ended = darkroom("train", recipe, "--dry-run", "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["data"][0]["items"] == 4
    (stage,) = ended.answer["stages"]
    assert stage["steps"] == 12
    assert stage["memory"] > 12 * stage["trained"]
    assert stage["seconds"] > 0
    told = darkroom("train", recipe, "--dry-run", "--set", "fit.steps=7")
    lines = dict(line.split("\t") for line in told.out.splitlines()[1:])
    assert lines["steps"] == "7 of 2 samples"
    assert "Adam" in lines["memory"]
    assert "imagefolder" in lines["data"]
    assert "measured" in lines["time"]
    assert not Path("run").exists()


def test_set(darkroom, recipe):
    ended = darkroom("train", recipe, "--set", "fit.steps=3", "--set", "out=there", "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["steps"] == 3
    assert Path("there").is_dir()
    assert darkroom("train", recipe, "--set", "fit.stepz=3").code == 2
    assert "name=value" in darkroom("train", recipe, "--set", "fit.steps").error


def test_train_without_data(darkroom, recipe):
    Path("shapes/metadata.jsonl").write_text("")
    for extra in ((), ("--dry-run",)):
        ended = darkroom("train", recipe, *extra)
        assert ended.code == 3
        assert "no pictures" in ended.error
    assert not Path("run").exists()


def test_train_with_a_bad_recipe(darkroom, recipe):
    recipe.write_text(recipe.read_text().replace("batch =", "bach ="))
    ended = darkroom("train", recipe)
    assert ended.code == 3  # the file is wrong, not what was typed
    assert "bach" in ended.error
    assert darkroom("train", recipe, "--set", "fit.steps=3").code == 3
    recipe.write_text("recipe = [")
    assert darkroom("train", recipe).code == 3


def test_train_lists_the_recipes(darkroom):
    ended = darkroom("train", "--list")
    assert ended.code == 0
    rows = dict(line.split("\t") for line in ended.out.splitlines()[1:])
    assert rows["gan.toml"] == "A generative adversarial network of 0.9 M parameters on MNIST."
    assert all(20 < len(line) < 200 for line in rows.values())
    assert darkroom("train", "--list", "--json").answer["recipes"] == rows
    assert "train --list" in darkroom("train").error
    assert darkroom("train", "gan.toml", "--list").code == 2
    ended = darkroom("train", "mnist-conditionl.toml")
    assert ended.code == 3
    assert "did you mean 'mnist-conditional.toml'?" in ended.error


def test_missing_public_data_can_be_fetched(darkroom):
    ended = darkroom("train", "mnist.toml")
    assert ended.code == 3
    assert "data/mnist: is not here; bring it: `darkroom data fetch mnist`" in ended.error
    ended = darkroom("train", "cifar10.toml", "--data", "sets/cifar10-train.tar")
    assert "`darkroom data fetch cifar10 --out sets`" in ended.error


@pytest.mark.parametrize("verb", ["classify", "segment", "inspect", "embed", "models add"])
def test_a_name_beside_a_missing_one_is_offered(darkroom, verb):
    Path("cat.png").write_bytes(b"x")
    Path("photos").mkdir()
    missing = "foto" if verb == "embed" else "kat.png"
    labels = ("--labels", "a,b") if verb == "classify" else ()
    ended = darkroom(*verb.split(), missing, *labels)
    assert ended.code == 3
    assert f"did you mean {'photos' if verb == 'embed' else 'cat.png'!r}?" in ended.error


def test_recipes_that_ship_are_known_by_name(darkroom):
    ended = darkroom("train", "emoji.toml", "--dry-run", "--json")
    assert ended.code == 3
    assert "noto-emoji" in ended.error  # the data, which is not here


def test_ctrl_c_saves_and_the_same_command_goes_on(darkroom, recipe):
    recipe.write_text(TRAINING.format(steps=100_000))
    with subprocess.Popen(
        command("train", recipe, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(OMP_NUM_THREADS="1"),
    ) as process:
        state, limit = Path("run/state.safetensors"), time.monotonic() + 120
        while not state.is_file():  # written every five steps
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    answer = json.loads(out)
    assert answer["step"] >= 5
    assert b"saved; go on with the same command" in err
    assert b"Traceback" not in err
    recipe.write_text(TRAINING.format(steps=answer["step"] + 10))
    ended = darkroom("train", recipe, "--json")
    assert ended.code == 0
    assert f"going on after step {answer['step']}" in ended.err
    assert ended.answer["step"] == answer["step"] + 10
