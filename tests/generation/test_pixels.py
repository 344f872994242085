"""Drawing without text: seeds, classes and guidance."""

import pytest
import torch

from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.diffusion.prediction import Noise
from darkroom.diffusion.samplers import SAMPLERS
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.generation.pixels import draw, guided
from darkroom.models.unconditional_unet import UnconditionalUNet, UnconditionalUNetConfig

CONFIG = UnconditionalUNetConfig(
    in_channels=1, out_channels=1, channels=(8, 8), attention=(False, True), blocks=1, groups=4
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    unet = UnconditionalUNet(UnconditionalUNetConfig(**{**vars(CONFIG), "classes": 4})).eval()
    sampling = SamplingConfig(sampler="ddpm", settings={"timestep_spacing": "trailing"})
    return PixelDiffusion(
        unet=unet, schedule=sampling.schedule(), prediction=Noise(), sampling=sampling
    )


def last(steps):
    *_, step = steps
    return step.x


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_draws_by_seed_alone(model, sampler):
    labels = torch.tensor([0, 1, 2])
    options = {"sampler": sampler, "steps": 4, "guidance": 2.0, "empty": 3}
    together = last(draw(model, (1, 8, 8), [5, 6, 7], labels, **options))
    assert together.shape == (3, 1, 8, 8) and together.isfinite().all()
    assert not together.requires_grad
    again = last(draw(model, (1, 8, 8), [5, 6, 7], labels, **options))
    assert torch.equal(together, again)
    alone = last(draw(model, (1, 8, 8), [6], labels[1:2], **options))
    torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[0], together[1])


def test_guidance_is_the_formula(model):
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 2])
    told = model.denoise(x, 1.5, labels)
    without = model.denoise(x, 1.5, torch.tensor([3, 3]))
    with torch.no_grad():
        drawn = guided(model, labels, 2.5, empty=3)(x, 1.5)
        plain = guided(model, labels)(x, 1.5)
    torch.testing.assert_close(drawn, without + 2.5 * (told - without))
    torch.testing.assert_close(plain, told)


def test_guidance_needs_classes(model):
    with pytest.raises(ValueError, match="needs labels"):
        draw(model, (1, 8, 8), [1], guidance=2.0)
