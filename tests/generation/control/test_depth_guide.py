"""Depth to image: equal to diffusers' pipeline; composed, described, drawn again; bad input."""

import re
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
import oracles
from cases import quick
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ConfigError, ImageError, ModelMismatchError
from darkroom.generation.control.depth import DepthGuide, scaled
from darkroom.generation.inpaint import Inpaint
from darkroom.generation.metadata import Params, UsedDepth
from darkroom.generation.redraw import redraw
from darkroom.masks import Mask
from generation.control import depth_pair
from generation.xl.pairs import NEGATIVE, PROMPT, check, photo
from weights import tiny

SCALE = 7.5
SCHEDULERS = {
    "ddim": diffusers.DDIMScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
}


# diffusers asks for autocast to float32, which torch says is none
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.fixture(scope="module")
def pipeline() -> diffusers.StableDiffusionDepth2ImgPipeline:
    return depth_pair.pipeline()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    return tiny.save(pipeline, tmp_path_factory.mktemp("sd2-depth"))


@pytest.fixture(scope="module")
def model(folder) -> LatentDiffusion:
    return dr.load(folder, dtype="float32", device="cpu")


def own_map(height: int = 48, width: int = 48) -> torch.Tensor:
    return torch.rand(1, height, width, generator=torch.Generator().manual_seed(2)) * 900


def noises(height: int = 8, width: int = 8) -> list[torch.Tensor]:
    """As diffusers draws them: the posterior's, then the first."""
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(1, 4, height, width, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("depth", [None, own_map()])
@pytest.mark.parametrize("sampler", quick(["ddim", "euler"], SCHEDULERS))
def test_equal_to_diffusers(pipeline, folder, model, sampler, depth) -> None:
    """With the estimated map, and with one's own; strength 0.7 runs 7 of 10 steps."""
    config = pipeline.scheduler.load_config(folder / "scheduler")
    pipeline.scheduler = SCHEDULERS[sampler].from_config(config)
    theirs = pipeline(
        PROMPT, image=photo(), depth_map=depth, strength=0.7, negative_prompt=NEGATIVE,
        num_inference_steps=10, guidance_scale=SCALE, generator=torch.Generator().manual_seed(9),
    ).images  # fmt: skip
    posterior, first = noises()
    run = dr.generate(
        model, PROMPT, dr.Guidance(SCALE, negative=NEGATIVE),
        DepthGuide(photo(), depth, noise=posterior), steps=10, sampler=sampler, noise=first,
    )  # fmt: skip
    assert len(run) == (13 if sampler == "heun" else 7)
    check(run.pictures(), theirs)


def test_the_map_decides(pipeline, folder, model) -> None:
    """Another map, another picture; equal to diffusers' for a photo that is no square."""
    wide = photo().resize((96, 64), Image.Resampling.BICUBIC)
    posterior, first = noises(8, 12)
    pipeline.scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    pictures = []
    for depth in (None, own_map(30, 45)):
        theirs = pipeline(
            PROMPT, image=wide, depth_map=depth, strength=0.8, num_inference_steps=5,
            guidance_scale=SCALE, generator=torch.Generator().manual_seed(9),
        ).images  # fmt: skip
        guide = DepthGuide(wide, depth, 0.8, noise=posterior)
        ours = dr.develop(
            model, PROMPT, dr.Guidance(SCALE), guide, steps=5, sampler="ddim", noise=first
        )
        check(ours, theirs)
        pictures.append(np.asarray(ours[0].image, float))
    assert np.abs(pictures[0] - pictures[1]).max() > 8


def test_a_batch_has_one_map(model) -> None:
    guide = DepthGuide(photo())
    pair = dr.develop(model, PROMPT, dr.Guidance(3.0), guide, seeds=[1, 2], steps=4)
    alone = dr.develop(model, PROMPT, dr.Guidance(3.0), guide, seeds=[2], steps=4)
    difference = np.asarray(pair[1].image, int) - np.asarray(alone[0].image, int)
    assert np.abs(difference).max() <= 1


def test_pictures_of_depth(tmp_path) -> None:
    """16-bit PNG files keep their numbers; 8-bit ones, RGB that is grey, and alpha are read."""
    numbers = (own_map()[0].numpy() * 70).round()
    Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / "16.png")
    guide = DepthGuide(None, tmp_path / "16.png")
    assert guide.depth is not None
    assert np.array_equal(guide.depth, numbers)
    grey = Image.fromarray((numbers / 256).astype(np.uint8))
    for mode in ("L", "RGB", "RGBA", "LA", "P"):
        grey.convert(mode).save(tmp_path / f"{mode}.png")
        read = DepthGuide(None, tmp_path / f"{mode}.png").depth
        assert np.array_equal(read, np.asarray(grey)), mode
    photo().save(tmp_path / "colour.png")
    with pytest.raises(ImageError, match=r"colour\.png: in colour; give a depth map in grey"):
        DepthGuide(None, tmp_path / "colour.png")


def test_scaling() -> None:
    found = scaled(own_map()[0], (8, 8))
    assert found.shape == (1, 1, 8, 8)
    assert (float(found.min()), float(found.max())) == (-1, 1)


def test_a_map_alone(model) -> None:
    """The run starts from noise, at the map's aspect."""
    run = dr.generate(model, PROMPT, DepthGuide(None, own_map(32, 64)), steps=3)
    assert run.run.size == (48, 88)  # about the model's 64 x 64
    assert run.run.clean is None
    assert len(run) == 3


