"""The XL refiner: by itself, and taking a run over, equal to diffusers' two pipelines."""

import dataclasses

import diffusers
import numpy as np
import pytest
import torch

from cases import quick
from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.metadata import UsedRefiner, infotext, read_params
from darkroom.generation.redraw import redraw
from darkroom.generation.xl.refiner import Refiner
from darkroom.weights.load import load
from darkroom.weights.save import save
from generation import small
from generation.xl.pairs import NEGATIVE, PROMPT, SCALE, Pair, check, draws, photo, pixels

SCHEDULERS = {
    "euler": diffusers.EulerDiscreteScheduler,
    "ddim": diffusers.DDIMScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
}
GUIDANCE = Guidance(SCALE, negative=NEGATIVE)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Pair:
    return Pair("sdxl", tmp_path_factory.mktemp("xl") / "base")


@pytest.fixture(scope="module")
def refiner(tmp_path_factory) -> Pair:
    return Pair("refiner", tmp_path_factory.mktemp("xl") / "refiner")


@pytest.mark.parametrize("saved", [None, "folder", "file.safetensors"])
def test_image_to_image(refiner, saved, tmp_path) -> None:
    model = refiner.model
    if saved:
        model = load(save(model, tmp_path / saved), dtype="float32", device="cpu")
    refiner.schedule(SCHEDULERS["euler"])
    posterior, first = draws(9)
    theirs = refiner.image_to_image()(
        PROMPT, image=photo(), strength=0.5, negative_prompt=NEGATIVE, num_inference_steps=8,
        guidance_scale=SCALE, generator=torch.Generator().manual_seed(9),
    ).images  # fmt: skip
    start = ImageToImage(photo(), 0.5, noise=posterior)
    check(develop(model, PROMPT, GUIDANCE, start, steps=8, noise=first), theirs)


def test_diffusers_opens_what_is_saved(refiner, tmp_path) -> None:
    again = diffusers.DiffusionPipeline.from_pretrained(save(refiner.model, tmp_path / "again"))
    assert isinstance(again, diffusers.StableDiffusionXLImg2ImgPipeline)
    assert again.config.requires_aesthetics_score
    assert again.text_encoder is None
    for name, tensor in refiner.pipeline.unet.state_dict().items():
        assert torch.equal(tensor, again.unet.state_dict()[name])


@pytest.mark.parametrize(
    ("sampler", "start"),
    quick(
        [("euler", 0.7), ("dpmpp_2m", 0.7), ("euler", 0.35)],
        [*((name, 0.7) for name in SCHEDULERS), ("euler", 0.35)],
    ),
)
def test_it_takes_over(base, refiner, sampler, start) -> None:
    for pair in (base, refiner):
        pair.schedule(SCHEDULERS[sampler])
    generator = torch.Generator().manual_seed(4)
    first = torch.randn(1, 4, 8, 8, generator=generator)  # as the seed's own
    shared = {
        "negative_prompt": NEGATIVE, "num_inference_steps": 10, "guidance_scale": SCALE,
        "generator": generator,
    }  # fmt: skip
    handed = base.pipeline(
        PROMPT, latents=first, denoising_end=start, output_type="latent", height=64, width=64,
        **shared,
    ).images  # fmt: skip
    theirs = refiner.image_to_image()(PROMPT, image=handed, denoising_start=start, **shared).images
    run = generate(
        base.model, PROMPT, GUIDANCE, Refiner(refiner.model, start), seeds=[4], steps=10,
        size=(64, 64), sampler=sampler,
    )  # fmt: skip
    steps = list(run)
    assert [step.index for step in steps] == list(range(len(run)))
    check(run.pictures(), theirs)


