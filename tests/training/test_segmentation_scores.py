"""Scores against sets of pixels, weights and losses against sums by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from darkroom.training.segmentation import (
    Scores,
    confusion,
    dice_loss,
    median_frequency_weights,
    segmentation_loss,
)

VOID = 4


@pytest.fixture
def maps():
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 5, (3, 12, 17), generator=g)  # 4 = void
    guessed = torch.where(
        torch.rand(truth.shape, generator=g) < 0.6,
        truth.clamp(max=3),
        torch.randint(0, 4, truth.shape, generator=g),
    )
    return guessed.byte(), truth.byte()


def test_iou_is_that_of_sets(maps):
    guessed, truth = maps
    scores = Scores.of(confusion(guessed, truth, 4, VOID))
    counted = [i for i, value in enumerate(truth.flatten().tolist()) if value != VOID]
    a, b = guessed.flatten().tolist(), truth.flatten().tolist()
    for kind in range(4):
        mine, theirs = ({i for i in counted if m[i] == kind} for m in (a, b))
        assert scores.iou[kind] == pytest.approx(len(mine & theirs) / len(mine | theirs))
    right = sum(a[i] == b[i] for i in counted) / len(counted)
    assert scores.pixel_accuracy == pytest.approx(right)
    assert scores.mean_iou == pytest.approx(sum(scores.iou) / 4)


def test_rows_are_the_truth():
    counts = confusion(torch.tensor([1, 1, 2]), torch.tensor([0, 1, 3]), 3, void=3)
    assert counts.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_a_class_that_nobody_speaks_of_does_not_count():
    scores = Scores.of(confusion(torch.tensor([0, 0]), torch.tensor([0, 1]), 3, VOID))
    assert scores.iou[:2] == (0.5, 0.0)
    assert math.isnan(scores.iou[2])
    assert scores.mean_iou == 0.25


def test_weights_by_median_frequency():
    """Of the labelled pixels of the pictures that show it; the median is that of class 1."""
    labels = torch.tensor([[[0, 0], [1, 1]], [[0, 2], [0, VOID]]])
    weights = median_frequency_weights(labels, 4, VOID)
    frequency = torch.tensor([4 / 7, 2 / 4, 1 / 3])
    assert torch.allclose(weights[:3], 0.5 / frequency)
    assert weights[3] == 0


def test_loss_weighs_and_leaves_void_out(maps):
    _, truth = maps
    logits = torch.randn(3, 4, 12, 17, generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    chances = logits.log_softmax(1)
    total = 0.0
    for b, y, x in (truth != VOID).nonzero().tolist():
        kind = int(truth[b, y, x])
        total -= weights[kind].item() * chances[b, kind, y, x].item()
    assert segmentation_loss(logits, truth, VOID, weights).item() == pytest.approx(
        total / truth.numel(), rel=1e-5
    )


def test_parts_of_a_batch_make_its_loss(maps):
    _, truth = maps
    logits = torch.randn(3, 4, 12, 17)
    weights = torch.rand(4)
    parts = [
        segmentation_loss(logits[i : i + 1], truth[i : i + 1], VOID, weights, dice=0.7)
        for i in range(3)
    ]
    whole = segmentation_loss(logits, truth, VOID, weights, dice=0.7)
    assert torch.allclose(torch.stack(parts).mean(), whole)


def test_dice_of_sure_answers():
    truth = torch.tensor([[[0, 0, 1, VOID]]])
    perfect = F.one_hot(truth.clamp(max=1), 2).movedim(-1, 1) * 50.0
    assert dice_loss(perfect, truth, VOID).item() == pytest.approx(0, abs=1e-6)
    everywhere_0 = torch.tensor([50.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    # class 0: 2 * 2 / (3 + 2); class 1: nothing
    assert dice_loss(everywhere_0, truth, VOID).item() == pytest.approx((1 - 4 / 5 + 1) / 2)


def test_losses_learn_a_map():
    torch.manual_seed(0)
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    truth = torch.randint(0, 3, (1, 4, 4))
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(15):
        optimizer.zero_grad()
        segmentation_loss(logits, truth, VOID, dice=1.0).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), truth)


def test_nothing_but_void_is_no_error():
    truth = torch.full((2, 4, 4), VOID)
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, truth, VOID, torch.ones(3), dice=1.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()
