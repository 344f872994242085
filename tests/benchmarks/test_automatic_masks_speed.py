"""The comparison with segment-anything's generator: what it asks, compares and prints."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "segmenting"))

import automatic_masks_speed as bench  # noqa: E402

from darkroom.masks import Mask  # noqa: E402
from darkroom.models.sam.config import DecoderConfig, SamConfig, VitConfig  # noqa: E402
from darkroom.models.sam.folded import FoldedDecoder  # noqa: E402

TINY = SamConfig(
    size=64,
    channels=32,
    encoder=VitConfig(patch=8, channels=16, layers=2, heads=2, hidden=16, window=3),
    decoder=DecoderConfig(heads=4, hidden=16, iou_hidden=16),
)


def test_weights_and_threshold():
    config = replace(TINY, encoder=replace(TINY.encoder, global_layers=(1,)))
    segmenter = bench.ours(config, bench.weights(config))
    assert type(segmenter.model.mask_decoder) is FoldedDecoder
    encoded = segmenter.encode(Image.new("RGB", (80, 50), "red"))
    assert bench.threshold(segmenter, encoded) >= 1e-6


def test_the_stand_in_for_torchvision(monkeypatch):
    monkeypatch.setattr(bench.sys, "modules", {})  # put back after the test
    bench.stand_in()
    boxes = bench.sys.modules["torchvision.ops.boxes"]
    made = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
    kept = boxes.batched_nms(made, torch.tensor([0.1, 0.9, 0.5]), torch.zeros(3), 0.7)
    assert kept.tolist() == [1, 2]
    assert boxes.box_area(made).tolist() == [81, 72, 81]
    resize = bench.sys.modules["torchvision.transforms.functional"].resize
    assert resize(Image.new("RGB", (10, 20)), (5, 8)).size == (8, 5)


def test_agreement_and_page():
    values = np.zeros((6, 8), bool)
    values[1:4, 2:6] = True
    one = {"segmentation": Mask(values).rle(), "bbox": [2, 1, 3, 2]}
    other = {"segmentation": Mask(values[::-1]).rle(), "bbox": [2, 2, 3, 2]}
    assert bench.agreement([one, one], [one, other]) == {
        "masks": 2, "of the peer": 2, "least IoU": pytest.approx(0.5), "equal boxes": 1,
    }  # fmt: skip
    facts = {
        "machine": bench.machine.describe(1), "picture": [8, 6], "lent": 0.001,
        "options": vars(bench.Automatic()), "peak_mb": {8: 1000.0, 32: 1010.0},
        "seconds": {bench.OURS: [10.0, 12.0], bench.THEIRS: [44.0, 44.0]},
        "encoding": {bench.OURS: [3.0, 3.0], bench.THEIRS: [8.0, 8.0]},
        "worked": {bench.OURS: [20.0, 20.0], bench.THEIRS: [80.0, 80.0]},
        "agreement": bench.agreement([one], [one]),
    }  # fmt: skip
    page = bench.page(facts)
    assert "| segment-anything | 44.0 (44.0-44.0) | 8.0 | 80.0 | 4.00 | 4.00 |" in page
    assert "least IoU of a pair 1.000000" in page
    assert "1,010 MB with 32x32 points" in page
