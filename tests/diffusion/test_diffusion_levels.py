"""Schedules, spacings and levels: golden numbers, inverse pairs, refusals."""

import math

import diffusers
import numpy as np
import pytest
import scipy.stats
import torch
from diffusers_schedulers import LCM, SD2, SD15, SDXL, TURBO

from darkroom.diffusion.beta import beta_quantiles
from darkroom.diffusion.levels import RUNGE_KUTTA, Levels
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.diffusion.spacing import SPACINGS
from darkroom.errors import ConfigError
from darkroom.names import SAMPLER_NAMES, SPACING_NAMES

SD = SamplingConfig.from_diffusers(SD15)


class TestSchedule:
    @pytest.mark.parametrize(
        ("ours", "settings"),
        [
            (NoiseSchedule.linear(), {"beta_start": 1e-4, "beta_end": 0.02}),
            (
                NoiseSchedule.scaled_linear(),
                {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
            ),
            (NoiseSchedule.cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
            (
                NoiseSchedule.from_betas([0.1, 0.2, 0.3]),
                {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
            ),
        ],
    )
    def test_equals_diffusers(self, ours, settings):
        alpha_bar = diffusers.DDPMScheduler(**settings).alphas_cumprod
        got = 1 / (1 + torch.tensor(ours.sigmas) ** 2)
        torch.testing.assert_close(got, alpha_bar, rtol=1e-5, atol=1e-8)

    def test_zero_terminal_snr_equals_diffusers(self):
        ours = NoiseSchedule.scaled_linear().zero_terminal_snr()
        theirs = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            rescale_betas_zero_snr=True,
        )
        want = ((1 - theirs.alphas_cumprod) / theirs.alphas_cumprod) ** 0.5
        torch.testing.assert_close(torch.tensor(ours.sigmas), want, rtol=1e-4, atol=0)
        assert ours.sigmas[-1] == pytest.approx(4096, rel=1e-6)
        assert ours.sigmas[0] == pytest.approx(NoiseSchedule.scaled_linear().sigmas[0], rel=1e-4)

    def test_golden_numbers(self):
        """features-and-formats.md 0.4: the MNIST DDPM and Stable Diffusion."""
        mnist = NoiseSchedule.linear()
        assert mnist.alpha_bar(0) == pytest.approx(0.99990, abs=1e-6)
        assert mnist.alpha_bar(499) == pytest.approx(0.07859, abs=1e-5)
        assert mnist.alpha_bar(999) == pytest.approx(4.036e-5, rel=1e-3)
        assert NoiseSchedule.scaled_linear().sigmas[-1] == pytest.approx(14.6146, abs=1e-4)

    def test_timestep_and_sigma_are_inverse(self):
        schedule = NoiseSchedule.scaled_linear()
        for timestep in (0.0, 0.5, 17.25, 500.0, 999.0):
            assert schedule.timestep(schedule.sigma(timestep)) == pytest.approx(timestep, abs=1e-3)
        assert schedule.timestep(1e6) == 999  # clipped
        assert schedule.timestep(0.0) == 0

    def test_must_increase(self):
        with pytest.raises(ConfigError, match="increase"):
            NoiseSchedule((1.0, 0.5))


class TestSpacings:
    @pytest.mark.parametrize("name", SPACING_NAMES)
    @pytest.mark.parametrize("steps", [1, 2, 10, 30, 999])
    def test_decrease_to_zero_within_the_schedule(self, name, steps):
        schedule = NoiseSchedule.scaled_linear()
        sigmas = SPACINGS[name](schedule, steps)
        assert len(sigmas) == steps + 1 and sigmas[-1] == 0
        assert all(a > b for a, b in zip(sigmas, sigmas[1:]))
        assert schedule.sigmas[0] * 0.999 < sigmas[-2] and sigmas[0] < schedule.sigmas[-1] * 1.001

    def test_names(self):
        assert set(SPACINGS) == set(SPACING_NAMES)

    def test_karras_is_even_in_the_seventh_root(self):
        sigmas = np.array(SPACINGS["karras"](NoiseSchedule.scaled_linear(), 10)[:-1])
        assert np.ptp(np.diff(sigmas ** (1 / 7))) < 1e-12

    @pytest.mark.parametrize("steps", [1, 2, 3, 20, 999])
    def test_beta_equals_scipy(self, steps):
        """As A1111 and diffusers space sigmas; ComfyUI spaces timesteps so."""
        schedule = NoiseSchedule.scaled_linear()
        low, high = schedule.sigmas[0], schedule.sigmas[-1]
        shares = scipy.stats.beta.ppf(1 - np.linspace(0, 1, steps), 0.6, 0.6)
        want = low + shares * (high - low)
        np.testing.assert_allclose(SPACINGS["beta"](schedule, steps)[:-1], want, rtol=1e-12)

    @pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (2.0, 5.0), (0.3, 1.0), (9.0, 0.5)])
    def test_beta_quantiles_equal_scipy(self, a, b):
        shares = np.array([0.0, 1e-9, 1e-3, 0.2, 0.5, 0.77, 0.999, 1.0])
        want = scipy.stats.beta.ppf(shares, a, b)
        np.testing.assert_allclose(beta_quantiles(shares, a, b), want, rtol=1e-9, atol=1e-300)

    def test_sgm_uniform_is_a_uniform_grid_without_its_end(self):
        """As A1111 and ComfyUI have it: between the noisiest and the cleanest level."""
        schedule = NoiseSchedule.scaled_linear()
        for rounded in (True, False):
            config = SamplingConfig(sampler="euler", settings=SD.settings, rounded=rounded)
            levels = config.levels(4, spacing="sgm_uniform")
            assert levels.timesteps == pytest.approx((999, 749.25, 499.5, 249.75), abs=1e-4)
            assert levels.sigmas[:-1] == pytest.approx(
                [schedule.sigma(t) for t in levels.timesteps]
            )
        assert levels.sigmas[-1] == 0
        log = np.log(schedule.sigmas)
        want = 0.75 * log[749] + 0.25 * log[750]
        assert math.log(levels.sigmas[1]) == pytest.approx(want, rel=1e-6)


