"""Automatic masks against segment-anything's own generator, by stored vectors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cases import quick
from darkroom.acceleration import Acceleration, accelerate
from darkroom.masks import Mask
from darkroom.models.sam.config import DecoderConfig, SamConfig, VitConfig
from darkroom.models.sam.network import Sam
from darkroom.ops.enlarging import Enlarging
from darkroom.vision.automatic_masks import Automatic, automatic_masks
from darkroom.vision.segment import Segmenter
from darkroom.weights.layouts.sam.original import ORIGINAL
from vectors.sam_automatic import CASES, COMMON, SIZE, shaped_state
from vectors.sam_originals import picture

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "sam_automatic.json").read_text("utf-8")
)
CONFIG = SamConfig(
    size=96,
    channels=32,
    encoder=VitConfig(
        patch=8, channels=48, layers=3, heads=3, hidden=96, window=5, global_layers=(1,)
    ),
    decoder=DecoderConfig(heads=4, hidden=64),
)  # that of vectors.sam_originals.small
NAMES = {
    "points_per_side": "points_per_side",
    "points_per_batch": "points_per_batch",
    "pred_iou_thresh": "pred_iou",
    "stability_score_thresh": "stability",
    "stability_score_offset": "offset",
    "box_nms_thresh": "nms",
    "crop_n_layers": "crop_layers",
    "crop_nms_thresh": "crop_nms",
    "crop_overlap_ratio": "crop_overlap",
    "crop_n_points_downscale_factor": "crop_downscale",
    "min_mask_region_area": "min_area",
}


def options(case: str) -> Automatic:
    return Automatic(**{NAMES[name]: value for name, value in (COMMON | CASES[case]).items()})


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    model = Sam(CONFIG).eval()
    model.load_state_dict(ORIGINAL.convert(shaped_state(VECTORS["shapes"]), CONFIG))
    return Segmenter(model, "tiny")


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.fromarray(picture(SIZE))


def alike(ours: list[dict], theirs: list[dict]) -> None:
    """All fields within rounding; a pixel at an edge may fall either way."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        masks = [Mask.from_rle(fields["segmentation"]) for fields in (a, b)]
        assert masks[0].iou(masks[1]) > 0.999 or b["area"] == 0
        assert a["bbox"] == b["bbox"]
        assert a["crop_box"] == b["crop_box"]
        assert abs(a["area"] - b["area"]) <= 2
        for name in ("predicted_iou", "stability_score", "point_coords"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fast", quick([False], [False, True]), ids=["plain", "fast"])
@pytest.mark.parametrize("case", CASES)
def test_equals_segment_anything(segmenter, image, case: str, fast: bool) -> None:
    expected = VECTORS["found"][case]
    plan = Acceleration(attention="onednn", products="onednn", folded=True)
    with accelerate(segmenter.model, plan if fast else Acceleration()):
        found = list(automatic_masks(segmenter, image, options(case)))
    alike([mask.fields("coco_rle") for mask in found], expected)


def test_forms_and_provenance(segmenter, image) -> None:
    first, *others = automatic_masks(segmenter, image, options("whole"))
    assert others
    values, runs, packed = (
        first.fields(form)["segmentation"]
        for form in ("binary_mask", "uncompressed_rle", "coco_rle")
    )
    assert values is first.mask.values
    assert values.shape == SIZE
    for rle in (runs, packed):
        assert np.array_equal(Mask.from_rle(rle).values, values)
    assert isinstance(runs["counts"], list)
    assert first.mask.score == first.fields()["predicted_iou"]
    x, y = first.point
    assert first.mask.source == f"tiny: point {x:g},{y:g}"
    left, top, right, bottom = first.box
    assert first.mask.box == (left, top, right + 1, bottom + 1)
    (again, *_) = segmenter.everything(image, options("whole"))
    assert np.array_equal(again.values, values)


def test_batches_change_nothing(segmenter, image) -> None:
    few, many = (
        [m.fields("coco_rle") for m in automatic_masks(segmenter, image, replaced)]
        for replaced in (
            replace(options("whole"), points_per_batch=1),
            replace(options("whole"), points_per_batch=1000),
        )
    )
    alike(few, many)


def test_what_cannot_be_stable_is_not_enlarged(segmenter, image, monkeypatch) -> None:
    seen = {"counts": 0, "bands": 0}
    for name in seen:
        real = getattr(Enlarging, name)

        def count(self, *args, name=name, real=real):
            seen[name] += 1
            return real(self, *args)

        monkeypatch.setattr(Enlarging, name, count)
    strict = replace(options("whole"), stability=0.99)
    found = list(automatic_masks(segmenter, image, strict))
    assert found
    assert all(mask.stability >= 0.99 for mask in found)
    assert seen["bands"] < seen["counts"] / 2  # two counts each


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 1)])
def test_odd_pictures(segmenter, size) -> None:
    everything = Automatic(points_per_side=2, pred_iou=0, stability=0, crop_layers=2, min_area=5)
    for mask in automatic_masks(segmenter, Image.new("RGB", size, "red"), everything):
        assert mask.mask.values.shape == size[::-1]


def test_nothing_found(segmenter, image) -> None:
    assert not list(automatic_masks(segmenter, image, Automatic(points_per_side=2, pred_iou=1)))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"points_per_side": 0}, "points_per_side of 0; expected 1 to"),
        ({"pred_iou": float("nan")}, "pred_iou of nan; expected 0 to 1"),
        ({"crop_overlap": 1.0}, "crop_overlap of 1.0"),
        ({"min_area": -1}, "min_area of -1"),
        (
            {"points_per_side": 4, "crop_layers": 2, "crop_downscale": 3},
            r"layer 2 of the crops has no points: 4 a side, divided by 3\*\*2",
        ),
    ],
)
def test_wrong_options(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Automatic(**wrong)
