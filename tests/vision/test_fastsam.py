"""FastSAM's answers: the numbers of Ultralytics' own, and what points and boxes choose."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import darkroom as dr
from darkroom.masks import Mask
from darkroom.models.fastsam.network import FASTSAM_S, FASTSAM_X, FastSAM, scaled
from darkroom.vision.automatic_masks import Automatic
from darkroom.vision.fastsam import FastSegmenter, Instances
from darkroom.vision.letterbox import Letterbox
from darkroom.vision.segment import Prompt, open_segmenter
from darkroom.weights.layouts.fastsam.original import ORIGINAL
from vectors.fastsam import (
    CONFIDENCE,
    LONGEST,
    OVERLAP,
    WIDTH,
    digest,
    picture,
    seeded,
    thinned,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "fastsam.json").read_text("utf-8"))


@cache
def network() -> FastSAM:
    """Small, with weights that the other side drew, too."""
    model = FastSAM(scaled(0.33, WIDTH, 1024))
    theirs = shapes_of_published(model)
    drawn = {name: seeded(name, shape) for name, shape in theirs.items()}
    model.load_state_dict(ORIGINAL.convert(drawn, model.config))
    return model.eval()


def shapes_of_published(model: FastSAM) -> dict[str, tuple[int, ...]]:
    published = ORIGINAL.revert(model.state_dict(), model.config)
    return {name: tuple(tensor.shape) for name, tensor in published.items()}


def segmenter(**options) -> FastSegmenter:
    given = {"longest": LONGEST, "confidence": CONFIDENCE, "overlap": OVERLAP, **options}
    return FastSegmenter(network(), "tiny", **given)


# --- against Ultralytics


@pytest.mark.parametrize(("letter", "config"), [("s", FASTSAM_S), ("x", FASTSAM_X)])
def test_names_and_shapes_are_those_of_the_tool_that_owns_them(letter, config):
    with torch.device("meta"):
        model = FastSAM(config)
    assert digest(shapes_of_published(model)) == VECTORS["keys"][letter]


def test_the_network_puts_out_the_same_numbers():
    seen = torch.from_numpy(picture((160, 96))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        dense = network()(seen)
        boxes, scores, coefficients, prototypes = network().decode(dense)
    side_by_side = torch.cat([level.flatten(2) for level in dense.boxes], dim=2)
    start, end = boxes.chunk(2, dim=2)
    cells = torch.cat(((start + end) / 2, end - start, scores, coefficients), dim=2)
    found = {
        "logits": side_by_side,
        "classes": torch.cat([level.flatten(2) for level in dense.classes], dim=2),
        "coefficients": coefficients.transpose(1, 2),
        "cells": cells.transpose(1, 2),
        "prototypes": prototypes,
    }
    for name, tensor in found.items():
        torch.testing.assert_close(
            torch.tensor(thinned(tensor)), torch.tensor(VECTORS[name]), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("kind", ["retina", "plain"])
def test_boxes_scores_and_masks_are_the_same(index, kind):
    """With and without filling, at 1/4, 1/2 and the whole of the network's resolution."""
    expected = VECTORS["pictures"][index][kind]
    size = tuple(VECTORS["pictures"][index]["size"])
    encoded = segmenter().encode(Image.fromarray(picture(size)))
    made = encoded.values if kind == "retina" else lambda i: encoded.plain(i).numpy()
    masks = {i: made(i) for i in range(len(encoded)) if made(i).any()}  # empty ones are dropped
    assert len(masks) == len(expected["masks"])
    torch.testing.assert_close(
        encoded.boxes[list(masks)], torch.tensor(expected["boxes"]), rtol=0, atol=5e-3
    )
    torch.testing.assert_close(
        encoded.scores[list(masks)], torch.tensor(expected["scores"]), rtol=0, atol=5e-5
    )
    for mask, counts in zip(masks.values(), expected["masks"], strict=True):
        other = Mask.from_rle({"size": expected["size"], "counts": counts}).values
        assert mask.shape == other.shape
        assert np.count_nonzero(mask != other) <= 2  # a logit of 0, rounded


