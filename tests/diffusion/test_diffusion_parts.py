"""Predictions, noise, conditioning and the parts of a checkpoint."""

import dataclasses

import pytest
import torch
from torch import nn

from darkroom.diffusion.conditioning import Conditioning
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.prediction import PREDICTIONS, Noise, Velocity
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import NoiseSchedule


class TestPrediction:
    @pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6, 4096.0])
    @pytest.mark.parametrize("name", PREDICTIONS)
    def test_target_is_the_inverse_of_denoised(self, name, sigma):
        prediction = PREDICTIONS[name]()
        clean, noise = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
        output = prediction.target(clean, noise, sigma)
        got = prediction.denoised(clean + sigma * noise, output, sigma)
        torch.testing.assert_close(got, clean, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("name", PREDICTIONS)
    def test_network_sees_unit_variance(self, name):
        """Of N(0, 1) data at any level; flow's interpolant is wider than 1/2 and at most 1."""
        prediction = PREDICTIONS[name]()
        clean, noise = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
        for sigma in (0.05, 1.0, 20.0):
            std = prediction.network_input(clean + sigma * noise, sigma).std().item()
            if name == "flow":
                assert 0.7 < std < 1.01
            else:
                assert std == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize("name", PREDICTIONS)
    def test_one_level_per_image(self, name):
        prediction = PREDICTIONS[name]()
        x, output = torch.randn(2, 3, 1, 2, 2)
        sigmas = torch.tensor([0.1, 1.0, 9.0])
        got = prediction.denoised(x, output, sigmas.view(-1, 1, 1, 1))
        for i, sigma in enumerate(sigmas.tolist()):
            torch.testing.assert_close(got[i], prediction.denoised(x[i], output[i], sigma))

    def test_names(self):
        assert set(PREDICTIONS) == {"noise", "velocity", "sample", "flow"}


class TestNoise:
    def test_batch_equals_each_seed_alone(self):
        batch = NoiseSource([3, 1, 4], (2, 5))
        alone = [NoiseSource([seed], (2, 5)) for seed in (3, 1, 4)]
        for _ in range(3):  # draw after draw
            draw = batch.fresh()
            assert draw.shape == (3, 2, 5) and draw.dtype == torch.float32
            assert torch.equal(draw, torch.cat([source.fresh() for source in alone]))

    def test_neither_threads_nor_the_global_state_matter(self):
        torch.manual_seed(1)
        first = NoiseSource([7], (4,)).fresh()
        torch.manual_seed(2)
        torch.rand(10)
        before, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float64)
            assert torch.equal(NoiseSource([7], (4,)).fresh(), first)
        finally:
            torch.set_default_dtype(dtype)
        assert torch.equal(torch.random.get_rng_state(), before)  # nor is it touched

    def test_draws_and_seeds_differ(self):
        source = NoiseSource([7, 8], (1000,))
        a, b = source.fresh(), source.fresh()
        assert not torch.equal(a, b) and not torch.equal(a[0], a[1])
        assert a.std().item() == pytest.approx(1, abs=0.05)

    def test_same_as_torch_and_so_as_diffusers(self):
        want = torch.randn(2, 3, generator=torch.Generator().manual_seed(11))
        assert torch.equal(NoiseSource([11], (2, 3)).fresh()[0], want)

    def test_needs_a_seed(self):
        with pytest.raises(ValueError, match="at least one seed"):
            NoiseSource([], (2,))


def conditioning(seed: int, batch: int = 1, **without: None) -> Conditioning:
    make = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=make)

    given = {
        "text": draw(5, 4),
        "vector": draw(6),
        "concat": draw(1, 2, 2),
        "residuals": (draw(3), draw(2)),
    }
    return Conditioning(**{**given, **without})


