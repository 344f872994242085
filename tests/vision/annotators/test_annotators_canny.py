"""Canny against OpenCV's, pixel for pixel, and the door to every kind of hint."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from darkroom.errors import ConfigError, ImageError
from darkroom.names import ANNOTATOR_NAMES
from darkroom.vision.annotators import KINDS, annotate
from darkroom.vision.annotators.canny import edges

cv2 = pytest.importorskip("cv2")


def drawing() -> Image.Image:
    """Shapes of several colours, slopes and strengths, with noise."""
    picture = Image.new("RGB", (160, 120), (90, 120, 60))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((10, 10, 80, 90), fill=(200, 40, 40), outline=(0, 0, 0))
    pen.polygon([(60, 110), (150, 20), (155, 100)], fill=(40, 60, 220))
    pen.line((0, 0, 159, 119), fill=(100, 130, 70), width=3)
    noise = np.random.default_rng(0).integers(-9, 10, (120, 160, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("low", "high"), [(10, 250), (100, 200), (50.7, 120.3), (0, 0)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_equal_to_opencv(mode: str, low: float, high: float) -> None:
    pixels = np.asarray(drawing().convert(mode))
    expected = cv2.Canny(pixels, low, high) > 0
    assert 0.01 < expected.mean() < 0.5
    assert np.array_equal(edges(pixels, low, high), expected)


def test_equal_on_noise() -> None:
    """Small and narrow pictures with many equal gradients, where ties decide."""
    random = np.random.default_rng(1)
    for index in range(100):
        height, width = random.integers(1, 40, 2)
        shape = (height, width, 3) if index % 2 else (height, width)
        pixels = random.integers(0, random.choice([3, 20, 256]), shape).astype(np.uint8)
        low, high = sorted(int(value) for value in random.integers(0, 600, 2))
        expected = cv2.Canny(pixels, low, high) > 0
        assert np.array_equal(edges(pixels, low, high), expected), (index, shape, low, high)


def test_equal_on_a_long_chain() -> None:
    """One faint edge, thousands of pixels long, that is strong at its end only."""
    pixels = np.zeros((256, 256), np.uint8)
    for index, row in enumerate(range(8, 240, 12)):
        pixels[row : row + 6, 8:248] = 40
        column = 242 if index % 2 else 8
        pixels[row : row + 12, column : column + 6] = 40
    pixels[8:14, 240:248] = 255
    expected = cv2.Canny(pixels, 30, 600) > 0
    assert expected.sum() > 8000
    assert np.array_equal(edges(pixels, 30, 600), expected)


@pytest.mark.parametrize("name", ["man.png", "bench_dog.png", "dogs.jpg"])
def test_equal_on_photographs(data: Path, name: str) -> None:
    """The book's thresholds, 10 and 250."""
    picture = Image.open(data / "seed_inputs" / name).convert("RGB")
    for mode in ("RGB", "L"):
        pixels = np.asarray(picture.convert(mode))
        assert np.array_equal(edges(pixels, 10, 250), cv2.Canny(pixels, 10, 250) > 0)


def test_the_hint_is_a_picture() -> None:
    picture = drawing()
    hint = annotate("canny", picture, low=10, high=250)
    assert (hint.mode, hint.size) == ("RGB", picture.size)
    marked = np.asarray(hint) == 255
    assert np.array_equal(marked.all(-1), edges(np.asarray(picture), 10, 250))
    assert np.array_equal(np.asarray(annotate("canny", picture.convert("L")))[..., 0] > 0,
                          edges(np.asarray(picture.convert("L")), 100, 200))  # fmt: skip


def test_every_kind_has_a_name() -> None:
    assert tuple(KINDS) == ANNOTATOR_NAMES
    assert KINDS["canny"].options == {"low": 100, "high": 200}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("cany", {}, "hint 'cany' is unknown; did you mean 'canny'"),
        ("canny", {"hi": 3}, "option 'hi' is unknown.*low, high"),
        ("canny", {"low": 30, "high": 20}, "low=30, high=20"),
        ("canny", {"low": -1}, "expected 0 <= low"),
        ("canny", {"low": float("nan")}, "expected 0 <= low"),
        ("canny", {"model": object()}, "needs no network"),
    ],
)
def test_one_line_errors(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        annotate(kind, drawing(), **options)


def test_no_picture() -> None:
    with pytest.raises(ImageError, match="none"):
        annotate("canny", "none.png")