# --- on its own


def instances(boxes: list[tuple[int, int, int, int]], size=(64, 96), **options) -> Instances:
    """Objects that fill their boxes."""
    count = len(boxes)
    return Instances(
        Letterbox.of(size, 96),
        torch.tensor(boxes).float(),
        torch.linspace(0.9, 0.5, count),
        torch.zeros(count, dtype=torch.int64),
        torch.ones(count, 1),
        torch.ones(1, size[0] // 4, size[1] // 4),
        **options,
    )


LARGE, SMALL, ELSEWHERE = (10, 10, 60, 60), (20, 20, 40, 40), (70, 10, 90, 30)


def answer(prompt: Prompt, *boxes: tuple[int, int, int, int], candidates: int = 3) -> list[Mask]:
    return segmenter().masks(instances(list(boxes)), prompt, candidates).of(0)


def rectangle(*boxes: tuple[int, int, int, int], less: tuple[int, int, int, int] | None = None):
    values = np.zeros((64, 96), bool)
    for left, top, right, bottom in boxes:
        values[top:bottom, left:right] = True
    if less:
        values[less[1] : less[3], less[0] : less[2]] = False
    return values


def points(*inside: tuple[int, int], outside: tuple[tuple[int, int], ...] = ()) -> Prompt:
    return Prompt((*inside, *outside), (True,) * len(inside) + (False,) * len(outside))


def test_a_point_takes_all_that_hold_it_then_one_by_one():
    masks = answer(points((30, 30)), LARGE, SMALL, ELSEWHERE)
    expected = [rectangle(LARGE), rectangle(LARGE), rectangle(SMALL)]
    assert [np.array_equal(m.values, e) for m, e in zip(masks, expected, strict=True)] == [True] * 3
    assert masks[0].score == pytest.approx(0.9)
    assert masks[2].score == pytest.approx(0.7)
    assert masks[0].source == "tiny: point 30,30"
    both = answer(points((30, 30), (80, 20)), SMALL, ELSEWHERE, candidates=1)
    assert len(both) == 1
    assert np.array_equal(both[0].values, rectangle(SMALL, ELSEWHERE))


def test_background_points_take_away():
    both = ((30, 30),)
    part = answer(points((15, 15), outside=both), LARGE, SMALL)
    assert np.array_equal(part[0].values, rectangle(LARGE, less=SMALL)), "LARGE holds both"
    small = answer(points((30, 30), outside=((15, 15),)), LARGE, SMALL)
    assert np.array_equal(small[0].values, rectangle(SMALL)), "LARGE holds the background"
    rest = answer(points(outside=((30, 30),)), LARGE, SMALL, ELSEWHERE)
    assert np.array_equal(rest[0].values, rectangle(ELSEWHERE))


def test_a_point_on_nothing_gives_an_empty_mask():
    for prompt in (points((92, 60)), points(outside=((30, 30),)), Prompt(box=(0, 61, 9, 64))):
        (mask,) = answer(prompt, LARGE)
        assert mask.values.shape == (64, 96)
        assert not mask.values.any()
        assert mask.score == 0


def test_a_box_takes_what_overlaps_it_most():
    masks = answer(Prompt(box=(18, 18, 42, 42)), LARGE, SMALL, ELSEWHERE)
    assert np.array_equal(masks[0].values, rectangle(SMALL))
    assert len(masks) == 2, "nothing of what lies elsewhere"
    with_point = Prompt(((15, 15),), (True,), (18, 18, 42, 42))
    assert np.array_equal(answer(with_point, LARGE, SMALL)[0].values, rectangle(LARGE))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(((96, 0),), (True,)), "point 96,0 lies outside of the picture, which is 96x64"),
        (Prompt(box=(0, 0, 97, 10)), "box 0,0,97,10 leaves the picture"),
        (Prompt(mask=torch.zeros(1, 4, 4)), "a mask as a prompt needs SAM"),
    ],
)
def test_prompts_that_cannot_be_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        answer(prompt, LARGE)


