"""The variational autoencoder: its divergence, its likelihood, its bounds."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from darkroom.models import vae
from darkroom.models.vae import VAE, VAEConfig, discretised_logistic

SMALL = VAEConfig(size=8, latent=3, channels=(4, 8), hidden=16)


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8)) / 127.5 - 1


def test_the_divergence_is_that_of_torch():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 7, dtype=torch.float64)
    posterior = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(
        vae.kl_divergence(mean, log_variance), kl_divergence(posterior, prior)
    )


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 2.0])
def test_the_256_values_of_a_pixel_have_probability_one(log_scale):
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean in (-1.2, -1.0, 0.1, 0.99):
        total = discretised_logistic(values, torch.tensor(mean), torch.tensor(log_scale).double())
        assert torch.logsumexp(total, 0).item() == pytest.approx(0, abs=1e-9)


def test_the_likelihood_is_a_difference_of_the_logistic_s_distribution():
    x, mean, scale = torch.tensor(31 / 127.5 - 1).double(), 0.05 - 0.8, 0.1
    upper, lower = (1 / (1 + math.exp(-(x + e - mean) / scale)) for e in (1 / 255, -1 / 255))
    ours = discretised_logistic(x, torch.tensor(mean).double(), torch.tensor(math.log(scale)))
    assert ours.item() == pytest.approx(math.log(upper - lower), abs=1e-6)


def test_far_from_the_mean_the_gradient_is_finite():
    mean = torch.tensor([-1.0, 1.0, 0.0], requires_grad=True)
    log_scale = torch.full((3,), -7.0, requires_grad=True)
    discretised_logistic(torch.tensor([1.0, -1.0, 0.5]), mean, log_scale).sum().backward()
    assert mean.grad.isfinite().all() and log_scale.grad.isfinite().all()  # pyright: ignore


def test_more_draws_give_a_tighter_bound():
    """E[ELBO] <= E[IWAE_k] <= log p(x), which many draws come close to."""
    torch.manual_seed(0)
    model, x = VAE(SMALL).double(), images(6).double()
    with torch.no_grad():
        model.encoder[-1].bias[3:] += 0.5  # pyright: ignore (opens a gap)
        noise = torch.randn(600, 6, 3, dtype=torch.float64)
        likelihood, divergence = zip(*(model.bound(x, draw) for draw in noise), strict=True)
        lower = (torch.stack(likelihood) - torch.stack(divergence)).mean(0)
        one = torch.stack([model.importance_weighted(x, draw[None]) for draw in noise]).mean(0)
        ten = torch.stack([model.importance_weighted(x, n) for n in noise.split(10)]).mean(0)
        many = model.importance_weighted(x, noise)
    torch.testing.assert_close(one, lower, atol=0.5, rtol=0)  # the same bound, other estimate
    assert (lower < ten).all() and (ten < many + 1e-9).all()


def test_the_bound_holds_against_integration():
    """With one latent, log p(x) is a sum over a grid."""
    torch.manual_seed(0)
    config = VAEConfig(size=4, latent=1, channels=(4,), hidden=8)
    model, x = VAE(config).double(), torch.randint(0, 256, (3, 1, 4, 4)).double() / 127.5 - 1
    with torch.no_grad():
        z = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
        prior = Normal(0.0, 1.0).log_prob(z).squeeze(1) + math.log(16 / 4000)
        exact = torch.stack(
            [
                torch.logsumexp(model.log_likelihood(one.expand(len(z), 1, 4, 4), z) + prior, 0)
                for one in x
            ]
        )
        noise = torch.randn(1000, 3, 1, dtype=torch.float64)
        lower = torch.stack([a - b for a, b in (model.bound(x, n) for n in noise)]).mean(0)
        close = model.importance_weighted(x, noise)
    assert (lower <= exact).all()
    torch.testing.assert_close(close, exact, atol=0.05, rtol=0)


def test_samples():
    torch.manual_seed(0)
    model = VAE(VAEConfig())
    first, again = (model.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (3, 1, 28, 28) and first.abs().max() <= 1
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="30 cannot be halved 2 times"):
        VAEConfig(size=30)
