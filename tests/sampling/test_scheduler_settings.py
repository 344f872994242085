"""What a scheduler configuration may say: everything that diffusers takes, and nothing else."""

import inspect
import sys
import warnings
from types import ModuleType
from unittest import mock

import diffusers
import pytest
from diffusers.configuration_utils import ConfigMixin

from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import BETAS
from darkroom.errors import ConfigError
from darkroom.sampling.classes import TRAINED
from darkroom.sampling.settings import IGNORED, WORDS, check, scheduler_classes

with mock.patch.dict(sys.modules, {"torchsde": ModuleType("torchsde")}):
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NAMES = sorted(scheduler_classes())


def theirs(name: str) -> type[ConfigMixin]:
    return DPMSolverSDEScheduler if "SDE" in name else getattr(diffusers, name)


def read(**settings: object) -> SamplingConfig:
    return SamplingConfig.from_diffusers(
        {"_class_name": "DDIMScheduler", "_diffusers_version": "0.2.0", **BASE, **settings}
    )


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_diffusers_own(name):
    """Every key that a class takes, and its default; of the limits that it takes unsaid, none."""
    ours = dict(scheduler_classes()[name].defaults)
    parameters = inspect.signature(theirs(name).__init__).parameters
    wanted = {key: p.default for key, p in parameters.items() if key not in ("self", "kwargs")}
    for key in ("sigma_min", "sigma_max"):
        if key not in wanted:
            assert ours.pop(key, None) is None
    for key in ("disable_corrector",):  # a list
        assert list(ours.pop(key, ())) == list(wanted.pop(key, ()))
    assert ours == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_diffusers_saved_is_read(name):
    """Whatever class it was handed on from: such a file keeps the other class's keys."""
    everything = {}
    for cls in scheduler_classes().values():
        everything |= {k: v for k, v in cls.defaults.items() if k != "algorithm_type"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = dict(theirs(name).from_config({**everything, "shift": 3.0}).config)
    assert {"sigma_data", "shift", "skip_prk_steps"} <= set(saved)
    found = SamplingConfig.from_diffusers({"_class_name": name, **saved})
    assert found.levels(4).steps == 4 and found.options() is not None


def test_words_are_those_that_are_known():
    assert set(WORDS["beta_schedule"]) == set(BETAS)
    assert set(TRAINED) <= set(scheduler_classes()["DDIMScheduler"].defaults)


@pytest.mark.parametrize(
    "key",
    sorted(
        {
            *IGNORED,
            "skip_prk_steps",
            "solver_p",
            "trained_betas",
            "clip_sample_range",
            "variance_type",
            "use_beta_sigmas",
            "noise_sampler_seed",
            "sigma_data",
        }
    ),
)
def test_null_says_nothing(key):
    assert read(**{key: None}).levels(7) == read().levels(7)


def test_retired_keys_say_nothing():
    """As published in the first files of Stable Diffusion."""
    old = {"timestep_values": None, "tensor_format": "pt", "predict_epsilon": True}
    assert read(**old).levels(7) == read().levels(7)
    more = {"timestep_values": [1, 2], "use_flow_sigmas": False, "flow_shift": 3.0, "shift": 3.0}
    assert read(**more).levels(7) == read().levels(7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timestep_value": None}, "unknown scheduler setting 'timestep_value'; did you mean"),
        ({"jump": 3}, "unknown scheduler setting 'jump'"),
        ({"predict_epsilon": False}, "say prediction_type='sample' instead"),
        ({"prediction_type": "flow_prediction"}, "needs flow sigmas, which are not supported"),
        ({"use_flow_sigmas": True}, r"use_flow_sigmas=True is not supported \(flow models"),
        ({"use_dynamic_shifting": True}, "not supported"),
        ({"shift_terminal": 0.1}, "not supported"),
        ({"solver_p": {"_class_name": "x"}}, "not supported"),
        ({"noise_sampler_seed": 0}, "noise depends on the picture's seed alone"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "exclude each other"),
        ({"sigma_min": 5.0, "sigma_max": 1.0}, "must be below sigma_max=1"),
        ({"sigma_min": 0}, "must be a number from"),
        ({"sigma_max": "14"}, "must be a number from"),
        ({"sigma_max": float("nan")}, "must be a number from"),
        ({"sample_max_value": 0.0}, "must be a number from"),
        ({"clip_sample_range": -1.0}, "must be a number from"),
        ({"use_beta_sigmas": 1}, "must be true or false"),
        ({"timestep_type": "fluid"}, "unknown timestep_type 'fluid'"),
        ({"interpolation_type": "cubic"}, "unknown interpolation_type 'cubic'"),
        ({"final_sigmas_type": 0}, "unknown final_sigmas_type 0"),
        ({"sigma_schedule": "linear"}, "unknown sigma_schedule 'linear'"),
    ],
)
def test_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m", "dpm_singlestep"])
def test_learned_variance_is_refused(sampler):
    config = read(variance_type="learned_range")
    with pytest.raises(ConfigError, match="variance_type 'learned_range' is not supported by"):
        config.options(sampler)
    assert read(variance_type="fixed_small").options(sampler)


def test_a_noise_that_singlestep_has_not_is_refused():
    config = read(algorithm_type="sde-dpmsolver")
    with pytest.raises(ConfigError, match="not supported by dpm_singlestep: expected dpmsolver"):
        config.options("dpm_singlestep")


def test_check_takes_plain_settings():
    check({"beta_start": 0.1, "tensor_format": "np"})


def test_edm_networks_are_told_sigmas():
    config = SamplingConfig.from_diffusers({"_class_name": "EDMEulerScheduler"})
    assert config.edm and config.sampler == "euler" and config.spacing() == "karras"
    levels = config.levels(10)
    assert levels.sigmas[0] == pytest.approx(80) and levels.sigmas[-2] == pytest.approx(0.002)
    assert levels.timesteps[0] == pytest.approx(0.25 * 4.3820266)
    assert config.schedule().told(1.0) == 0.0
    assert SamplingConfig.from_diffusers(config.to_diffusers()) == config


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "pndm", "dpm2", "dpmpp_sde", "unipc", "deis"])
@pytest.mark.parametrize("spacing", [None, "exponential", "beta", "trailing"])
def test_any_sampler_draws_with_an_edm_network(sampler, spacing):
    config = SamplingConfig.from_diffusers({"_class_name": "EDMEulerScheduler"})
    levels = config.levels(6, sampler, spacing)
    assert levels.sigmas[0] == pytest.approx(80, rel=1e-3)
    assert levels.timestep(3.3) == pytest.approx(0.25 * 1.19392247)
    assert "limit" not in config.options(sampler)


def test_what_needs_timesteps_is_refused_for_an_edm_network():
    config = SamplingConfig.from_diffusers({"_class_name": "EDMDPMSolverMultistepScheduler"})
    for sampler in ("lcm", "tcd"):
        with pytest.raises(ValueError, match=f"{sampler} needs timesteps"):
            config.levels(4, sampler)
    with pytest.raises(ValueError, match="has no timesteps, its levels are sigmas"):
        config.levels(timesteps=[999, 499])
    sample = SamplingConfig.from_diffusers(
        {"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}
    )
    with pytest.raises(ConfigError, match="expected epsilon or v_prediction"):
        sample.prediction()


def test_a_sampler_without_a_class_survives_a_file():
    config = SamplingConfig(sampler="dpmpp_2s", settings=BASE)
    file = config.to_diffusers()
    assert file["_class_name"] == "KDPM2AncestralDiscreteScheduler"
    assert SamplingConfig.from_diffusers(file) == config