def test_no_prompts_and_odd_candidates_are_refused():
    with pytest.raises(ValueError, match="no prompts"):
        segmenter().masks(instances([LARGE]), [])
    with pytest.raises(ValueError, match="candidates = 2; expected 1 or 3"):
        segmenter().masks(instances([LARGE]), points((1, 1)), 2)


def test_everything_comes_surest_first_and_says_from_whom():
    image = Image.fromarray(picture((81, 144)))
    masks = list(segmenter().everything(image))
    scores = [mask.score for mask in masks]
    assert scores == sorted(scores, reverse=True)
    assert all(mask.values.shape == (81, 144) for mask in masks)
    assert {mask.source for mask in masks} == {"tiny: everything"}
    areas = sorted(np.count_nonzero(mask.values) for mask in masks)
    fewer = list(segmenter().everything(image, Automatic(min_area=areas[2])))
    assert len(fewer) == len(masks) - 2
    assert len(list(segmenter(most=3, overlap=1.0).everything(image))) <= 3


def test_plain_masks_have_the_pictures_size():
    image = Image.fromarray(picture((160, 96)).repeat(2, axis=0).repeat(2, axis=1))
    fine = list(segmenter().everything(image))
    coarse = list(segmenter(retina=False).everything(image))
    assert coarse[0].values.shape == (320, 192)
    blocks = coarse[0].values.reshape(160, 2, 96, 2)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert np.count_nonzero(coarse[0].values != fine[0].values) < 0.05 * coarse[0].values.size


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (33, 31)])
def test_any_picture_is_seen(size):
    image = Image.new("RGB", size[::-1], "red")
    for mask in segmenter(confidence=0.0, most=2).everything(image):
        assert mask.values.shape == size


def test_the_network_says_how_large_it_wants_pictures():
    model = FastSAM(scaled(0.33, WIDTH, 1024)).eval()
    encoded = FastSegmenter(model).encode(Image.new("RGB", (30, 20)))
    assert encoded.fit.seen == (704, 1024)
    with pytest.raises(ValueError, match="expected a multiple of 32"):
        FastSegmenter(model, longest=100).encode(Image.new("RGB", (30, 20)))


def test_borders_draw_boxes_but_no_masks():
    near = instances([(19, 10, 60, 50), (25, 22, 70, 40)], size=(64, 96))
    assert near.boxes.tolist() == [[0, 0, 60, 64], [25, 22, 70, 40]]
    assert near.cuts.tolist()[0] == [19, 10, 60, 50]
    whole = instances([(3, 3, 96, 60), (0, 0, 70, 64)])
    assert whole.boxes.tolist() == [[0, 0, 96, 64], [0, 0, 70, 64]]


def test_open_segmenter_opens_what_was_saved(tmp_path):
    dr.save(network(), tmp_path / "mine")
    opened = open_segmenter(tmp_path / "mine", device="cpu")
    assert isinstance(opened, FastSegmenter)
    assert opened.name == "mine"
    image = Image.fromarray(picture((160, 96)))
    (mask, *_) = FastSegmenter(opened.model, longest=LONGEST).everything(image)
    (same, *_) = segmenter(overlap=0.9).everything(image)
    assert np.array_equal(mask.values, same.values)


def test_half_precision_runs():
    half = FastSegmenter(FastSAM(scaled(0.33, WIDTH, 1024)).eval().bfloat16(), longest=64)
    encoded = half.encode(Image.new("RGB", (64, 64)))
    assert encoded.scores.dtype == torch.float32
    assert isinstance(encoded.boxes, Tensor)
