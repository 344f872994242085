"""Turbo models: one to four steps without guidance, equal to diffusers' pipelines."""

import diffusers
import pytest
import torch

from cases import quick
from darkroom.errors import ConfigError
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.weights import catalog, families
from generation.xl.pairs import NEGATIVE, PROMPT, Pair, check, draws, photo


@pytest.fixture(scope="module", params=quick(["sdxl"], ["sdxl", "sd2"]))
def turbo(request, tmp_path_factory) -> Pair:
    """With the scheduler of stabilityai/sdxl-turbo, which sd-turbo's single file gets as well."""
    scheduler = diffusers.EulerAncestralDiscreteScheduler(
        **{key: value for key, value in families.TURBO.items() if key[0] != "_"}
    )
    folder = tmp_path_factory.mktemp(request.param) / "turbo"
    return Pair(request.param, folder, scheduler)


@pytest.mark.parametrize("steps", quick([1, 4], [1, 2, 4]))
def test_text_to_image(turbo, steps) -> None:
    generator = torch.Generator().manual_seed(7)
    first = torch.randn(1, 4, 8, 8, generator=generator)  # as the seed's own
    theirs = turbo.pipeline(
        PROMPT, num_inference_steps=steps, guidance_scale=0.0, latents=first, generator=generator,
        height=64, width=64,
    ).images  # fmt: skip
    for off in (Guidance(0.0), Guidance(1.0)):
        ours = develop(turbo.model, PROMPT, off, seeds=[7], steps=steps, size=(64, 64))
        check(ours, theirs)


@pytest.mark.parametrize(("steps", "strength"), [(2, 0.5), (4, 0.5), (1, 1.0)])
def test_image_to_image(turbo, steps, strength) -> None:
    """One draw from a generator each: the posterior's noise, the first, then the sampler's."""
    posterior, first = draws(9)
    generator = torch.Generator().manual_seed(9)
    theirs = turbo.image_to_image()(
        PROMPT, image=photo(), strength=strength, num_inference_steps=steps, guidance_scale=0.0,
        generator=generator,
    ).images  # fmt: skip
    start = ImageToImage(photo(), strength, noise=posterior)
    run = generate(turbo.model, PROMPT, Guidance(0.0), start, steps=steps, noise=first)
    for own in run.run.noise.generators:  # go on where theirs did
        own.manual_seed(9)
        torch.randn(2, 4, 8, 8, generator=own)
    check(run.pictures(), theirs)


def test_too_few_steps_say_how_many_it_takes(turbo) -> None:
    with pytest.raises(ConfigError, match=r"strength 0.6 of 1 step.* leaves none.* 2 steps"):
        generate(turbo.model, PROMPT, ImageToImage(photo(), 0.6), steps=1)


def test_a_negative_prompt_is_an_error_that_explains() -> None:
    for scale in (0.0, 0.5, 1.0):
        with pytest.raises(ConfigError, match="does nothing at guidance .*raise the guidance"):
            Guidance(scale, negative=NEGATIVE)


def test_the_catalogue_knows_how_turbo_is_drawn() -> None:
    for name in ("sd-turbo", "sdxl-turbo", "stabilityai/sdxl-turbo"):
        known = catalog.lookup(name)
        assert known is not None
        assert known.settings["steps"] == 1
        assert known.settings["guidance"] == 1.0
        assert known.settings["size"] == (512, 512)
