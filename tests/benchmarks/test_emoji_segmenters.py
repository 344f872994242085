"""The measurement of segmenters runs on tiny data, and its geometry is right."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "segmenting"))

import emoji_segmenters as bench  # noqa: E402

from darkroom.models.sam.config import DecoderConfig, SamConfig, TinyVitConfig  # noqa: E402
from darkroom.models.sam.network import Sam  # noqa: E402
from darkroom.vision.automatic_masks import Automatic  # noqa: E402
from darkroom.vision.segment import Segmenter  # noqa: E402


def square():
    mask = np.zeros((20, 30), bool)
    mask[4:13, 10:25] = True
    return mask


@pytest.fixture(scope="module")
def segmenter():
    encoder = TinyVitConfig(channels=(8, 16), blocks=(1, 1), heads=(2,), windows=(4,), strides=(2,))
    decoder = DecoderConfig(heads=2, hidden=16, iou_hidden=16)
    config = SamConfig(size=32, channels=16, mask_channels=4, encoder=encoder, decoder=decoder)
    return Segmenter(Sam(config).eval(), "tiny")


def test_geometry():
    mask = square()
    x, y = bench.innermost(mask)
    assert y == 8 and 14 <= x <= 20
    assert bench.tight(mask) == (10, 4, 25, 13)
    assert bench.iou(bench.boxed(mask), mask) == 1
    assert bench.iou(mask, ~mask) == 0


def test_what_needs_no_network_finds_a_red_square():
    mask = square()
    pixels = np.full((20, 30, 3), 240, np.uint8)
    pixels[mask] = (200, 20, 20)
    assert bench.iou(bench.flooded(pixels, mask), mask) == 1
    assert bench.iou(bench.grab_cut(pixels, mask), mask) > 0.8


def test_it_measures_prompts_and_everything(segmenter):
    mask = square()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    case = bench.Case(picture, mask[None])
    found = bench.asked(segmenter, [case, case])
    assert found["objects"] == 2 and 0 <= found["1 click"] <= 1 and found["the box itself"] == 1
    options = Automatic(points_per_side=2, pred_iou=0.0, stability=0.0)
    found = bench.everything(segmenter, [case], (options,))
    assert found["objects"] == 1 and found["masks per picture"] <= 12
    fields = {"segmenter": "tiny", "scenes": 2, "machine": bench.machine.describe(1)}
    text = bench.markdown(fields | {"results": {"prompts: two": bench.asked(segmenter, [case])}})
    assert "| two |" in text
