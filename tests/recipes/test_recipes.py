"""Each recipe learns, resumes with the same losses, survives kill -9, and leaves its facts."""

import json
import os
import signal
import subprocess
import sys

import pytest

from darkroom.errors import ConfigError
from darkroom.recipes import run

AUTOENCODER = """
recipe = "autoencoder"
data = "{data}"
out = "{out}"
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
batch = 8
lr = 3e-3
warmup = 5
ema = 0.9
"""
DIFFUSION = """
recipe = "latent-diffusion"
data = "{data}"
autoencoder = "{autoencoder}"
out = "{out}"
size = 16
vocabulary = 520
save_every = 5
[text]
positions = 12
channels = 16
layers = 1
heads = 2
hidden = 32
[unet]
in_channels = 4
out_channels = 4
channels = [32, 32]
heads = [2, 2]
depth = [1, 1]
middle_depth = 0
blocks = 1
text_channels = 16
[fit]
steps = {steps}
batch = 8
lr = 2e-3
warmup = 5
ema = 0.9
"""


def write(folder, text, **values):
    path = folder / "recipe.toml"
    path.write_text(text.format(**values))
    return path


@pytest.fixture(scope="module")
def autoencoder(captioned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    path = write(folder, AUTOENCODER, data=captioned, out=folder / "run", steps=60)
    losses = [step.loss for step in run(path)]
    return folder / "run", losses


def test_autoencoder_learns_and_leaves_its_facts(autoencoder):
    folder, losses = autoencoder
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert rows[0]["event"] == "start"
    assert [row["step"] for row in rows if "loss" in row] == [20, 40, 60]
    assert rows[-1]["psnr"] > 0
    facts = json.loads((folder / "run.json").read_text())
    assert facts["config"]["fit"]["seed"] == 0
    assert facts["processor"]
    assert (folder / "autoencoder.safetensors").is_file()


def test_latents_have_unit_variance(autoencoder, captioned):
    from darkroom.recipes.autoencoder import latent_deviation
    from darkroom.recipes.latent_diffusion import load_autoencoder
    from darkroom.training.data import open_data

    model = load_autoencoder(autoencoder[0] / "autoencoder.safetensors")
    assert latent_deviation(model, [open_data(captioned).hold(16, 4)[0]]) == pytest.approx(
        1, abs=1e-3
    )


def test_diffusion_learns(autoencoder, captioned, tmp_path):
    path = write(
        tmp_path, DIFFUSION, data=captioned, out=tmp_path / "run", steps=120,
        autoencoder=autoencoder[0] / "autoencoder.safetensors",
    )  # fmt: skip
    losses = [step.loss for step in run(path)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert (tmp_path / "run" / "unet.safetensors").is_file()
    assert (tmp_path / "run" / "tokenizer" / "vocab.json").is_file()


@pytest.mark.slow
def test_killed_runs_repeat_the_losses_of_a_whole_one(autoencoder, captioned, tmp_path):
    values = {
        "data": captioned,
        "steps": 40,
        "autoencoder": autoencoder[0] / "autoencoder.safetensors",
    }
    whole = [
        step.loss for step in run(write(tmp_path, DIFFUSION, out=tmp_path / "whole", **values))
    ]
    path = write(tmp_path, DIFFUSION, out=tmp_path / "killed", **values)
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from darkroom.recipes import run\n"
        f"for step in run({str(path)!r}): print(step.index, step.loss.hex(), flush=True)\n"
    )
    losses = {}
    for kill_after in (13, 9, None):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for count, line in enumerate(child.stdout, 1):
            index, loss = line.split()
            assert losses.setdefault(int(index), loss) == loss  # a repeated step repeats its loss
            if count == kill_after:
                os.kill(child.pid, signal.SIGKILL)
                break
        child.stdout.close()
        child.wait(60)
    assert [losses[i] for i in range(40)] == [loss.hex() for loss in whole]
    rows = [
        json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in rows if "loss" in row] == [20, 40]


def test_a_closed_generator_saves(captioned, tmp_path):
    path = write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "run", steps=100)
    steps = run(path)
    for _ in range(3):
        next(steps)
    steps.close()
    assert next(run(path)).index == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("autoencoder", "autoencodr"), "recipe is 'autoencodr'"),
        (("steps =", "stepz ="), "stepz"),
        (("size = 16", "size = 'x'"), "size"),
    ],
)
def test_a_wrong_file_is_refused_at_the_call(captioned, tmp_path, change, message):
    text = AUTOENCODER.replace(*change)
    with pytest.raises(ConfigError, match=message):
        run(write(tmp_path, text, data=captioned, out=tmp_path / "run", steps=1))


def test_a_folder_without_metadata_is_refused(tmp_path):
    from darkroom.errors import DataError

    path = write(tmp_path, AUTOENCODER, data=tmp_path, out=tmp_path / "run", steps=1)
    with pytest.raises(DataError, match="no data set that is known here"):
        next(run(path))


def test_the_text_tower_learns_to_read_first(autoencoder, captioned, tmp_path):
    """The first stage is a run of its own; with it names are told apart before the U-Net starts."""
    text = DIFFUSION + "[text_fit]\nsteps = 60\nbatch = 16\nlr = 5e-3\nwarmup = 5\n"
    path = write(
        tmp_path, text, data=captioned, out=tmp_path / "run", steps=3,
        autoencoder=autoencoder[0] / "autoencoder.safetensors",
    )  # fmt: skip
    steps = list(run(path))
    assert [step.index for step in steps] == [*range(60), *range(3)]
    assert sum(step.loss for step in steps[50:60]) < 0.5 * sum(step.loss for step in steps[:10])
    assert (tmp_path / "run" / "text" / "log.jsonl").is_file()
    assert [step.index for step in run(path)] == []  # both stages are done


def test_the_finished_model_opens_and_draws(autoencoder, captioned, tmp_path):
    import darkroom as dr

    path = write(
        tmp_path, DIFFUSION, data=captioned, out=tmp_path / "run", steps=3,
        autoencoder=autoencoder[0] / "autoencoder.safetensors",
    )  # fmt: skip
    list(run(path))
    model = dr.load(tmp_path / "run" / "model")
    assert model.settings["size"] == (16, 16)
    (picture,) = dr.develop(model, "red square", dr.Guidance(2.0), seeds=[1], steps=2)
    assert picture.image.size == (16, 16)