def test_a_map_is_cropped_with_its_photo(model) -> None:
    """At a size of another shape the middle of both is used."""
    depth = own_map(64, 128)
    wide = photo().resize((128, 64), Image.Resampling.BICUBIC)
    run = dr.generate(model, PROMPT, DepthGuide(wide, depth), steps=3, size=(64, 64))
    expected = scaled(depth[0, :, 32:96], (8, 8))
    assert run.run.concat is not None
    assert torch.equal(run.run.concat, expected)


@pytest.mark.parametrize("own", [False, True])
def test_drawn_again(model, tmp_path, own) -> None:
    depth = own_map() if own else None
    path = dr.develop(
        model, PROMPT, dr.Guidance(3.0), DepthGuide(photo(), depth, 0.6), seeds=[3, 4], steps=5
    )[1].save(tmp_path / "a.png")
    again = redraw(model, path, photo=photo(), depth=depth)
    assert again.image.tobytes() == Image.open(path).convert("RGB").tobytes()
    used = again.params.depth
    assert used is not None
    assert (used.strength, bool(used.map), bool(used.photo)) == (0.6, own, True)
    with pytest.raises(ConfigError, match="the photo is not the one"):
        redraw(model, path, photo=photo().rotate(90), depth=depth)
    with pytest.raises(ConfigError, match="drawn with a photo: give that too"):
        redraw(model, path, depth=depth)
    other = None if own else own_map()
    with pytest.raises(ConfigError, match="depth map"):
        redraw(model, path, photo=photo(), depth=other)


def test_metadata_round_trip() -> None:
    params = Params(prompt="a", depth=UsedDepth(photo="ab", map="cd", strength=None))
    assert Params.from_plain(params.to_plain()) == params
    with pytest.raises(ConfigError, match="was not drawn by depth"):
        redraw(None, Params(prompt="a"), photo=photo(), exact=False)  # pyright: ignore


def test_with_other_features(model) -> None:
    """Image to image says the start; inpainting holds the rest of its picture."""
    mask = Mask(np.arange(64 * 64).reshape(64, 64) % 64 < 30)
    edited = photo().rotate(180)
    pictures = dr.develop(
        model, PROMPT, dr.Guidance(3.0), DepthGuide(photo(), strength=None),
        dr.ImageToImage(photo(), 0.5), Inpaint(edited, mask), steps=4,
    )  # fmt: skip
    outside = ~mask.values
    assert np.array_equal(np.asarray(pictures[0].image)[outside], np.asarray(edited)[outside])
    with pytest.raises(ConfigError, match="both say what the run starts from"):
        dr.generate(model, PROMPT, DepthGuide(photo()), dr.ImageToImage(photo(), 0.5))


def test_the_depth_network_belongs_to_the_fingerprint(model) -> None:
    from darkroom.generation.fingerprint import fingerprint

    assert fingerprint(model) != fingerprint(replace(model, depth=None))


def test_saved_and_read_by_diffusers(model, pipeline, tmp_path) -> None:
    dr.save(model, tmp_path / "folder")
    read = diffusers.StableDiffusionDepth2ImgPipeline.from_pretrained(tmp_path / "folder")
    theirs, ours = pipeline.depth_estimator, read.depth_estimator.eval()
    pixels = read.feature_extractor(photo(), return_tensors="pt").pixel_values
    with torch.no_grad():
        assert oracles.largest(ours(pixels).predicted_depth, theirs(pixels).predicted_depth) == 0
    path = dr.save(model, tmp_path / "one.safetensors")
    again = dr.load(path)
    assert again.depth is not None
    assert again.depth.config == model.depth.config
    assert all(map(torch.equal, again.depth.parameters(), model.depth.parameters()))


def test_bad_input(model, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no photo and no depth map"):
        DepthGuide(None)
    with pytest.raises(ConfigError, match="depth map of 48x24, the photo is 64x64: give a map of"):
        DepthGuide(photo(), own_map(24, 48))
    with pytest.raises(ConfigError, match=r"shape \(3, 48, 48\)"):
        DepthGuide(photo(), own_map().repeat(3, 1, 1))
    with pytest.raises(ConfigError, match="strength 1.5"):
        DepthGuide(photo(), strength=1.5)
    with pytest.raises(ConfigError, match="the same everywhere"):
        dr.generate(model, PROMPT, DepthGuide(photo(), torch.ones(1, 64, 64)))
    with pytest.raises(ConfigError, match="two DepthGuide"):
        dr.generate(model, PROMPT, DepthGuide(photo()), DepthGuide(photo(), strength=None))
    with pytest.raises(ModelMismatchError, match=re.escape("a depth map: DepthGuide(...)")):
        dr.generate(model, PROMPT)
    with pytest.raises(ModelMismatchError, match="has no depth network: give a depth map too"):
        dr.generate(replace(model, depth=None), PROMPT, DepthGuide(photo()))


@pytest.mark.parametrize(
    ("channels", "message"),
    [(4, "use a depth ControlNet"), (9, "an inpainting checkpoint")],
)
def test_other_checkpoints(tmp_path, channels: int, message: str) -> None:
    plain = dr.load(tiny.save(tiny.sd1(in_channels=channels), tmp_path / "sd1"))
    with pytest.raises(ModelMismatchError, match=message):
        dr.generate(plain, PROMPT, DepthGuide(photo()))
