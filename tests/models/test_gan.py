"""The generative adversarial network: shapes, and who learns from which loss."""

import pytest
import torch

from darkroom.models.gan import GAN, GANConfig

SMALL = GANConfig(size=8, latent=4, channels=(8, 16))


def moved(gan: GAN) -> tuple[bool, bool]:
    """Whether the generator and the discriminator have gradients that are not zero."""
    return tuple(  # pyright: ignore[reportReturnType]
        any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
        for part in (gan.generator, gan.discriminator)
    )


def test_each_loss_moves_its_own_network_only():
    torch.manual_seed(0)
    gan = GAN(SMALL)
    real, z = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 4)
    of_discriminator, of_generator = gan.losses(real, z)
    of_discriminator.backward()
    assert moved(gan) == (False, True)
    gan.zero_grad()
    of_generator.backward()
    assert moved(gan) == (True, False)


def test_the_losses_are_the_hinge():
    torch.manual_seed(0)
    gan = GAN(SMALL).eval()  # no power iteration between the passes
    real, z = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 4)
    discriminator, generator = gan.losses(real, z)
    of_real, of_made = gan.discriminator(real), gan.discriminator(gan(z))
    hinge = (1 - of_real).clamp_min(0).mean() + (1 + of_made).clamp_min(0).mean()
    torch.testing.assert_close(discriminator, hinge)
    torch.testing.assert_close(generator, -of_made.mean())


def test_the_discriminator_s_layers_have_norm_one():
    torch.manual_seed(0)
    gan = GAN(SMALL)
    for _ in range(50):  # one power iteration each
        gan.discriminator(torch.zeros(1, 1, 8, 8))
    for layer in (*gan.discriminator.down, gan.discriminator.output):
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)  # pyright: ignore
        torch.testing.assert_close(norm, torch.ones(()), atol=0.02, rtol=0)


def test_samples():
    torch.manual_seed(0)
    gan = GAN(GANConfig())
    first, again = (gan.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (3, 1, 28, 28) and first.abs().max() <= 1
    assert torch.equal(first, again)
    assert gan.discriminator(first).shape == (3,)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="30 cannot be halved 2 times"):
        GANConfig(size=30)
    with pytest.raises(ValueError, match="multiples of 8"):
        GANConfig(channels=(12, 16))
