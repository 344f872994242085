"""What inpainting leaves alone, what it cuts out and puts back, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
from darkroom.errors import ConfigError, ImageError, ModelMismatchError
from darkroom.generation.feature import Feature
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.inpaint import pad_canvas
from darkroom.generation.inpaint.canvas import around, pasted, widened
from darkroom.generation.inpaint.feature import Inpaint
from darkroom.generation.metadata import Params, infotext, read_params
from darkroom.generation.redraw import redraw
from darkroom.masks import Mask
from generation import small

PROMPT = "a fox in the snow"


@pytest.fixture(scope="module")
def plain():
    return small.model()


@pytest.fixture(scope="module")
def informed():
    return small.model(unet=dataclasses.replace(small.UNET, in_channels=9))


@pytest.fixture(params=["plain", "informed"])
def model(request):
    return request.getfixturevalue(request.param)


def photo(width: int = 64, height: int = 64, seed: int = 3) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def disc(width: int = 64, height: int = 64, r: float = 15) -> Mask:
    rows, columns = np.mgrid[:height, :width]
    return Mask((columns - width / 2) ** 2 + (rows - height / 2) ** 2 <= r * r)


def pixels(picture) -> np.ndarray:
    return np.asarray(getattr(picture, "image", picture))


def draw(model, *features, **options):
    return develop(model, PROMPT, Guidance(3.0), *features, **{"steps": 3, **options})[0]


# --- what stays


@pytest.mark.parametrize("size", [(64, 64), (150, 90), (37, 41)])
@pytest.mark.parametrize("options", [{}, {"only_masked": True}, {"feather": 5}, {"strength": 0.5}])
def test_outside_of_the_mask_no_bit_changes(model, size, options) -> None:
    picture, mask = photo(*size), disc(*size)
    found = pixels(draw(model, Inpaint(picture, mask, **{"strength": 1.0, **options})))
    assert found.shape == pixels(picture).shape
    same = (found == pixels(picture)).all(-1)
    assert same[~mask.values].all()
    assert same[mask.values].mean() < 0.2


def test_harmonise_reaches_over_the_edge(plain) -> None:
    picture, mask = photo(), disc()
    for feather, reach in ((6, 6), (0, 64)):
        found = draw(plain, Inpaint(picture, mask, harmonise=True, feather=feather))
        changed = (pixels(found) != pixels(picture)).any(-1)
        assert changed[~mask.values].any()
        assert not changed[~mask.grow(reach).values].any()


def test_the_known_part_and_a_seed_stay_what_they_are(plain) -> None:
    """The last latents are the picture's own; the noise is that of the run without inpainting."""
    inpaint = Inpaint(photo(), disc(), posterior="mode")
    run = generate(plain, PROMPT, inpaint, seeds=[4], steps=3)
    for _ in run:
        pass
    kept = (run.run.mask == 0).expand_as(run.last.x)
    with torch.no_grad():
        known = plain.autoencoder.encode(dr_tensor(photo()), None)
    assert torch.equal(run.last.x[kept], known[kept])
    other = generate(plain, PROMPT, seeds=[4], steps=3)
    assert torch.equal(run.run.initial, other.run.initial)
    everything = Mask(np.ones((64, 64), bool))
    all_new = draw(plain, Inpaint(photo(), everything), seeds=[4])
    assert np.array_equal(pixels(all_new), pixels(draw(plain, seeds=[4])))


def dr_tensor(picture: Image.Image) -> torch.Tensor:
    from darkroom.images import to_tensor

    return to_tensor(picture)


def test_a_batch_is_its_seeds(plain) -> None:
    inpaint = Inpaint(photo(), disc(), 0.7)
    both = develop(plain, PROMPT, inpaint, seeds=[1, 2], steps=3)
    for seed, picture in zip((1, 2), both, strict=True):
        alone = develop(plain, PROMPT, inpaint, seeds=[seed], steps=3)[0]
        assert np.abs(pixels(alone).astype(int) - pixels(picture)).max() <= 1


def test_a_start_of_its_own(plain) -> None:
    """ImageToImage says the start, Inpaint what stays; in either order."""
    start, inpaint = ImageToImage(photo(seed=8), 0.7), Inpaint(photo(), disc())
    first, second = draw(plain, start, inpaint), draw(plain, inpaint, start)
    assert np.array_equal(pixels(first), pixels(second))
    assert not np.array_equal(pixels(first), pixels(draw(plain, inpaint)))
    with pytest.raises(ConfigError, match="ImageToImage and Inpaint both say what the run starts"):
        draw(plain, start, Inpaint(photo(), disc(), 0.5))