def test_it_takes_over_from_image_to_image(base, refiner) -> None:
    for pair in (base, refiner):
        pair.schedule(SCHEDULERS["euler"])
    posterior, first = draws(9)
    shared = {"negative_prompt": NEGATIVE, "num_inference_steps": 12, "guidance_scale": SCALE}
    handed = base.image_to_image()(
        PROMPT, image=photo(), strength=0.6, denoising_end=0.8, output_type="latent",
        generator=torch.Generator().manual_seed(9), **shared,
    ).images  # fmt: skip
    theirs = refiner.image_to_image()(PROMPT, image=handed, denoising_start=0.8, **shared).images
    features = GUIDANCE, Refiner(refiner.model), ImageToImage(photo(), 0.6, noise=posterior)
    check(develop(base.model, PROMPT, *features, steps=12, noise=first), theirs)


def test_the_picture_is_drawn_again(base, refiner, tmp_path) -> None:
    features = Guidance(SCALE), Refiner(refiner.model, 0.6)
    arguments = {"seeds": [3, 4], "steps": 6, "size": (64, 64)}
    picture = develop(base.model, "a [cat|dog]", *features, **arguments)[1]
    path = picture.save(tmp_path / "x.png")
    params = read_params(path)
    assert params.refiner == UsedRefiner(
        name="refiner", start=0.6, fingerprint=params.refiner.fingerprint
    )
    assert "Refiner: refiner, Refiner switch at: 0.6" in infotext.write(params)
    again = redraw(base.model, path, refiner=refiner.model)
    assert np.array_equal(again.image, picture.image)
    with pytest.raises(ConfigError, match="refined by 'refiner': give that model too"):
        redraw(base.model, path)
    with pytest.raises(ModelMismatchError, match="this refiner has"):
        redraw(base.model, path, refiner=base.model)


def test_the_prompt_s_schedule_and_the_interval_span_both_models() -> None:
    """A refiner with the first model's own weights changes nothing for a one-step sampler."""
    model = small.model()
    features = (Guidance(5.0, interval=(0.0, 0.8)),)
    arguments = {"steps": 10, "sampler": "euler", "seeds": [1]}
    plain = develop(model, "a [cat:dog:0.6] in [rain:0.9]", *features, **arguments)
    taken = develop(
        model, "a [cat:dog:0.6] in [rain:0.9]", *features, Refiner(small.model(), 0.5), **arguments
    )
    assert np.abs(pixels(plain) - pixels(taken)).max() <= 1 / 255


def test_heun_is_cut_between_its_steps() -> None:
    model, same = small.model(), small.model()
    arguments = {"steps": 6, "sampler": "heun", "noise": torch.randn(1, 4, 16, 16)}
    plain = develop(model, PROMPT, **arguments)
    run = generate(model, PROMPT, Refiner(same, 0.5), **arguments)
    assert len(list(run)) == len(run)
    assert np.abs(pixels(plain) - pixels(run.pictures())).max() <= 1 / 255


def test_what_cannot_take_over_is_refused() -> None:
    model = small.model()
    for start in (0, 1, -1):
        with pytest.raises(ConfigError, match="expected between 0 and 1; 0.8 is usual"):
            Refiner(model, start)
    with pytest.raises(ModelMismatchError, match="a UNet refines nothing"):
        Refiner(model.unet)
    with pytest.raises(ConfigError, match="leaves the refiner no step of 4: lower it"):
        generate(model, PROMPT, Refiner(small.model(), 0.9999), steps=4)
    with pytest.raises(ConfigError, match="leaves the model before it no step of 1: raise it"):
        generate(model, PROMPT, Refiner(small.model(), 0.2), ImageToImage(photo(), 0.3), steps=4)
    with pytest.raises(ConfigError, match="two features hand the run over"):
        generate(model, PROMPT, Refiner(small.model()), Refiner(small.model()))
    nine = small.model(unet=dataclasses.replace(small.UNET, in_channels=9))
    with pytest.raises(ModelMismatchError, match="takes 9 input channels: expected a plain"):
        generate(model, PROMPT, Refiner(nine))
    other = small.SamplingConfig(sampler="euler", settings={"beta_schedule": "linear"})
    with pytest.raises(ModelMismatchError, match="other noise levels than small"):
        generate(model, PROMPT, Refiner(small.model(schedule=other.schedule())))
