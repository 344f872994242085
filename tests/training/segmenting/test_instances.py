"""Assignment, boxes, bins and masks of a one-stage detector, by hand."""

import math

import pytest
import torch

from darkroom.models.fastsam.network import FastSAM, FastSAMConfig
from darkroom.training.segmenting.instances import (
    TOP,
    Objects,
    assign,
    bins_loss,
    box_iou,
    complete_iou,
    instance_loss,
    mask_loss,
    objects_of,
)


def test_box_iou():
    a = torch.tensor([0.0, 0, 4, 4])
    b = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [5, 5, 6, 6]])
    assert torch.allclose(box_iou(a, b), torch.tensor([1.0, 8 / 24, 0.0]))


def test_complete_iou_is_the_paper_s():
    a, b = torch.tensor([0.0, 0, 4, 2]), torch.tensor([1.0, 0, 5, 4])
    iou = 6 / (8 + 16 - 6)
    apart = (1 + 1) / (25 + 16)  # middles (2, 1) and (3, 2); the hull is 5 x 4
    shape = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    expected = iou - apart - shape**2 / (1 - iou + shape)
    assert complete_iou(a, b).item() == pytest.approx(expected, abs=1e-5)
    assert complete_iou(a, a).item() == pytest.approx(1, abs=1e-5)


def test_bins_meet_at_the_distance():
    """The loss is least where the two bins around it hold it in proportion."""
    logits = torch.full((1, 4, 8), -20.0)
    logits[..., 2], logits[..., 3] = math.log(0.75), math.log(0.25)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert bins_loss(logits, torch.full((1, 4), 2.25)).item() == pytest.approx(entropy, abs=1e-4)
    assert bins_loss(logits, torch.full((1, 4), 5.0)).item() > 10
    assert torch.isfinite(bins_loss(logits, torch.full((1, 4), 99.0)))


def test_masks_count_in_their_boxes_alone():
    truth = torch.zeros(1, 6, 6)
    logits = torch.full((1, 6, 6), 30.0)
    logits[0, :3, :3] = 0.0
    box = torch.tensor([[0.0, 0.0, 3.0, 3.0]])
    assert mask_loss(logits, truth, box).item() == pytest.approx(math.log(2))


def test_cells_go_to_the_object_that_they_fit():
    """Two objects side by side, a grid of 8 x 4 cells whose boxes are exact on each half."""
    x, y = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(4) + 0.5, indexing="xy")
    middles = torch.stack((x.flatten(), y.flatten()), 1)
    goal = torch.tensor([[0.0, 0, 4, 4], [4.0, 0, 8, 4]])
    boxes = torch.where((middles[:, :1] < 4), goal[:1], goal[1:])[None]
    scores = torch.rand(1, 32, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.1
    real = torch.tensor([[True, True, False]])
    padded = torch.cat((goal, torch.zeros(1, 4)))[None]
    given = assign(scores, boxes, middles, Objects(padded, real, torch.zeros(1, 4, 8)))
    assert given.positive.sum() == 2 * TOP
    right = (middles[:, 0] > 4).long()[None]
    assert (given.which == right)[given.positive].all()
    assert given.score.max().item() == pytest.approx(1, abs=1e-4)  # the best cell of each
    assert (given.score[~given.positive] == 0).all()
    most = torch.where(right == 0, scores, 0.0).argmax()
    assert given.score[0, most].item() == pytest.approx(1, abs=1e-4)


def test_nothing_to_find_is_no_error():
    model = small()
    objects = objects_of([torch.zeros(0, 4)], [torch.zeros(64, 64, dtype=torch.uint8)])
    loss = instance_loss(model, model(torch.rand(1, 3, 64, 64)), objects)
    loss.backward()
    assert torch.isfinite(loss)


def test_it_learns_one_picture():
    model = small()
    pixels = torch.zeros(2, 3, 64, 64)
    shown = torch.zeros(2, 64, 64, dtype=torch.uint8)
    boxes = [
        torch.tensor([[8.0, 8, 40, 32], [44.0, 36, 62, 60]]),
        torch.tensor([[16.0, 20, 50, 52]]),
    ]
    for i, own in enumerate(boxes):
        for k, (left, top, right, bottom) in enumerate(own.int().tolist(), start=1):
            shown[i, top:bottom, left:right] = k
            pixels[i, :, top:bottom, left:right] = 0.3 * k
    objects = objects_of(boxes, list(shown))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(30):
        loss = instance_loss(model, model(pixels), objects)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def small():
    torch.manual_seed(0)
    config = FastSAMConfig(
        channels=(4, 8, 8, 16, 16), pairs=(1, 1, 1, 1), bins=8, coefficients=4,
        box_channels=8, class_channels=8, coefficient_channels=8, prototype_channels=8,
    )  # fmt: skip
    return FastSAM(config)