# --- sizes, cutting and putting back


def test_the_run_s_size_is_about_the_model_s(plain) -> None:
    for size, wanted in (((64, 64), (64, 64)), ((72, 61), (60, 72)), ((640, 320), (44, 92))):
        run = generate(plain, PROMPT, Inpaint(photo(*size), disc(*size)), steps=1)
        assert run.run.size == wanted
    run = generate(plain, PROMPT, Inpaint(photo(640, 320), disc(640, 320), only_masked=True))
    assert run.run.size == (64, 64)
    run = generate(plain, PROMPT, Inpaint(photo(), disc()), ImageToImage(photo(96, 32)), steps=2)
    assert run.run.size == (64, 64)  # what is painted goes back into that picture


def test_boxes() -> None:
    assert around((10, 20, 30, 40), 5, (42, 100)) == (5, 15, 35, 42)
    assert widened((10, 10, 30, 20), (64, 64), (50, 50)) == (10, 5, 30, 25)
    assert widened((0, 0, 10, 40), (64, 64), (50, 50)) == (0, 0, 40, 40)
    assert widened((45, 0, 50, 40), (64, 64), (50, 50)) == (10, 0, 50, 40)
    assert widened((0, 0, 10, 40), (64, 64), (50, 20)) == (0, 0, 20, 40)  # no more room


def test_boxes_are_those_of_diffusers() -> None:
    from diffusers.image_processor import VaeImageProcessor

    rng = np.random.default_rng(1)
    for _ in range(100):
        height, width = rng.integers(60, 120, 2)
        values = np.zeros((height, width), bool)
        y, x = rng.integers(0, (height - 8, width - 8))
        values[y : y + rng.integers(2, 30), x : x + rng.integers(2, 30)] = True
        shape = tuple(int(8 * side) for side in rng.integers(6, 12, 2))
        mask, canvas = Mask(values), (int(height), int(width))
        assert mask.box is not None
        ours = widened(around(mask.box, 7, canvas), shape, canvas)
        theirs = VaeImageProcessor.get_crop_region(mask.image(), shape[1], shape[0], pad=7)
        assert np.abs(np.subtract(ours, theirs)).max() <= 1  # where halves are rounded


def test_pasting() -> None:
    canvas, painted = photo(20, 10), photo(8, 4, seed=5)
    weights = np.zeros((10, 20), np.float32)
    weights[3:5, 6:9] = 1
    found = pixels(pasted(canvas, painted, (5, 2, 13, 6), weights))
    assert np.array_equal(found[weights == 0], pixels(canvas)[weights == 0])
    assert np.array_equal(found[3:5, 6:9], pixels(painted)[1:3, 1:4])


def test_a_padded_canvas(plain) -> None:
    picture = photo(40, 48)
    canvas, new = pad_canvas(picture, 8, 0, 16, 4)
    assert canvas.size == (64, 52)
    assert np.array_equal(pixels(canvas)[:48, 8:48], pixels(picture))
    assert not new.values[:48, 8:48].any()
    assert new.area == 64 * 52 - 40 * 48
    assert (pixels(canvas)[:48, 0] == pixels(picture)[:, 0]).all()
    found = draw(plain, Inpaint(picture, extend=(8, 0, 16, 4)))
    assert found.image.size == (64, 52)
    assert np.array_equal(pixels(found)[:48, 8:48], pixels(picture))
    with pytest.raises(ValueError, match="cannot|not cut"):
        pad_canvas(picture, -1)


# --- masks


def test_transparency_is_a_mask(plain) -> None:
    picture, mask = photo(), disc()
    holes = picture.convert("RGBA")
    holes.putalpha((~mask).image())
    assert np.array_equal(Inpaint(holes).mask.values, mask.values)
    painted = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    painted.paste((9, 9, 9, 255), mask=mask.image())
    assert np.array_equal(Inpaint(picture, painted).mask.values, mask.values)
    opaque = mask.image().convert("RGBA")
    assert np.array_equal(Inpaint(picture, opaque).mask.values, mask.values)


def test_a_thin_mask_is_not_lost(plain) -> None:
    values = np.zeros((64, 64), bool)
    values[:, 33] = True  # between two latent pixels
    run = generate(plain, PROMPT, Inpaint(photo(), Mask(values)), steps=2)
    assert run.run.mask is not None
    assert run.run.mask.sum() == 16
    found = run.pictures()[0]
    assert "thinner" in found.params.notes[0]
    assert np.array_equal(pixels(found)[~values], pixels(photo())[~values])


