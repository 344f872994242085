"""The noise of other programs: NVIDIA's generator, variation seeds, other seeds later."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.philox import CudaNoise, normal
from darkroom.errors import ConfigError
from darkroom.generation.generate import develop, generate
from darkroom.generation.metadata import UsedLora, UsedNoise, infotext, read_params
from darkroom.generation.redraw import redraw
from darkroom.generation.seed_noise import SeedNoise, _mixed
from generation import small

# Of a seed of 0, as people print it who drew it on a GPU.
PUBLISHED = (
    -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122,
    -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497,
)  # fmt: skip


def test_philox_draws_the_published_numbers() -> None:
    assert normal(0, 0, 12) == pytest.approx(PUBLISHED, abs=1e-6)
    many = normal(2**63 + 5, 3, 100_000)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02
    assert np.isfinite(many).all()
    assert not np.array_equal(normal(1, 0, 9), normal(1 + 2**32, 0, 9))


def test_draws_go_on_and_a_batch_is_its_seeds() -> None:
    source = CudaNoise((7, 0), (3, 4))
    first, second = source.fresh(), source.fresh()
    assert first[1].flatten().tolist() == pytest.approx(PUBLISHED, abs=1e-6)
    assert torch.equal(second[0].flatten(), torch.from_numpy(normal(7, 1, 12)))
    assert first.dtype == torch.float32


def first_noise(*features, seeds=(1, 2)) -> torch.Tensor:
    run = generate(small.model(), "a cat", *features, seeds=seeds, steps=2, size=(64, 64)).run
    return run.initial


def test_a_variation_turns_one_noise_into_another() -> None:
    plain = first_noise()
    other = NoiseSource((5, 6), plain.shape[1:]).fresh()
    assert torch.equal(first_noise(SeedNoise(variation=5, strength=0.0)), plain)
    assert torch.allclose(first_noise(SeedNoise(variation=5, strength=1.0)), other, atol=1e-5)
    half = first_noise(SeedNoise(variation=5, strength=0.5))
    column, one, two = (noise[0, 0, :, 0] for noise in (half, plain, other))
    angle = torch.acos(torch.dot(one, two) / one.norm() / two.norm())
    assert torch.allclose(column, (one + two) * torch.sin(angle / 2) / torch.sin(angle), atol=1e-5)
    assert torch.equal(_mixed(plain[0], plain[0], 0.5), plain[0])


def test_later_steps_have_their_own_seed() -> None:
    """Euler has no later noise; the ancestral sampler has."""
    for sampler, same in (("euler", True), ("euler_ancestral", False)):
        drawn = [
            develop(small.model(), "a", *features, seeds=[3], steps=3, size=(64, 64),
                    sampler=sampler)[0]
            for features in ((), (SeedNoise(later=31337),))
        ]  # fmt: skip
        assert (drawn[0].image.tobytes() == drawn[1].image.tobytes()) is same


def test_a_picture_keeps_its_noise(tmp_path) -> None:
    noise = SeedNoise("cuda", variation=5, strength=0.3, later=31337)
    pictures = develop(small.model(), "a", noise, seeds=[3, 4], steps=3, size=(64, 64),
                       sampler="euler_ancestral")  # fmt: skip
    path = pictures[1].save(tmp_path / "x.png")
    used = UsedNoise(source="cuda", variation=5, strength=0.3, later=31337)
    assert read_params(path).noise == used
    again = redraw(small.model(), path)
    assert again.image.tobytes() == pictures[1].image.tobytes()
    assert again.params == pictures[1].params


def test_python_redraws_pictures_of_a1111() -> None:
    line = "Steps: 2, Sampler: {}, CFG scale: 4, Seed: 3, Size: 64x64, Emphasis: No norm, RNG: CPU"
    params = infotext.read(f"a (cat:1.5)\n{line.format('Euler')}")
    drawn = redraw(small.model(), params)
    assert (drawn.params.weighting, drawn.params.origin) == ("no_norm", None)
    usual = redraw(small.model(), replace(params, weighting="a1111"))
    assert usual.image.tobytes() != drawn.image.tobytes()
    assert redraw(small.model(), drawn.params).image.tobytes() == drawn.image.tobytes()
    with pytest.raises(ConfigError, match="A1111, and its sampler 'Restart' is none of Darkroom"):
        redraw(small.model(), infotext.read(f"a\n{line.format('Restart')}"))
    with pytest.raises(ConfigError, match="the remote LoRA 'hf:e/x:x.pt', .* pass remote=True"):
        redraw(small.model(), replace(drawn.params, loras=(UsedLora(name="hf:e/x:x.pt"),)))


@pytest.mark.parametrize(
    "arguments", [{"source": "gpu"}, {"strength": 2.0}, {"variation": -1}, {"variation": 2**64}]
)
def test_what_is_out_of_range_is_refused(arguments) -> None:
    with pytest.raises(ConfigError, match="expected"):
        SeedNoise(**arguments)