class TestExplicitTimesteps:
    @pytest.mark.parametrize("sampler", [n for n in SAMPLER_NAMES if n != "pndm"])
    @pytest.mark.parametrize("rounded", [True, False])
    def test_they_are_the_levels_of_every_sampler(self, sampler, rounded):
        config = SamplingConfig(sampler="ddim", settings=SD.settings, rounded=rounded)
        levels = config.levels(sampler=sampler, timesteps=(999, 500, 20))
        assert levels.timesteps == pytest.approx((999, 500, 20), abs=1e-3) and levels.steps == 3
        want = [levels.schedule.sigmas[t] for t in (999, 500, 20)]
        assert levels.sigmas == pytest.approx((*want, 0.0), rel=1e-5)
        assert levels.landing(0) == pytest.approx(want[1], rel=1e-5)

    def test_pndm_names_the_second_one_twice(self):
        assert SD.levels(timesteps=(999, 500, 20)).timesteps == (999, 500, 500, 20)

    def test_a_shape_of_the_configuration_gives_way(self):
        config = SamplingConfig.from_diffusers({**SDXL, "use_karras_sigmas": True})
        assert config.levels(timesteps=(999, 500)).timesteps == (999, 500)


class TestGoldenLevels:
    """features-and-formats.md 0.4, Stable Diffusion at 50 steps."""

    def test_pndm_calls_its_second_level_twice(self):
        levels = SD.levels(50)
        assert levels.calls == len(levels.timesteps) == 51
        assert levels.timesteps[:4] == (981, 961, 961, 941) and levels.timesteps[-1] == 1

    def test_heun_calls(self):
        assert SD.levels(50, "heun").calls == 99

    @pytest.mark.parametrize("sampler", ["lms", "euler", "heun", "euler_ancestral"])
    def test_k_diffusion_starts_at_the_top(self, sampler):
        levels = SD.levels(50, sampler)
        assert levels.timesteps[0] == 999 and levels.timesteps[-1] == 0
        assert levels.initial_scale == pytest.approx(14.6146, abs=1e-4)

    @pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc"])
    def test_dpm_solver_leaves_out_the_cleanest(self, sampler):
        levels = SD.levels(50, sampler)
        assert levels.timesteps[:3] == (999, 979, 959) and levels.timesteps[-1] == 20
        assert levels.initial_scale / (levels.sigmas[0] ** 2 + 1) ** 0.5 == pytest.approx(1)

    @pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
    def test_ddim(self, sampler):
        levels = SD.levels(50, sampler)
        assert levels.timesteps[0] == 981 and levels.timesteps[-1] == 1

    def test_stable_diffusion_stops_at_timestep_0(self):
        levels = SD.levels(50)
        assert levels.sigmas[-1] == 0 and levels.landing(50) == levels.schedule.sigmas[0]

    def test_turbo_and_lcm(self):
        assert SamplingConfig.from_diffusers(TURBO).levels(4).timesteps == (999, 749, 499, 249)
        assert SamplingConfig.from_diffusers(LCM).levels(4).timesteps == (999, 759, 499, 259)


class TestLevels:
    def test_timestep_comes_from_the_table_first(self):
        levels = SD.levels(20, "dpmpp_2m", "karras")
        fractional = levels.schedule.timestep(levels.sigmas[3])
        assert levels.timestep(levels.sigmas[3]) == round(fractional) != fractional
        between = (levels.sigmas[3] + levels.sigmas[4]) / 2
        assert levels.timestep(between) == levels.schedule.timestep(between)

    def test_every_timestep_of_pndm_is_found_although_one_level_is_named_twice(self):
        levels = SD.levels(20)
        for sigma, timestep in zip(levels.sigmas, levels.timesteps):
            assert levels.timestep(sigma) == timestep

    def test_strength_counts_as_diffusers(self):
        levels = SD.levels(50, "ddim")
        assert levels.strength(1.0).timesteps == levels.timesteps
        assert levels.strength(0.8).timesteps == levels.timesteps[10:]
        assert levels.strength(0.55).timesteps == levels.timesteps[23:]
        assert levels.strength(0.8).skipped == levels.sigmas[:10]
        assert levels.strength(0.8).fresh().skipped == ()

    def test_pndm_with_runge_kutta_starts_midway_with_the_short_warm_up(self):
        config = SamplingConfig.from_diffusers({**SD15, "skip_prk_steps": False})
        whole = config.levels(10)
        assert whole.warm_up == RUNGE_KUTTA and whole.strength(1.0) == whole
        late = whole.strength(0.4)
        assert late.timesteps == (301, 201, 201, 101, 1) and late.calls == 5
        assert late.skipped == () and late.warm_up == 2 and late.stride == whole.stride
        assert whole.strength(0.1).timesteps == (1,)
        with pytest.raises(ValueError, match="cannot start midway"):
            whole.skip(3)

    def test_strength_too_small_or_too_large(self):
        levels = SD.levels(10)
        with pytest.raises(
            ValueError, match="leaves none: give a strength of at least 0.1, or at least 20 steps"
        ):
            levels.strength(0.05)
        for wrong in (0, -0.5, 1.5):
            with pytest.raises(ValueError, match="above 0 and at most 1"):
                levels.strength(wrong)
        with pytest.raises(ValueError, match="cannot skip 11 of 11"):
            levels.skip(11)

    def test_skipping_twice_adds_up(self):
        levels = SD.levels(50, "ddim")
        assert levels.skip(3).skip(4) == levels.skip(7)

    def test_must_decrease_to_zero(self):
        with pytest.raises(ValueError, match="closing 0.0"):
            Levels.of((2.0, 1.0))
        with pytest.raises(ValueError, match="decrease"):
            Levels.of((1.0, 2.0, 0.0))
        with pytest.raises(ValueError, match="need 2 timesteps"):
            Levels(sigmas=(2.0, 1.0, 0.0), timesteps=(1.0,), steps=2)


class TestSteps:
    @pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m", "unipc", "lms", "heun"])
    @pytest.mark.parametrize("steps", [1, 3, 7, 61, 123, 333, 499])
    @pytest.mark.parametrize("spacing", SPACING_NAMES)
    def test_any_number_of_steps(self, sampler, steps, spacing):
        levels = SD.levels(steps, sampler, spacing)
        assert len(levels.timesteps) == steps
        assert all(0 <= t <= 999 for t in levels.timesteps)
        assert all(a > b for a, b in zip(levels.sigmas, levels.sigmas[1:]))

    @pytest.mark.parametrize("steps", [0, -1, 1001, 2.5])
    def test_impossible_numbers(self, steps):
        with pytest.raises(ValueError, match="whole number from 1 to 1000"):
            SD.levels(steps)

    @pytest.mark.parametrize(
        ("sampler", "spacing"), [("ddim", "leading"), ("dpmpp_2m", "linspace")]
    )
    def test_too_many_to_space(self, sampler, spacing):
        """An offset past the last timestep; 1001 levels of 1000 timesteps."""
        with pytest.raises(ValueError, match="1000 steps do not fit 1000 timesteps"):
            SD.levels(1000, sampler, spacing)

    def test_lcm_has_no_more_than_it_was_distilled_with(self):
        with pytest.raises(ValueError, match="at most 50"):
            SamplingConfig.from_diffusers(LCM).levels(51)


class TestUnrounded:
    """The textbook forms beside the published rounding."""

    def test_levels_are_the_spacing_itself(self):
        config = SamplingConfig(sampler="dpmpp_2m", settings=SD.settings, rounded=False)
        levels = config.levels(13, spacing="karras")
        assert levels.sigmas == SPACINGS["karras"](config.schedule(), 13)
        assert any(t != round(t) for t in levels.timesteps)
        rounded = SD.levels(13, "dpmpp_2m", "karras")
        assert rounded.sigmas == pytest.approx(levels.sigmas, rel=1e-6)
        assert all(t == round(t) for t in rounded.timesteps)

    def test_pndm_and_heun_calls(self):
        config = SamplingConfig(sampler="pndm", settings=SD.settings, rounded=False)
        assert config.levels(50).calls == 51
        assert config.levels(50, "heun").calls == 99

    def test_survives_a_file(self):
        config = SamplingConfig(sampler="euler", settings=SDXL_SETTINGS, rounded=False)
        assert SamplingConfig.from_diffusers(config.to_diffusers()) == config


SDXL_SETTINGS = SamplingConfig.from_diffusers(SDXL).settings


