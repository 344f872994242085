"""The normalising flow: its inverse, its log-determinant, its density."""

import math
from typing import TypeVar

import pytest
import torch
from torch import nn

from darkroom.models.flow import (
    ActNorm,
    Coupling,
    Flow,
    FlowConfig,
    Split,
    bits_per_dimension,
    dequantise,
)

SMALL = FlowConfig(size=4, steps=(2, 2), hidden=(8, 8))
T = TypeVar("T", bound=nn.Module)


def shaken(module: T) -> T:
    """In float64, with no weight left at zero."""
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p += 0.2 * torch.randn(p.shape, dtype=p.dtype)
    return module


@pytest.mark.parametrize("config", [SMALL, FlowConfig(steps=(3, 3), hidden=(16, 16))])
def test_the_inverse_inverts(config):
    torch.manual_seed(0)
    flow = Flow(config)
    x = torch.rand(3, 1, config.size, config.size)
    flow.initialise(x)
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.05 * torch.randn(p.shape)
        z, log_det = flow(x)
        assert z.shape == (3, config.size**2) and log_det.shape == (3,)
        torch.testing.assert_close(flow.inverse(z), x, atol=1e-4, rtol=0)
        z = torch.randn_like(z)
        inside = (flow.inverse(z) - 0.5).abs().flatten(1).amax(1) < 0.5
        torch.testing.assert_close(flow(flow.inverse(z))[0][inside], z[inside], atol=1e-3, rtol=0)


def test_the_log_determinant_is_that_of_the_jacobian():
    torch.manual_seed(0)
    flow = shaken(Flow(SMALL))
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    log_det = flow(x)[1]
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one)[0], x[i : i + 1])
        expected = torch.linalg.slogdet(jacobian.reshape(16, 16))[1]  # pyright: ignore
        torch.testing.assert_close(log_det[i], expected)


def test_a_coupling_keeps_the_mass():
    """On a grid of two values: the density that it pulls back integrates to one."""
    torch.manual_seed(0)
    layer = shaken(Coupling(2, 8))
    grid = torch.linspace(-8, 8, 401, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)[:, :, None, None]
    z, log_det = layer(x)
    density = (-0.5 * z.square().sum((1, 2, 3)) - math.log(2 * math.pi) + log_det).exp()
    assert density.sum().item() * (16 / 400) ** 2 == pytest.approx(1, abs=1e-3)


def test_log_prob_is_the_change_of_variables():
    torch.manual_seed(0)
    flow = shaken(Flow(FlowConfig(size=2, steps=(2,), hidden=(8,), dense=(False,))))
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda one: flow(one)[0], x).reshape(4, 4)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(flow(x)[0]).sum()
    torch.testing.assert_close(flow.log_prob(x)[0], base + torch.linalg.slogdet(jacobian)[1])


def test_log_prob_integrates_to_one():
    """Over the four pixels of a 2x2 image, by uniform draws: the mean density is the mass.

    The logit lets a little mass fall outside of [0, 1]; how much is counted by sampling.
    """
    torch.manual_seed(0)
    flow = Flow(FlowConfig(size=2, steps=(2,), hidden=(8,), dense=(False,))).double()
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.1 * torch.randn(p.shape)
        mass = flow.log_prob(torch.rand(200_000, 1, 2, 2, dtype=torch.float64)).exp().mean()
        made = flow.inverse(torch.randn(200_000, 4, dtype=torch.float64))
        inside = ((made >= 0) & (made <= 1)).flatten(1).all(1).double().mean()
    assert mass.item() == pytest.approx(inside.item(), abs=0.01)


def test_the_first_batch_comes_out_normalised():
    torch.manual_seed(0)
    norm, x = ActNorm(3), torch.randn(64, 3, 4, 4) * 5 + 2
    with torch.no_grad():
        norm.initialise(x)
        y = norm(x)[0]
    assert y.mean((0, 2, 3)).abs().max() < 1e-4
    assert (y.std((0, 2, 3)) - 1).abs().max() < 1e-4


def test_a_split_hands_out_normal_values():
    """What it hands out is the other half under a normal density of its own mean and scale."""
    torch.manual_seed(0)
    split = shaken(Split(2))
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    kept, out, log_det = split(x)
    raw_mean, log_scale = split._moments(kept)  # pyright: ignore
    expected = torch.distributions.Normal(raw_mean, log_scale.exp()).log_prob(x[:, 2:]).sum()
    ours = torch.distributions.Normal(0.0, 1.0).log_prob(out).sum() + log_det.sum()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(split.inverse(kept, out), x)


def test_bits_of_uniform_values():
    """A density of one on [0, 1] costs the full eight bits."""
    assert bits_per_dimension(torch.zeros(1), 784).item() == 8
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert dequantise(pixels, torch.tensor([0.0, 0.5])).tolist() == [0.0, 255.5 / 256]


def test_samples():
    torch.manual_seed(0)
    flow = Flow(FlowConfig(steps=(1, 1), hidden=(8, 8)))
    first, again = (flow.sample(3, torch.Generator().manual_seed(1), 0.7) for _ in range(2))
    assert first.shape == (3, 1, 28, 28) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 30}, "30 cannot be halved 2 times"),
        ({"steps": (3,)}, "1, 2 and 2 levels"),
        ({"alpha": 0.5}, "alpha must be"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FlowConfig(**change)
