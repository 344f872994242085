"""How a single file says that its network was trained: velocity, zero terminal SNR, EDM."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from darkroom.diffusion.prediction import Noise, Velocity
from darkroom.weights.convert.merging import Recipe, merge
from darkroom.weights.inspect import inspect
from darkroom.weights.load import load
from darkroom.weights.save import save
from darkroom.weights.trained import VELOCITY, ZERO_TERMINAL_SNR
from weights import tiny


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A tiny SDXL file as a stock one: its metadata tell sizes and words, no scheduler or scale."""
    folder = tmp_path_factory.mktemp("xl")
    tiny.save(tiny.sdxl(), folder / "folder")
    save(load(folder / "folder"), folder / "whole.safetensors")
    with safe_open(folder / "whole.safetensors", "pt") as file:
        own = json.loads(file.metadata()["darkroom"])
    del own["scheduler"]
    vae = own["configs"]["autoencoder"]
    for name in ("scale", "mean", "deviation"):
        vae.pop(name)
    return load_file(folder / "whole.safetensors"), {"darkroom": json.dumps(own)}


def written(path, plain, **marks):
    state, metadata = plain
    save_file(
        {**state, **{name.replace("__", "."): t for name, t in marks.items()}}, path, metadata
    )
    return path


EMPTY = torch.empty(0)


def test_velocity_and_zero_terminal_snr(plain, tmp_path):
    """NoobAI's and Illustrious' marks, alone and together, through loading, saving, inspect."""
    usual = load(written(tmp_path / "usual.safetensors", plain))
    assert type(usual.prediction) is Noise
    velocity = load(written(tmp_path / "v.safetensors", plain, v_pred=EMPTY))
    assert type(velocity.prediction) is Velocity
    assert velocity.schedule == usual.schedule
    path = written(tmp_path / "vz.safetensors", plain, v_pred=EMPTY, ztsnr=EMPTY)
    both = load(path)
    assert type(both.prediction) is Velocity
    assert both.schedule.sigmas[-1] > 1000 > usual.schedule.sigmas[-1]
    report = inspect(path)
    assert (report.prediction, report.prediction_source) == ("velocity", "a mark in the file")
    assert not report.unknown
    save(both, tmp_path / "again.safetensors")
    assert {VELOCITY, ZERO_TERMINAL_SNR} <= set(load_file(tmp_path / "again.safetensors"))
    again = load(tmp_path / "again.safetensors")
    assert (again.prediction.__class__, again.schedule) == (Velocity, both.schedule)
    save(usual, tmp_path / "plain.safetensors")
    assert not {"v_pred", "ztsnr"} & set(load_file(tmp_path / "plain.safetensors"))


def test_the_marks_go_with_a_merge(plain, tmp_path):
    """Two files that predict velocity make one that does; with one of noise, it is said."""
    a = written(tmp_path / "a.safetensors", plain, v_pred=EMPTY, ztsnr=EMPTY)
    b = written(tmp_path / "b.safetensors", plain, v_pred=EMPTY, ztsnr=EMPTY)
    c = written(tmp_path / "c.safetensors", plain)
    steps = list(merge([a, b], tmp_path / "ab.safetensors", Recipe(ratio=0.5)))
    assert not [note for step in steps for note in step.notes if "predicts" in note]
    merged = load(tmp_path / "ab.safetensors")
    assert type(merged.prediction) is Velocity
    assert merged.schedule.sigmas[-1] > 1000
    assert {"v_pred", "ztsnr"} <= set(load_file(tmp_path / "ab.safetensors"))
    steps = list(merge([a, c], tmp_path / "ac.safetensors", Recipe(ratio=0.5)))
    (note,) = [note for step in steps for note in step.notes if "predicts" in note]
    assert "a.safetensors predicts velocity, c.safetensors noise" in note
