"""The names that the command line knows without torch are the ones that exist."""

from darkroom.diffusion.samplers import SAMPLERS
from darkroom.diffusion.spacing import SPACINGS
from darkroom.names import SAMPLER_NAMES, SPACING_NAMES, did_you_mean, nearest


def test_samplers():
    assert set(SAMPLER_NAMES) == set(SAMPLERS)


def test_spacings():
    assert set(SPACING_NAMES) == set(SPACINGS)


def test_the_nearest_name():
    assert nearest("dpmpp2m", SAMPLER_NAMES) == "dpmpp_2m"
    assert nearest("EULER", SAMPLER_NAMES) == "euler"
    assert nearest("watercolour", SAMPLER_NAMES) is None
    assert nearest("DPM2 a", SAMPLER_NAMES) == "dpm2_ancestral"
    assert nearest("DPM++ SDE Karras", SAMPLER_NAMES) == "dpmpp_sde"
    assert nearest("k_dpm_2_a", SAMPLER_NAMES) == "dpm2_ancestral"
    assert nearest("DEISMultistepScheduler", SAMPLER_NAMES) == "deis"
    assert nearest("DPM2 a", SPACING_NAMES) is None
    assert did_you_mean("karas", SPACING_NAMES) == "; did you mean 'karras'?"
    assert did_you_mean("qqq", SPACING_NAMES) == ""
