"""Timesteps that are asked for one by one."""

import numpy as np
import pytest
import torch

import darkroom as dr
from darkroom.errors import ConfigError
from darkroom.generation.metadata import infotext
from darkroom.generation.metadata.params import Params
from darkroom.generation.redraw import redraw
from generation import small

ASKED = [999, 749, 499, 249]


@pytest.fixture(scope="module")
def model():
    return small.model()


def test_they_are_visited_kept_and_redrawn(model, tmp_path):
    (picture,) = dr.develop(model, "a cat", seeds=[3], timesteps=ASKED)
    assert picture.params.timesteps == tuple(ASKED)
    assert picture.params.steps == 4 and picture.params.spacing == ""
    picture.save(tmp_path / "cat.png")
    again = redraw(model, tmp_path / "cat.png")
    assert np.array_equal(np.asarray(again.image), np.asarray(picture.image))
    assert again.params.timesteps == tuple(ASKED)


def test_the_network_is_told_them(model):
    run = dr.generate(model, "a cat", timesteps=np.array([900, 40]), sampler="heun")
    assert run.run.levels.timesteps == (900, 40) and len(run) == 3
    assert run.params.timesteps == (900, 40)


@pytest.mark.parametrize("given", [tuple(ASKED), np.array(ASKED), torch.tensor(ASKED), [999.0, 3]])
def test_any_list_of_numbers(model, given):
    assert dr.generate(model, "a cat", timesteps=given).run.levels.timesteps[0] == 999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timesteps": [499, 999]}, "must decrease, but 999 comes after 499"),
        ({"timesteps": [499, 499]}, "must decrease"),
        ({"timesteps": [1000]}, "timestep 1000: expected a whole number from 0 to 999"),
        ({"timesteps": [5, -1]}, "timesteps? -1: expected"),
        ({"timesteps": [5.5]}, "timesteps? 5.5: expected"),
        ({"timesteps": [True]}, "timesteps? True: expected"),
        ({"timesteps": ["5"]}, "timesteps? '5': expected"),
        ({"timesteps": []}, "expected at least one"),
        ({"timesteps": "999,1"}, "expected a list that decreases"),
        ({"timesteps": 999}, "expected a list that decreases"),
        ({"timesteps": ASKED, "steps": 3}, "4 timesteps are 4 steps, but 3 were asked for"),
        ({"timesteps": ASKED, "spacing": "karras"}, "are a spacing of their own"),
    ],
)
def test_what_cannot_be_visited(model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        dr.generate(model, "a cat", **arguments)


@pytest.mark.parametrize(
    ("sampler", "options"), [("tcd", {"eta": 1.5}), ("deis", {"order": 4}), ("dpm2", {"eta": 1.0})]
)
def test_options_out_of_range_are_ours_to_refuse(model, sampler, options):
    with pytest.raises(ConfigError, match=next(iter(options)) + "|orders"):
        dr.develop(model, "a cat", sampler=sampler, options=options, steps=2)


def test_they_fit_into_metadata():
    params = Params(prompt="x", steps=2, timesteps=(9, 3))
    assert Params.from_plain(params.to_plain()) == params
    text = infotext.write(params)
    assert 'Timesteps: "9, 3"' in text and infotext.read(text).timesteps == (9, 3)
    for wrong in ("3, 9", "9", "9, x", "9, 3, 1"):
        assert infotext.read(text.replace("9, 3", wrong)).timesteps == ()
