"""How a single file says that its network was trained: velocity, zero terminal SNR, EDM."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from darkroom.diffusion.prediction import Velocity
from darkroom.weights.convert.merging import Recipe, _predictions, merge
from darkroom.weights.families import predicting
from darkroom.weights.inspect import inspect
from darkroom.weights.load import load
from darkroom.weights.save import save
from darkroom.weights.trained import MARKS, VELOCITY, ZERO_TERMINAL_SNR
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
    """NoobAI's and Illustrious' marks through loading, saving, inspect."""
    path = written(tmp_path / "vz.safetensors", plain, v_pred=EMPTY, ztsnr=EMPTY)
    both = load(path)
    assert type(both.prediction) is Velocity
    assert both.schedule.sigmas[-1] > 1000
    report = inspect(path)
    assert (report.prediction, report.prediction_source) == ("velocity", "a mark in the file")
    assert not report.unknown
    save(both, tmp_path / "again.safetensors")
    assert MARKS & set(load_file(tmp_path / "again.safetensors")) == {VELOCITY, ZERO_TERMINAL_SNR}
    again = load(tmp_path / "again.safetensors")
    assert (type(again.prediction), again.schedule) == (Velocity, both.schedule)
    assert not MARKS & set(plain[0])  # as saved of a network that predicts noise


def test_the_marks_go_with_a_merge(plain, tmp_path):
    """What is mixed of networks that predict different things is said, and sampled as the first."""
    a = written(tmp_path / "a.safetensors", plain, v_pred=EMPTY, ztsnr=EMPTY)
    b = written(tmp_path / "b.safetensors", plain)
    steps = list(merge([a, b], tmp_path / "ab.safetensors", Recipe(ratio=0.5)))
    (note,) = [note for step in steps for note in step.notes if "predicts" in note]
    assert "a.safetensors predicts velocity, b.safetensors noise" in note
    assert MARKS & set(load_file(tmp_path / "ab.safetensors")) == {VELOCITY, ZERO_TERMINAL_SNR}


@pytest.mark.parametrize(
    ("kinds", "recipe", "said"),
    [
        (("velocity", "velocity"), Recipe(ratio=0.5), False),
        (("velocity", "noise"), Recipe(ratio=0.5), True),
        (("velocity", "noise"), Recipe(ratio=1.0), False),  # B alone
        (("velocity", "noise"), Recipe(ratio=0.5, ratios={"unet": 0.0}), False),
        (("velocity", "noise", "noise"), Recipe(ratio=0.5, method="difference"), False),
        (("velocity", "velocity", "noise"), Recipe(ratio=0.5, method="difference"), True),
    ],
)
def test_when_a_merge_says_so(kinds, recipe, said):
    model = load("emoji", device="cpu")
    models = [replace(model, sampling=predicting(model.sampling, kind)) for kind in kinds]
    assert bool(list(_predictions(models, ["a", "b", "c"][: len(kinds)], recipe))) is said