def test_soft_masks_mix(plain) -> None:
    values = disc().values * np.float32(0.6)
    soft, hard = draw(plain, Inpaint(photo(), Mask(values))), draw(plain, Inpaint(photo(), disc()))
    mixed = 0.6 * pixels(hard).astype(float) + 0.4 * pixels(photo())
    inside = disc().values
    assert np.abs(pixels(soft)[inside] - mixed[inside]).max() < 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"mask": Mask(np.zeros((64, 64), bool))}, "mask is empty: nothing to paint; white"),
        ({"mask": Mask(np.full((64, 64), 0.4))}, "mask is empty"),
        ({"mask": disc(32, 64)}, "mask of 32x64, the picture is 64x64: give a mask of the pict"),
        ({}, "no mask: give one"),
        ({"mask": disc(), "strength": 0.0}, "strength 0.0: expected above 0"),
        ({"mask": disc(), "strength": 1.5}, "strength 1.5"),
        ({"mask": disc(), "padding": -1}, "padding -1: expected 0 pixels or more"),
        ({"mask": disc(), "feather": -2}, "feather -2"),
        ({"mask": disc(), "posterior": "mean"}, "posterior 'mean'"),
    ],
)
def test_bad_arguments(arguments, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        Inpaint(photo(), **arguments)


def test_bad_runs(plain, informed, tmp_path) -> None:
    with pytest.raises(ImageError, match="no.png"):
        Inpaint(tmp_path / "no.png", disc())
    with pytest.raises(ConfigError, match="two Inpaint features: join"):
        draw(plain, Inpaint(photo(), disc()), Inpaint(photo(), disc()))
    with pytest.raises(ConfigError, match="leaves none"):
        draw(plain, Inpaint(photo(), disc(), 0.1))
    with pytest.raises(ModelMismatchError, match=r"9 input channels \(a mask and .*Inpaint"):
        draw(informed)
    seven = small.model(unet=dataclasses.replace(small.UNET, in_channels=7))
    with pytest.raises(ModelMismatchError, match="7 input channels .of its own kind., the run giv"):
        draw(seven, Inpaint(photo(), disc()))
    with pytest.raises(ConfigError, match="64x32 and 64x64: say which size"):
        draw(plain, ImageToImage(photo(64, 32)), Sized())


class Sized(Feature):
    def natural_size(self, factor, own):
        return own


# --- metadata


@pytest.mark.parametrize("options", [{"feather": 3}, {"only_masked": True, "padding": 9}])
def test_drawn_again_bit_for_bit(model, options, tmp_path) -> None:
    picture, mask = photo(70, 58), disc(70, 58)
    inpaint = Inpaint(picture, mask, 0.8, extend=(6, 0, 0, 0), **options)
    found = develop(model, PROMPT, Guidance(2.0), inpaint, seeds=[3, 4], steps=4)[1]
    path = found.save(tmp_path / "found.png")
    assert read_params(path) == found.params
    again = redraw(model, path, edited=picture, mask=mask)
    assert np.array_equal(pixels(again), pixels(found))
    assert again.params == found.params
    with pytest.raises(ConfigError, match="the picture is not the one that was edited"):
        redraw(model, path, edited=photo(70, 58, seed=1), mask=mask)
    with pytest.raises(ConfigError, match="the mask is not the one"):
        redraw(model, path, edited=picture, mask=disc(70, 58, 9))
    with pytest.raises(ConfigError, match="another one with a part painted anew: give that one"):
        redraw(model, path)
    with pytest.raises(ConfigError, match="not inpainted: leave out"):
        redraw(model, dataclasses.replace(found.params, inpaint=None), edited=picture)
    with pytest.raises(ConfigError, match="not the one|not drawn from an image"):
        redraw(model, path, picture, edited=picture, mask=mask)


def test_a1111_text() -> None:
    from darkroom.generation.metadata import UsedInpaint

    used = UsedInpaint(strength=0.75, only_masked=True, padding=24, feather=4)
    params = Params(prompt="a cat", steps=20, sampler="euler", size=(64, 64), inpaint=used)
    text = infotext.write(params)
    for part in (
        "Denoising strength: 0.75",
        "Mask blur: 4",
        "Inpaint area: Only masked",
        "Masked area padding: 24",
    ):
        assert part in text
    back = infotext.read(text)
    assert back.inpaint == used
    assert back.image is None


def test_the_public_name() -> None:
    assert dr.Inpaint is Inpaint
