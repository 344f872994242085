"""Sizes that XL is told: equal to diffusers' pipelines."""

import numpy as np
import pytest
import torch

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.metadata import read_params
from darkroom.generation.redraw import redraw
from darkroom.generation.xl.refiner import Refiner
from darkroom.generation.xl.sizes import SizeConditioning
from generation import small
from generation.xl.pairs import NEGATIVE, PROMPT, SCALE, Pair, check, draws, noise, photo, pixels

SIZES = {"original": (128, 96), "crop": (8, 16), "target": (72, 80)}
OTHERS = {"negative_original": (32, 40), "negative_target": (64, 48)}
THEIRS = {
    "original_size": (128, 96),
    "crops_coords_top_left": (8, 16),
    "target_size": (72, 80),
    "negative_original_size": (32, 40),
    "negative_target_size": (64, 48),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Pair:
    return Pair("sdxl", tmp_path_factory.mktemp("xl") / "base")


@pytest.fixture(scope="module")
def refiner(tmp_path_factory) -> Pair:
    return Pair("refiner", tmp_path_factory.mktemp("xl") / "refiner")


@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_text_to_image(base, negative) -> None:
    theirs = base.pipeline(
        PROMPT, negative_prompt=negative, num_inference_steps=4, guidance_scale=SCALE,
        latents=noise(), height=64, width=64, negative_crops_coords_top_left=(24, 0), **THEIRS,
    ).images  # fmt: skip
    told = SizeConditioning(**SIZES, **OTHERS, negative_crop=(24, 0))
    arguments = {"steps": 4, "size": (64, 64), "noise": noise()}
    ours = develop(base.model, PROMPT, Guidance(SCALE, negative), told, **arguments)
    check(ours, theirs)
    plain = develop(base.model, PROMPT, Guidance(SCALE, negative), **arguments)
    assert np.abs(pixels(plain) - pixels(ours)).max() > 0.02  # it matters


def test_one_set_of_sizes_holds_for_both(base) -> None:
    sizes = {key: THEIRS[key] for key in list(THEIRS)[:3]}
    theirs = base.pipeline(
        PROMPT, num_inference_steps=4, guidance_scale=SCALE, latents=noise(), height=64, width=64,
        **sizes,
    ).images  # fmt: skip
    told = Guidance(SCALE), SizeConditioning(**SIZES)
    check(develop(base.model, PROMPT, *told, steps=4, size=(64, 64), noise=noise()), theirs)


def test_image_to_image(base) -> None:
    posterior, first = draws(9)
    theirs = base.image_to_image()(
        PROMPT, image=photo(), strength=0.5, negative_prompt=NEGATIVE, num_inference_steps=8,
        guidance_scale=SCALE, generator=torch.Generator().manual_seed(9), **THEIRS,
    ).images  # fmt: skip
    features = (
        Guidance(SCALE, NEGATIVE),
        SizeConditioning(**SIZES, **OTHERS),
        ImageToImage(photo(), 0.5, noise=posterior),
    )
    check(develop(base.model, PROMPT, *features, steps=8, noise=first), theirs)


def test_the_refiner_s_score(refiner) -> None:
    posterior, first = draws(9)
    theirs = refiner.image_to_image()(
        PROMPT, image=photo(), strength=0.5, negative_prompt=NEGATIVE, num_inference_steps=8,
        guidance_scale=SCALE, generator=torch.Generator().manual_seed(9), aesthetic_score=9.5,
        negative_aesthetic_score=1.0, original_size=(128, 96), negative_original_size=(32, 40),
        negative_crops_coords_top_left=(8, 0),
    ).images  # fmt: skip
    told = SizeConditioning(
        original=(128, 96), score=9.5, negative_original=(32, 40), negative_crop=(8, 0),
        negative_score=1.0,
    )  # fmt: skip
    features = Guidance(SCALE, NEGATIVE), told, ImageToImage(photo(), 0.5, noise=posterior)
    check(develop(refiner.model, PROMPT, *features, steps=8, noise=first), theirs)


def test_the_picture_is_drawn_again(base, refiner, tmp_path) -> None:
    """The sizes hold for the refiner as well."""
    features = Guidance(SCALE, NEGATIVE), SizeConditioning(**SIZES, **OTHERS)
    arguments = {"seeds": [2], "steps": 4, "size": (64, 64)}
    for more, model in ((), None), ((Refiner(refiner.model, 0.5),), refiner.model):
        picture = develop(base.model, PROMPT, *features, *more, **arguments)[0]
        path = picture.save(tmp_path / "x.png")
        assert read_params(path).sizes.negative_original == (32, 40)
        assert np.array_equal(redraw(base.model, path, refiner=model).image, picture.image)
    unsized = develop(base.model, PROMPT, features[0], *more, **arguments)[0]
    assert not np.array_equal(unsized.image, picture.image)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ModelMismatchError, match="small is told no sizes.*SDXL"):
        generate(small.model(), PROMPT, SizeConditioning(original=(512, 512)))
    for wrong in ({"original": (0, 5)}, {"crop": (1, 2, 3)}, {"target": (1.5, 2)}):
        with pytest.raises(ConfigError, match="expected two whole numbers of pixels"):
            SizeConditioning(**wrong)
    with pytest.raises(ConfigError, match="score 11: expected 0 to 10"):
        SizeConditioning(score=11)
