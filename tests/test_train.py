"""``python -m darkroom.train``, alone and under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.training import distributed
from two_processes import run as on_two

RECIPE = """
recipe = "autoencoder"
data = "{data}"
out = "{out}"
size = 16
save_every = 5
[model]
latent_channels = 4
channels = [16, 32]
blocks = 1
groups = 8
middle_attention = false
[fit]
steps = {steps}
batch = 8
lr = 3e-3
warmup = 5
ema = 0.9
parallel = "{parallel}"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    g, rows = np.random.default_rng(0), []
    for i in range(6):
        pixels = g.integers(0, 255, (16, 16, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": "noise", "tags": []}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def recipe(data, folder, steps=8, parallel="data"):
    path = folder / f"{parallel}.toml"
    text = RECIPE.format(data=data, out=folder / parallel, steps=steps, parallel=parallel)
    path.write_text(text)
    return path


def losses(*paths):
    from darkroom.recipes import run

    return [[step.loss for step in run(path)] for path in paths]


@pytest.mark.slow
def test_a_recipe_on_two_processes_gives_the_losses_of_one(data, tmp_path):
    (tmp_path / "one").mkdir()
    (alone,) = losses(recipe(data, tmp_path / "one"))
    paths = [recipe(data, tmp_path, parallel=parallel) for parallel in ("data", "sharded")]
    for found in on_two(losses, *paths):
        assert found == [pytest.approx(alone, rel=1e-5)] * 2
    from darkroom.training.saving import read_state

    expected, _ = read_state(tmp_path / "one" / "data" / "autoencoder.safetensors")
    for parallel in ("data", "sharded"):
        tensors, _ = read_state(tmp_path / parallel / "autoencoder.safetensors")
        assert tensors.keys() == expected.keys()
        for name, tensor in tensors.items():
            assert np.allclose(tensor, expected[name], rtol=1e-2, atol=1e-3), name
        assert (tmp_path / parallel / "report.html").is_file()


def command(*arguments, count=0):
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count else []
    return [sys.executable, *torchrun, "-m", "darkroom.train", *map(str, arguments)]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_without_torchrun_it_is_darkroom_train(data, tmp_path):
    done = subprocess.run(
        command(recipe(data, tmp_path), "--json"), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 8


def test_half_an_environment_is_one_line(data, tmp_path):
    done = subprocess.run(
        command(recipe(data, tmp_path)), capture_output=True, text=True, env=environment(RANK="0")
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "lacks torchrun's LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT" in done.stderr


@pytest.mark.slow
def test_torchrun_trains_and_only_the_first_speaks(data, tmp_path):
    path = recipe(data, tmp_path, parallel="sharded")
    done = subprocess.run(
        command(path, "--json", count=2), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 8
    assert done.stderr.count("step 8 of 8") == 1
    rows = (tmp_path / "sharded" / "log.jsonl").read_text().splitlines()
    assert sum("event" in json.loads(row) for row in rows) == 1


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_torchrun_stops_together_and_goes_on(data, tmp_path, parallel):
    path = recipe(data, tmp_path, steps=100_000, parallel=parallel)
    with subprocess.Popen(
        command(path, count=2), stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        wait_for(tmp_path / parallel / "state.safetensors", process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
    assert "saved; go on with the same command" in said, said
    (tmp_path / "alone").mkdir()
    step = int(said.split("step ")[-1].split(" of")[0]) if "step " in said else 0
    assert step >= 5
    path = recipe(data, tmp_path, steps=step + 3, parallel=parallel)
    (rest,) = losses(path)
    assert len(rest) == 3
    assert not distributed.running()


@pytest.mark.slow
def test_a_process_that_dies_ends_all(data, tmp_path):
    path = recipe(data, tmp_path, steps=100_000)
    with subprocess.Popen(
        command(path, count=2), stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        wait_for(tmp_path / "data" / "state.safetensors", process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    # torchrun may end the survivor before it can say so itself
    assert "has lost another one, whose own message says why" in said or "SIGKILL" in said, said


def wait_for(path, process):
    limit = time.monotonic() + 600
    while not path.is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_full_disk_is_one_line_and_exit_code_1(data, tmp_path):
    """Under a limit on the size of files, which the first state passes."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))\n"
        "from darkroom.train import main\n"
        "main()\n"
    )
    path = recipe(data, tmp_path, steps=20)
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(path), "--json"],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if " % (" not in line]
    assert len(errors) == 1, done.stderr
    assert f"{tmp_path / 'data' / 'state.safetensors'}: no room for" in errors[0]
    assert json.loads(done.stdout)["exit_code"] == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["log.jsonl"]