class TestConditioning:
    def test_stacked(self):
        a, b, c = (conditioning(seed) for seed in range(3))
        got = a.stacked(b, c)
        assert len(got) == 3
        assert torch.equal(got.text[1:2], b.text) and torch.equal(got.vector[2:], c.vector)
        assert torch.equal(got.residuals[1][1:2], b.residuals[1])
        assert torch.equal(a.stacked().text, a.text)

    def test_stacked_needs_the_same_fields_and_lengths(self):
        with pytest.raises(ValueError, match="all conditionings must have a vector, or none"):
            conditioning(0).stacked(conditioning(1, vector=None))
        longer = dataclasses.replace(conditioning(1), text=torch.zeros(1, 10, 4))
        with pytest.raises(ValueError, match="one shape"):
            conditioning(0).stacked(longer)

    def test_adding(self):
        bare = conditioning(0, residuals=None)
        extra = [torch.ones(1, 3), torch.ones(1, 2)]
        twice = bare.adding(extra).adding(extra)
        assert torch.equal(twice.residuals[0], 2 * extra[0]) and bare.residuals is None
        with pytest.raises(ValueError, match="zip"):
            twice.adding(extra[:1])

    def test_repeated_keeps_neighbours(self):
        pair = conditioning(0, batch=2)
        assert torch.equal(pair.repeated(2).text[0], pair.text[0])
        assert torch.equal(pair.repeated(2).text[1], pair.text[0])
        assert torch.equal(pair.repeated(2).text[2], pair.text[1])

    def test_to(self):
        half = conditioning(0).to("cpu", torch.float16)
        assert half.text.dtype == half.residuals[1].dtype == torch.float16
        assert conditioning(0, vector=None).to(dtype=torch.float16).vector is None


class Recorder(nn.Module):
    """A network that answers with a convolution and remembers what it was told."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x, t, text, vector=None, residuals=None):
        self.told = x, t, text, vector, residuals
        return self.conv(x)


def model(prediction=None, channels: int = 4) -> LatentDiffusion:
    torch.manual_seed(0)
    return LatentDiffusion(
        unet=Recorder(channels),
        autoencoder=None,
        text_encoder=None,
        schedule=NoiseSchedule.scaled_linear(),
        prediction=prediction or Noise(),
        sampling=SamplingConfig(),
    )


class TestLatentDiffusion:
    @pytest.mark.parametrize("prediction", [kind() for kind in PREDICTIONS.values()])
    def test_denoise(self, prediction):
        parts = model(prediction)
        x, cond = 3 * torch.randn(2, 4, 8, 8), conditioning(0, 2, concat=None)
        with torch.no_grad():
            got = parts.denoise(x, 3.0, cond)
            output = parts.unet.conv(prediction.network_input(x, 3.0))
        torch.testing.assert_close(got, prediction.denoised(x, output, 3.0))
        _, t, text, vector, residuals = parts.unet.told
        assert t.tolist() == pytest.approx([parts.schedule.timestep(3.0)] * 2, rel=1e-6)
        assert torch.equal(text, cond.text) and torch.equal(vector, cond.vector)
        assert torch.equal(residuals[0], cond.residuals[0])

    def test_timestep_can_be_given(self):
        parts = model()
        parts.denoise(torch.zeros(1, 4, 4, 4), 3.0, conditioning(0, concat=None), timestep=261.0)
        assert parts.unet.told[1].tolist() == [261.0]

    def test_extra_channels_are_not_scaled(self):
        parts = model(channels=5)
        concat = torch.randn(1, 1, 8, 8)
        cond = dataclasses.replace(conditioning(0), concat=concat)
        parts.denoise(torch.randn(1, 4, 8, 8), 10.0, cond)
        assert torch.equal(parts.unet.told[0][:, 4:], concat)

    def test_network_in_half_precision(self):
        """It sees its dtype, scaled in float32 before; the estimate is float32."""
        parts = model(Velocity())
        full = parts.denoise(
            x := 4096 * torch.randn(1, 4, 8, 8), 4096.0, conditioning(0, concat=None)
        )
        parts.unet.to(torch.bfloat16)
        got = parts.denoise(x, 4096.0, conditioning(0, concat=None))
        told = parts.unet.told
        assert told[0].dtype == told[2].dtype == told[3].dtype == torch.bfloat16
        assert got.dtype == torch.float32 and torch.isfinite(got).all()
        torch.testing.assert_close(got, full, rtol=0.05, atol=0.05)
        assert parts.dtype == torch.bfloat16 and parts.device == torch.device("cpu")

    def test_gradients_flow_for_training(self):
        parts = model()
        x = torch.randn(2, 4, 8, 8)
        sigma = torch.tensor([0.5, 5.0]).view(-1, 1, 1, 1)
        parts.predict(
            x, sigma, torch.tensor([100.0, 600.0]), conditioning(0, 2, concat=None)
        ).sum().backward()
        assert parts.unet.conv.weight.grad is not None

    def test_parts_can_be_replaced_but_not_changed(self):
        parts = model()
        other = dataclasses.replace(parts, prediction=Velocity(), name="other")
        assert other.unet is parts.unet and other.name == "other" and parts.name == ""
        with pytest.raises(dataclasses.FrozenInstanceError):
            parts.name = "x"
