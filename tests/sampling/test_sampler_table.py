"""A sampler is one function and one row, and works everywhere from then on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.diffusion.sampler_options import option_names
from darkroom.diffusion.samplers import SAMPLERS
from darkroom.sampling.table import TABLE, meant

TESTS = Path(__file__).parents[1]
FUNCTION = """
from darkroom.diffusion.samplers.step import Step, sampler

@sampler
def toy(denoise, x, levels, noise, *, eta: float = 0.0):
    for i, (sigma, to) in enumerate(levels.pairs):
        denoised = denoise(x, sigma)
        x = denoised + (to / sigma) * (x - denoised)
        yield Step(i, levels.sigmas[i + 1], x, denoised)
"""
ROW = """
from darkroom.sampling import classes
from darkroom.sampling.table import TABLE, SamplerRow

TABLE["toy"] = SamplerRow(
    scheduler=classes.SchedulerClass(
        name="ToyScheduler", grid="k", defaults={**classes.EULER.defaults, "toyness": 0.5}
    ),
    options=lambda read: {"eta": read["toyness"]},
    a1111={"Toy!": {}},
)
"""
USED = """
import contextlib, io
import torch
from darkroom.app import values
from darkroom.app.cli import run
from darkroom.app.drawing.request import Request
from darkroom.app.grid.axes import axis
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.generation.generate import develop
from darkroom.generation.metadata import infotext
from generation import small

config = SamplingConfig.from_diffusers({"_class_name": "ToyScheduler", "toyness": 0.25})
assert config.sampler == "toy" and config.options() == {"eta": 0.25}
assert config.to_diffusers()["_class_name"] == "ToyScheduler"
(picture,) = develop(small.model(sampling=config), "a cat", steps=2)
assert picture.params.sampler == "toy"
(euler,) = develop(small.model(sampling=config), "a cat", steps=2, sampler="euler")
assert picture.image.tobytes() == euler.image.tobytes()
assert "Sampler: Toy!" in infotext.write(picture.params)
assert infotext.read(infotext.write(picture.params)).sampler == "toy"
out = io.StringIO()
with contextlib.redirect_stdout(out):
    assert run(["generate", "--help-all"]) == 0
assert "toy" in out.getvalue()
assert values.sampler("toy") == "toy" and values.complete_sampler("to") == ["toy"]
assert [v.change(Request()).sampler for v in axis("sampler=toy,euler", {}).values] == [
    "toy", "euler"
]
"""


def test_a_new_sampler_is_a_function_and_a_row():
    done = subprocess.run(
        [sys.executable, "-c", ROW + FUNCTION + USED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])},
    )
    assert done.returncode == 0, done.stderr


def test_rows_and_functions_are_the_same_samplers():
    assert set(TABLE) == set(SAMPLERS)


@pytest.mark.parametrize("name", TABLE)
def test_options_that_labels_mean_exist(name):
    row = TABLE[name]
    for labels in (row.a1111, row.comfyui, row.invokeai):
        for options in labels.values():
            assert set(options) <= set(option_names(name))


@pytest.mark.parametrize("name", TABLE)
def test_eta_is_an_option_of_those_that_say_so(name):
    assert not TABLE[name].eta or "eta" in option_names(name)


@pytest.mark.parametrize("program", ["a1111", "comfyui", "invokeai"])
def test_a_name_means_one_sampler(program):
    names = [label for row in TABLE.values() for label in getattr(row, program)]
    assert len(names) == len(set(names))


def documented(name: str) -> str:
    row = TABLE[name]
    scheduler = "none (k-diffusion's)" if row.when is None else row.scheduler.name
    scheduler += f"; `{row.settings['algorithm_type']}`" if row.settings else ""
    cells = (
        f"`{name}`",
        scheduler,
        next(iter(row.a1111), "-"),
        next(iter(row.comfyui), "-"),
        row.order,
        "yes" if row.stochastic else "no",
        str(row.calls),
        row.note,
    )
    return f"| {' | '.join(cells)} |"


def test_the_documentation_is_the_table():
    lines = (TESTS.parent / "docs/samplers.md").read_text("utf-8").splitlines()
    first = lines.index(documented("ddpm"))
    assert lines[first : first + len(TABLE) + 1] == [*map(documented, TABLE), ""]
    assert f"[{len(TABLE)} samplers]" in (TESTS.parent / "README.md").read_text("utf-8")


def test_names_of_other_programs():
    assert meant("dpm++ 2m sde heun") == "dpmpp_2m_sde"
    assert meant("LCMScheduler") == "lcm"
    assert meant("Restart") is None
