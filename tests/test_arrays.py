"""Arrays, tensors and our own pictures stand wherever a picture or a mask does, in and out."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom import arrays
from darkroom.errors import ArrayError, DarkroomError, ImageError
from darkroom.generation.metadata import Params
from darkroom.generation.picture import Picture
from darkroom.images import listed, open_image
from darkroom.masks import Mask, open_mask

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
FLOATS = PIXELS.astype(np.float32) / 255
INSIDE = np.zeros((6, 7), bool)
INSIDE[2:4, 1:5] = True


def file_of(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def picture(pixels=PIXELS) -> Picture:
    return Picture(Image.fromarray(pixels).convert("RGB"), Params(prompt="a"))


ALIKE = {
    "uint8": lambda: PIXELS,
    "float32": lambda: FLOATS,
    "float64": lambda: FLOATS.astype(np.float64),
    "batch of one": lambda: PIXELS[None],
    "tensor": lambda: torch.from_numpy(PIXELS),
    "channels first": lambda: torch.from_numpy(FLOATS).permute(2, 0, 1),
    "a batch of them": lambda: torch.from_numpy(FLOATS).permute(2, 0, 1)[None].requires_grad_(),
    "overshooting": lambda: FLOATS * 1.0005 - 0.0002,
    "PIL": lambda: Image.fromarray(PIXELS),
    "ours": picture,
    "bytes": lambda: file_of(PIXELS),
    "bytearray": lambda: bytearray(file_of(PIXELS)),
    "opened": lambda: io.BytesIO(file_of(PIXELS)),
    "its array": lambda: np.asarray(picture()),
    "its tensor": lambda: torch.as_tensor(picture()),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_one_picture_in_many_forms(kind):
    assert np.array_equal(np.asarray(open_image(ALIKE[kind]())), PIXELS)


def test_half_precision_grey_and_transparency():
    half = torch.full((1, 4, 5), 0.5, dtype=torch.bfloat16)
    assert np.asarray(open_image(half)).tolist() == [[[128] * 3] * 5] * 4
    assert np.asarray(open_image(np.full((4, 5), 7, np.uint8)))[0, 0].tolist() == [7, 7, 7]
    clear = np.zeros((4, 5, 4), np.uint8)
    assert np.asarray(open_image(clear)).min() == 255  # on white, as PIL's
    assert arrays.to_picture(clear).mode == "RGBA"


def test_paths(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(file_of(PIXELS))
    for given in (path, str(path)):
        assert np.array_equal(np.asarray(open_image(given)), PIXELS)
    with open(path, "rb") as file:
        assert np.array_equal(np.asarray(open_image(file)), PIXELS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (FLOATS * 255, "x / 255"),
        (FLOATS * 2 - 1, "x / 2"),
        (FLOATS * 1000, "0 to 1"),
        (PIXELS.astype(np.uint16), "uint16"),
        (PIXELS.astype(int), "int64"),
        (PIXELS > 3, "Mask"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((3, 5, 3), np.uint8), "first or last"),
        (np.zeros((2, 3, 8, 8)), "a batch of 2"),
        (np.zeros((4, 8, 8), np.float32), "latents"),
        (np.zeros((8, 8, 2), np.uint8), "expected"),
        (np.zeros(5), "expected"),
        (np.array(["a"]), "<U1"),
        (np.array(None), "object"),
        (torch.zeros(3, 8, 8, device="meta"), "no array"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "complex"),
    ],
)
def test_arrays_that_are_no_pictures(value, message):
    with pytest.raises(ArrayError, match=message) as found:
        open_image(value)
    assert "\n" not in str(found.value)
    assert isinstance(found.value, ValueError)


@pytest.mark.parametrize(
    "value",
    [None, 3, 2.5, [1, 2], [PIXELS, PIXELS], {"a": 1}, object(), Image.Image, io.StringIO("a"),
     lambda: 1, "https://example.com/a.png", b"", "\0"],
)  # fmt: skip
def test_things_that_are_no_pictures(value):
    for opened in (open_image, open_mask, Mask):
        with pytest.raises(ImageError) as found:
            opened(value)
        assert "\n" not in str(found.value)


MASKS = {
    "bool": INSIDE,
    "uint8 of 1": INSIDE.astype(np.uint8),
    "uint8 of 255": INSIDE.astype(np.uint8) * 255,
    "int64": INSIDE.astype(int),
    "float32": INSIDE.astype(np.float32),
    "tensor": torch.from_numpy(INSIDE),
    "batch": torch.from_numpy(INSIDE)[None, None].half(),
    "channel last": INSIDE[..., None],
    "PIL": Image.fromarray(INSIDE),
    "colours": np.stack([INSIDE * np.uint8(255)] * 3, -1),
    "file": file_of(INSIDE),
    "mask": Mask(INSIDE),
    "picture": picture(INSIDE),
}


@pytest.mark.parametrize("kind", MASKS)
def test_one_mask_in_many_forms(kind):
    for mask in (Mask(MASKS[kind]), open_mask(MASKS[kind])):
        assert np.array_equal(mask.values, INSIDE)
    assert (Mask(INSIDE) | MASKS[kind]).area == INSIDE.sum()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 6, 7), bool), "height, width"),
        (np.full((3, 3), 5), "from_classes"),
        (np.full((3, 3), -1.0), "threshold"),
        (np.full((3, 3), np.inf), "NaN or infinity"),
        (INSIDE.astype(complex), "complex"),
    ],
)
def test_arrays_that_are_no_masks(value, message):
    for opened in (Mask, open_mask):
        with pytest.raises(ArrayError, match=message):
            opened(value)


def test_masks_and_pictures_out():
    mask = Mask(INSIDE, 0.5, "emoji-sam: point 1,2", "a fox")
    assert np.asarray(mask).dtype == bool
    assert np.array_equal(np.asarray(mask), INSIDE)
    assert np.asarray(mask, np.float32).sum() == 8
    assert torch.equal(torch.as_tensor(mask), torch.from_numpy(INSIDE))
    assert np.asarray([mask, mask]).shape == (2, 6, 7)
    assert Image.fromarray(np.asarray(mask)).size == (7, 6)
    assert repr(mask) == "Mask(7x6, area=8, score=0.500, 'a fox', 'emoji-sam: point 1,2')"
    assert np.array_equal(np.asarray(open_image(mask))[..., 0] > 0, INSIDE)
    changed = np.asarray(mask)
    changed[:] = True
    assert mask.area == 8  # what comes out is a copy
    soft = Mask(INSIDE * np.float32(0.5))
    assert torch.as_tensor(soft).dtype == torch.float32
    for made in (mask, picture()):
        with pytest.raises(ValueError, match="copy"):
            np.array(made, copy=False)
    assert np.array_equal(np.asarray(picture()), PIXELS)


def test_notebooks_show_them_small():
    large = Mask(np.arange(3000 * 2000).reshape(3000, 2000) % 7 == 0)
    for made, most in ((large, 512), (picture(np.zeros((3000, 20, 3), np.uint8)), 1024)):
        shown = Image.open(io.BytesIO(made._repr_png_()))
        assert max(shown.size) == most
    assert Mask(np.zeros((0, 4), bool))._repr_png_() is None


def test_one_or_several():
    assert [open_image(one).size for one in listed(PIXELS)] == [(30, 20)]
    assert len(list(listed(np.stack([PIXELS] * 3)))) == 3
    for alone in ("a.png", Path("a.png"), b"", Image.new("RGB", (1, 1)), picture(), io.BytesIO()):
        assert listed(alone) == [alone]
    several = [PIXELS, "a.png"]
    assert listed(several) is several
    for wrong in (None, 3, {"a": 1}):
        with pytest.raises(DarkroomError, match="the pictures"):
            listed(wrong)
