"""SAM's losses by hand, and clicks where the answer is wrong."""

import pytest
import torch

from darkroom.models.sam.config import DecoderConfig, SamConfig, TinyVitConfig
from darkroom.models.sam.network import Sam
from darkroom.training.segmenting.prompted import (
    Targets,
    answers,
    clicked,
    corrected,
    dice_loss,
    drawn_boxes,
    focal_loss,
    interactive_loss,
    mask_loss,
    soft_iou,
)


def square(size=8, first=2, last=6):
    mask = torch.zeros(1, size, size)
    mask[0, first:last, first:last] = 1
    return mask


def test_focal_loss_is_the_paper_s():
    """-alpha (1 - p)^2 log p inside, -(1 - alpha) p^2 log(1 - p) outside."""
    logits = torch.tensor([[[0.3, -1.2]]])
    p = logits.sigmoid()
    inside = -0.25 * (1 - p) ** 2 * p.log()
    outside = -0.75 * p**2 * (1 - p).log()
    expected = (inside[0, 0, 0] + outside[0, 0, 1]) / 2
    assert torch.allclose(focal_loss(logits, torch.tensor([[[1.0, 0.0]]])), expected)


def test_dice_loss_by_hand():
    logits = torch.zeros(1, 2, 2)  # probabilities of a half
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert dice_loss(logits, truth).item() == pytest.approx(1 - 3 / 5)


def test_iou_of_logits():
    truth = square()
    assert soft_iou(truth - 0.5, truth).item() == 1
    assert soft_iou(torch.full_like(truth, -1.0), truth).item() == 0
    assert soft_iou(torch.ones_like(truth), truth).item() == pytest.approx(16 / 64)


def test_the_best_candidate_alone_counts():
    truth = square()
    good, bad = (truth - 0.5) * 20, (0.5 - truth) * 20
    rating = torch.zeros(1, 4)
    both = mask_loss(torch.stack((good, bad, good, bad), 1), rating, truth, several=True)
    worse = mask_loss(torch.stack((good, bad, bad, bad), 1), rating, truth, several=True)
    assert both.item() < 2.1 and worse.item() > 5  # rated 0: each right one costs 1
    one = mask_loss(torch.stack((good, bad), 1)[:, :1], torch.ones(1, 1), truth, several=False)
    assert one.item() < 0.01


def test_clicks_lie_where_they_must():
    where = square().bool().expand(50, -1, -1)
    points = clicked(where, torch.linspace(0, 0.999, 50))
    assert points.min() == 2 and points.max() == 5
    assert len({tuple(point) for point in points.tolist()}) == 16  # each pixel
    assert clicked(torch.zeros(1, 4, 4, dtype=torch.bool), torch.tensor([0.99])).tolist() == [
        [3, 3]
    ]


def test_corrections_say_what_is_wrong():
    truth = square().repeat(3, 1, 1)
    logits = truth - 0.5
    logits[0, 3, 3] = -1  # missing
    logits[1, 0, 7] = 1  # too much
    point, label = corrected(logits, truth, torch.tensor([0.5, 0.5, 0.5]))
    assert point[:2].tolist() == [[3, 3], [7, 0]] and label.tolist() == [1, 0, 1]
    x, y = point[2].long().tolist()
    assert truth[2, y, x] == 1  # nothing is wrong: another click into the object


def test_boxes_are_drawn_with_a_limit():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert drawn_boxes(boxes, 100, torch.zeros(1, 4)).equal(boxes)
    moved = drawn_boxes(boxes, 100, torch.tensor([[1.0, 1.0, -9.0, 9.0]]))
    assert torch.allclose(moved, torch.tensor([[12.0, 24.0, 25.0, 65.0]]))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = TinyVitConfig(channels=(8, 16), blocks=(1, 1), heads=(2,), windows=(4,), strides=(2,))
    decoder = DecoderConfig(heads=2, hidden=32, iou_hidden=16)
    return Sam(SamConfig(size=32, channels=16, mask_channels=4, encoder=encoder, decoder=decoder))


def targets(count, boxed):
    g = torch.Generator().manual_seed(1)
    truth = torch.zeros(count, 32, 32, dtype=torch.bool)
    truth[:, 8:20, 10:26] = True
    return Targets(
        torch.arange(count) % 2, truth, torch.tensor([[10.0, 8, 26, 20]]).repeat(count, 1),
        torch.rand(count, 3, generator=g), torch.randn(count, 4, generator=g), boxed,
    )  # fmt: skip


def test_a_first_prompt_and_its_corrections(model):
    asked = targets(5, torch.tensor([True, False, False, True, False]))
    features = torch.randn(2, 16, 4, 4)
    shapes = [
        (tuple(logits.shape), first) for logits, _, _, first in answers(model, features, asked, 2)
    ]
    assert shapes == [
        ((3, 4, 16, 16), True), ((3, 1, 16, 16), False), ((3, 1, 16, 16), False),
        ((2, 4, 16, 16), True), ((2, 1, 16, 16), False), ((2, 1, 16, 16), False),
    ]  # fmt: skip


def test_every_part_learns(model):
    asked = targets(4, torch.tensor([True, False, True, False]))
    pixels = torch.randint(256, (2, 3, 32, 32)).float()
    interactive_loss(model, model.encode(model.normalised(pixels)), asked, 1).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent
