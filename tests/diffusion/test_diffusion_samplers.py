"""Samplers against closed forms: the perfect denoiser of N(0, 1) data is known."""

import math

import numpy as np
import pytest
import torch

from darkroom.diffusion.levels import Levels
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.prediction import Velocity
from darkroom.diffusion.samplers import SAMPLERS, Limit
from darkroom.diffusion.samplers.linear_multistep import lagrange_integrals
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.diffusion.spacing import karras, leading, trailing
from darkroom.names import SAMPLER_NAMES
from darkroom.sampling.table import TABLE

SCHEDULE = NoiseSchedule.scaled_linear()


class Silent(NoiseSource):
    """No noise: what is left of a stochastic sampler is its mean."""

    def fresh(self):
        return torch.zeros(len(self.generators), *self.shape)


def perfect(x, sigma):
    """E[clean | x] when clean ~ N(0, 1)."""
    return x / (1 + sigma**2)


def geometric(steps):
    """Equal steps in log sigma."""
    return np.geomspace(10, 0.1, steps + 1)


def started(steps):
    """The same after three tiny steps, so that the first orders do not decide the error."""
    h = math.log(100) / steps
    starts = [0.0, *(h * h * i / (3 * math.log(100)) for i in (1, 2, 3))]
    return 10 * np.exp(-np.array([*starts, *(h * (i + 1) for i in range(steps))]))


def linear(steps):
    """Equal steps in sigma."""
    return np.linspace(10, 0.1, steps + 1)


def error(name, sigmas, **options):
    """How far from the probability-flow ODE at the last level before 0."""
    x = torch.tensor([[10.0]], dtype=torch.float64)
    levels = Levels.of((*sigmas, 0.0))
    steps = SAMPLERS[name](perfect, x, levels, Silent([0], (1,)), **options)
    last = [step for step in steps if step.sigma == sigmas[-1]][-1]
    want = x * math.sqrt((1 + sigmas[-1] ** 2) / (1 + sigmas[0] ** 2))
    return abs(last.x - want).item()


@pytest.mark.parametrize(
    ("name", "spaced", "options", "order"),
    [
        ("euler", geometric, {}, 1),
        ("ddim", geometric, {}, 1),
        ("heun", geometric, {}, 2),
        ("pndm", geometric, {}, 2),
        ("pndm", linear, {}, 4),  # its weights are those of equal steps
        ("lms", started, {"order": 1}, 1),
        ("lms", started, {"order": 2}, 2),
        ("lms", started, {"order": 3}, 3),
        ("lms", linear, {"order": 4}, 4),
        ("dpmpp_2m", geometric, {"order": 1}, 1),
        ("dpmpp_2m", geometric, {"order": 2}, 2),
        ("dpmpp_2m", geometric, {"order": 2, "solver": "heun"}, 2),
        ("dpmpp_2m", geometric, {"order": 2, "plus": False}, 2),
        ("dpmpp_2m", started, {"order": 3}, 2),  # as published: half of the second difference
        ("dpmpp_2m", started, {"order": 3, "exact": True}, 3),
        ("dpmpp_2m_sde", geometric, {"eta": 0.0}, 2),
        ("dpmpp_3m_sde", started, {"eta": 0.0, "exact": True}, 3),
        ("dpm2", geometric, {}, 2),
        ("dpm2_ancestral", geometric, {"eta": 0.0}, 2),
        ("dpmpp_2s", geometric, {"eta": 0.0}, 2),
        ("dpmpp_sde", geometric, {"eta": 0.0}, 2),
        ("euler_ancestral", geometric, {"eta": 0.0}, 1),
        ("tcd", geometric, {"eta": 0.0}, 1),
        ("deis", geometric, {"order": 1}, 1),
        ("deis", geometric, {"order": 2}, 2),
        ("deis", started, {"order": 3}, 3),
        ("dpm_singlestep", geometric, {"order": 1}, 1),
        ("dpm_singlestep", geometric, {"order": 2}, 2),
        ("dpm_singlestep", geometric, {"order": 2, "solver": "heun"}, 2),
        ("dpm_singlestep", geometric, {"order": 2, "plus": False}, 2),
        ("dpm_singlestep", geometric, {"order": 3, "solver": "heun"}, 3),
        ("dpm_singlestep", geometric, {"order": 3, "solver": "heun", "plus": False}, 3),
        ("dpm_singlestep", geometric, {"order": 3}, 3),  # equal steps: the nodes of DPM-Solver-3
        ("unipc", geometric, {"order": 1}, 2),  # the corrector adds one
        ("unipc", geometric, {"order": 2}, 3),
        ("unipc", geometric, {"order": 2, "scale": "bh1"}, 3),
        ("unipc", geometric, {"order": 2, "data": False}, 3),
        ("unipc", started, {"order": 3, "lower_order_final": False}, 4),
    ],
)
def test_order_of_convergence(name, spaced, options, order):
    few = 512 if spaced is linear else 126  # of which 252 is a multiple, and both are of 2 and 3
    measured = math.log2(
        error(name, spaced(few), **options) / error(name, spaced(2 * few), **options)
    )
    # 4th-order methods meet float64's rounding: never below the order, sometimes above
    assert order - 0.2 < measured < order + (1 if order == 4 else 0.35)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("degree", [0, 1, 2])
def test_third_order_integrates_quadratics_exactly(degree, eta):
    """With noise too: the mean of the SDE, for an estimate that is a polynomial in log sigma."""
    sigmas = np.geomspace(8, 0.2, 12) * np.linspace(1.1, 1, 12)  # unequal steps
    levels = Levels.of((*sigmas, 0.0))

    def estimate(x, sigma):
        return torch.full_like(x, (-math.log(sigma)) ** degree)

    x = torch.tensor([[3.0]], dtype=torch.float64)
    steps = SAMPLERS["dpmpp_3m_sde"](estimate, x, levels, Silent([0], (1,)), eta=eta, exact=True)
    before = x
    for step, (sigma, to) in zip(list(steps)[:-1], levels.pairs):
        # dx/ds = -(1 + eta)(x - s^degree) with s = -log sigma, by fine quadrature
        h, rate = math.log(sigma / to), 1 + eta
        nodes, weights = np.polynomial.legendre.leggauss(20)
        s = -math.log(sigma) + h * (nodes + 1) / 2
        kernel = np.exp(-rate * (-math.log(to) - s))
        integral = rate * h / 2 * np.sum(weights * kernel * s**degree)
        want = math.exp(-rate * h) * before + integral
        if step.index >= degree:  # the start is of lower order
            torch.testing.assert_close(step.x, want, rtol=1e-9, atol=1e-9)
        before = step.x


def test_linear_multistep_integrates_cubics_exactly():
    nodes, to = (3.0, 3.7, 5.1, 5.2), 1.4
    weights = lagrange_integrals(nodes, to)
    for degree in range(4):
        want = (to ** (degree + 1) - nodes[0] ** (degree + 1)) / (degree + 1)
        got = sum(weight * node**degree for weight, node in zip(weights, nodes))
        assert got == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_every_sampler_reaches_the_data_distribution(name):
    def consistent(x, sigma):
        """What LCM's networks learn: where the flow ends, not the mean of where it may."""
        return x / (1 + sigma**2) ** 0.5

    # LCM takes few steps, and not near timestep 0, where its boundary condition takes over
    sigmas = trailing(SCHEDULE, 8) if name == "lcm" else karras(SCHEDULE, 200)
    levels = Levels.of(sigmas, SCHEDULE)
    noise = NoiseSource([1], (20000,))
    x = levels.initial_scale * noise.fresh()
    denoise = consistent if name == "lcm" else perfect
    options = {"eta": 0.0} if name == "tcd" else {}  # its noise wants a network that jumps exactly
    *_, last = SAMPLERS[name](denoise, x, levels, noise, **options)
    assert last.sigma == 0
    assert last.x.mean().item() == pytest.approx(0, abs=0.03)
    assert last.x.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_one_step_per_call(name):
    calls = []

    def denoise(x, sigma):
        calls.append(sigma)
        return perfect(x, sigma)

    levels = Levels.of(karras(SCHEDULE, 6), SCHEDULE)
    noise = NoiseSource([1, 2], (4,))
    steps = list(SAMPLERS[name](denoise, noise.fresh(), levels, noise))
    assert [step.index for step in steps] == list(range(len(calls)))
    assert len(calls) == {"pndm": 7}.get(name, 5 * TABLE[name].calls + 1)
    assert all(step.x.shape == step.denoised.shape == (2, 4) for step in steps)
    assert steps[-1].sigma == 0


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_generators_are_lazy_and_can_be_left(name):
    def denoise(x, sigma):
        calls.append(sigma)
        return perfect(x, sigma)

    calls = []
    levels = Levels.of(karras(SCHEDULE, 6), SCHEDULE)
    walk = SAMPLERS[name](denoise, torch.zeros(1, 3), levels, NoiseSource([1], (3,)))
    assert calls == []
    next(walk)
    walk.close()
    assert len(calls) == 1


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_state_is_float32_whatever_the_network_returns(name):
    def half(x, sigma):
        assert x.dtype == torch.float32
        return perfect(x, sigma).half()

    levels = Levels.of(karras(SCHEDULE, 4), SCHEDULE)
    x = torch.full((1, 3), levels.sigmas[0], dtype=torch.float16)
    for step in SAMPLERS[name](half, x, levels, NoiseSource([1], (3,))):
        assert step.x.dtype == step.denoised.dtype == torch.float32


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_no_value_is_read_back_from_the_device(name):
    """On the meta device there are no values: reading one raises."""
    levels = Levels.of(karras(SCHEDULE, 4), SCHEDULE)
    x = torch.zeros(2, 3, device="meta")
    *_, last = SAMPLERS[name](perfect, x, levels, NoiseSource([1, 2], (3,), "meta"))
    assert last.x.device.type == "meta"


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_image_of_a_batch_equals_its_seed_alone(name):
    levels = Levels.of(karras(SCHEDULE, 8), SCHEDULE)

    def run(seeds):
        noise = NoiseSource(seeds, (3, 4))
        x = levels.initial_scale * noise.fresh()
        *_, last = SAMPLERS[name](lambda x, s: perfect(x, s).tanh(), x, levels, noise)
        return last.x

    batch = run([5, 6, 7])
    for k, seed in enumerate([5, 6, 7]):
        assert torch.equal(batch[k], run([seed])[0])
    assert not torch.equal(batch[0], batch[1])


def test_estimates_converge_on_the_image():
    """``denoised`` is a picture at every step, ever closer to the last."""
    levels = Levels.of(karras(SCHEDULE, 20), SCHEDULE)
    noise = NoiseSource([3], (1000,))
    steps = list(SAMPLERS["dpmpp_2m"](perfect, levels.initial_scale * noise.fresh(), levels, noise))
    distances = [(step.denoised - steps[-1].x).norm().item() for step in steps]
    assert all(a > b for a, b in zip(distances, distances[1:]))


def test_ddpm_ddim_and_euler_ancestral_are_one_formula():
    levels = Levels.of(karras(SCHEDULE, 10), SCHEDULE)
    ends = []
    for name, options in (("ddpm", {}), ("ddim", {"eta": 1.0}), ("euler_ancestral", {})):
        noise = NoiseSource([1], (50,))
        x = levels.initial_scale * noise.fresh()
        ends.append(list(SAMPLERS[name](perfect, x, levels, noise, **options))[-1].x)
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_pndm_weighs_what_the_network_says():
    """Noise and velocity are different things to average."""
    levels = Levels.of(karras(SCHEDULE, 10), SCHEDULE)
    x = torch.linspace(-20, 20, 9)[None]

    def run(**options):
        *_, last = SAMPLERS["pndm"](
            lambda x, s: perfect(x, s).tanh(), x, levels, NoiseSource([1], (9,)), **options
        )
        return last.x

    assert not torch.allclose(run(), run(prediction=Velocity()), rtol=1e-4)


def test_unknown_option_is_refused_at_the_call():
    levels = Levels.of(karras(SCHEDULE, 4), SCHEDULE)
    arguments = (perfect, torch.zeros(1, 3), levels, NoiseSource([1], (3,)))
    with pytest.raises(ValueError, match="ddim has no option 'etaa'; it has: eta, limit"):
        SAMPLERS["ddim"](*arguments, etaa=1.0)
    with pytest.raises(ValueError, match="euler has no option 'eta'; it has: none"):
        SAMPLERS["euler"](*arguments, eta=1.0)


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("dpmpp_2m", "order", 4, "orders 1, 2 and 3, got 4"),
        ("dpmpp_2m", "order", 0, "must be a whole number from 1, got 0"),
        ("dpmpp_2m", "solver", "midpiont", "must be one of midpoint, heun, got 'midpiont'"),
        ("dpmpp_2m", "lower_order_final", "yes", "must be True or False"),
        ("ddim", "eta", -0.5, "must be a number from 0, got -0.5"),
        ("ddim", "eta", float("nan"), "must be a number from 0"),
        ("ddpm", "variance", "tiny", "must be one of small, large"),
        ("unipc", "scale", "bh3", "must be one of bh1, bh2"),
        ("lms", "order", 2.5, "must be a whole number"),
    ],
)
def test_wrong_option_is_refused_at_the_call(name, option, value, message):
    levels = Levels.of(karras(SCHEDULE, 4), SCHEDULE)
    arguments = (perfect, torch.zeros(1, 3), levels, NoiseSource([1], (3,)))
    with pytest.raises(ValueError, match=message):
        SAMPLERS[name](*arguments, **{option: value})


def test_names():
    assert set(SAMPLERS) == set(SAMPLER_NAMES)


def test_pndm_starts_midway_as_from_noise_when_fresh():
    """Without a past the warm-up is Heun's method, and no level is taken for another."""
    levels = Levels.of(leading(SCHEDULE, 50), SCHEDULE).warmed_up()
    assert levels.calls == 51
    seen = []

    def denoise(x, sigma):
        seen.append(sigma)
        return perfect(x, sigma)

    for done in (1, 5):
        seen.clear()
        late = levels.skip(done).fresh().warmed_up()
        x = torch.full((1, 1), late.sigmas[0])
        steps = list(SAMPLERS["pndm"](denoise, x, late, NoiseSource([1], (1,))))
        assert seen == list(late.sigmas[:-1]) and seen[1] == seen[2]
        want = late.sigmas[0] / math.sqrt(1 + late.sigmas[0] ** 2)
        assert steps[-1].x.item() == pytest.approx(want, rel=0.02)


class TestLimit:
    def test_clip(self):
        assert torch.equal(Limit(0.5)(torch.tensor([[-2.0, 0.2]])), torch.tensor([[-0.5, 0.2]]))

    def test_dynamic_threshold_is_per_image(self):
        images = torch.tensor([[-4.0, 2.0, 0.0], [0.5, -0.25, 0.0]])
        got = Limit(10.0, quantile=1.0)(images)
        assert torch.equal(got, torch.tensor([[-1.0, 0.5, 0.0], [0.5, -0.25, 0.0]]))