class TestConfig:
    @pytest.mark.parametrize("config", [SD15, SD2, SDXL, TURBO, LCM])
    def test_round_trip(self, config):
        read = SamplingConfig.from_diffusers(config)
        assert SamplingConfig.from_diffusers(read.to_diffusers()) == read
        ours = getattr(diffusers, config["_class_name"]).from_config(read.to_diffusers())
        theirs = getattr(diffusers, config["_class_name"]).from_config(config)
        keep = {k: v for k, v in theirs.config.items() if not k.startswith("_")}
        assert {k: v for k, v in ours.config.items() if not k.startswith("_")} == keep

    @pytest.mark.parametrize(
        ("config", "sampler", "prediction"),
        [(SD15, "pndm", "Noise"), (SD2, "ddim", "Velocity"), (SDXL, "euler", "Noise")],
    )
    def test_reads_published_files(self, config, sampler, prediction):
        read = SamplingConfig.from_diffusers(config)
        assert read.sampler == sampler and type(read.prediction()).__name__ == prediction

    def test_own_defaults_where_the_file_is_silent(self):
        """As from_config: SD 1.5 names no spacing, SDXL does."""
        assert SD.spacing() == "leading" and SD.spacing("dpmpp_2m") == "linspace"
        assert SamplingConfig.from_diffusers(SDXL).spacing("dpmpp_2m") == "leading"

    def test_saved_by_diffusers(self):
        """Such a file states every default; nothing in it may be unknown."""
        for name in ("DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete", "DDPM", "LCM"):
            own = getattr(diffusers, f"{name}Scheduler").from_config(SD15)
            config = {k: v for k, v in own.config.items() if k != "_use_default_values"}
            read = SamplingConfig.from_diffusers({"_class_name": f"{name}Scheduler", **config})
            assert read.levels(10).steps == 10

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"_class_name": "EulerDiscreteSheduler"}, "did you mean 'EulerDiscreteScheduler'"),
            ({"steps_ofset": 1}, "did you mean 'steps_offset'"),
            ({"beta_schedule": "scaled-linear"}, "did you mean 'scaled_linear'"),
            ({"prediction_type": "x"}, "unknown prediction_type 'x'"),
            ({"num_train_timesteps": 10**9}, "from 2 to 100000"),
            ({"num_train_timesteps": "1000"}, "must be a whole number"),
            ({"beta_end": float("nan")}, "must be a number"),
            ({"clip_sample": "no"}, "must be true or false"),
            ({"trained_betas": "none"}, "list of numbers"),
            ({"use_flow_sigmas": True}, "not supported"),
        ],
    )
    def test_strict(self, change, message):
        with pytest.raises(ConfigError, match=message):
            SamplingConfig.from_diffusers({**SD15, **change})

    @pytest.mark.parametrize("config", [SD15, SD2, SDXL, TURBO, LCM])
    @pytest.mark.parametrize("sampler", SAMPLER_NAMES)
    def test_naming_the_spacing_that_it_has_changes_nothing(self, config, sampler):
        """What a picture's metadata records redraws it."""
        for change in ({}, {"use_karras_sigmas": True}, {"use_lu_lambdas": True}):
            read = SamplingConfig.from_diffusers({**config, **change})
            assert read.levels(9, sampler, read.spacing(sampler)) == read.levels(9, sampler)

    def test_needs_a_class(self):
        with pytest.raises(ConfigError, match="_class_name"):
            SamplingConfig.from_diffusers({"beta_start": 0.1})

    def test_bad_betas(self):
        config = SamplingConfig.from_diffusers({**SD15, "trained_betas": [0.1, -0.2, 0.3]})
        with pytest.raises(ConfigError, match="increase"):
            config.schedule()

    def test_bad_names(self):
        with pytest.raises(ValueError, match="did you mean 'euler'"):
            SD.levels(10, "eular")
        with pytest.raises(ValueError, match="did you mean 'karras'.*exponential, karras"):
            SD.levels(10, spacing="karas")
        with pytest.raises(ConfigError, match="did you mean 'pndm'"):
            SamplingConfig(sampler="pndn")

    def test_learned_variance_is_refused_by_the_sampler_that_needs_it(self):
        config = SamplingConfig.from_diffusers(
            {"_class_name": "DDPMScheduler", "variance_type": "learned_range"}
        )
        with pytest.raises(ConfigError, match="variance_type 'learned_range'"):
            config.options()
        assert "variance" not in config.options("ddim")

    def test_names_decide_the_algorithm(self):
        config = SamplingConfig.from_diffusers(
            {**SD15, "_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}
        )
        assert config.sampler == "dpmpp_2m"
        assert config.options()["order"] == 3
        assert config.options("dpmpp_2m_sde")["order"] == 2
        assert config.options("dpmpp_3m_sde")["order"] == 3

    def test_outdated_stable_diffusion_files(self):
        """As StableDiffusionPipeline patches them."""
        old = {key: SD15[key] for key in SD15 if key not in ("steps_offset", "clip_sample")}
        config = SamplingConfig.from_diffusers({**old, "_class_name": "DDIMScheduler"})
        assert config.levels(50).timesteps[-1] == 0 and "limit" in config.options()
        patched = config.for_stable_diffusion()
        assert patched.levels(50).timesteps[-1] == 1 and "limit" not in patched.options()
        assert SD.for_stable_diffusion() == SD

    def test_settings_are_kept_apart_from_the_caller(self):
        settings = dict(SDXL_SETTINGS)
        config = SamplingConfig(sampler="euler", settings=settings)
        settings["steps_offset"] = 7
        assert config.settings["steps_offset"] == 1
