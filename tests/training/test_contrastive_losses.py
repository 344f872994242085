"""Each loss against an independent formula; its gradient by differences; recall by counting."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from darkroom.training.contrastive import chance, infonce, recall, siglip, soft_targets


@pytest.fixture
def pairs():
    g = torch.Generator().manual_seed(1)
    image, text = (torch.randn(5, 7, generator=g) for _ in range(2))
    return image, text


def units(pairs):
    return [F.normalize(vectors, dim=-1) for vectors in pairs]


def test_infonce_pair_by_pair(pairs):
    image, text = units(pairs)
    total = 0.0
    for i in range(5):
        own = math.exp(9.0 * float(image[i] @ text[i]))
        of_image = sum(math.exp(9.0 * float(image[i] @ text[j])) for j in range(5))
        of_text = sum(math.exp(9.0 * float(image[j] @ text[i])) for j in range(5))
        total -= math.log(own / of_image) + math.log(own / of_text)
    assert infonce(image, text, 9.0).item() == pytest.approx(total / 10, rel=1e-5)


def test_siglip_pair_by_pair(pairs):
    image, text = units(pairs)
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = 10.0 * float(image[i] @ text[j]) - 3.0
            likely = 1 / (1 + math.exp(-logit))
            total -= math.log(likely if i == j else 1 - likely)
    assert siglip(image, text, 10.0, -3.0).item() == pytest.approx(total / 5, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_book_s_loss_as_it_is_printed(pairs, temperature):
    image, text = pairs

    def cross_entropy(preds, targets):
        return (-targets * torch.nn.LogSoftmax(dim=-1)(preds)).sum(1)

    logits = (text @ image.T) / temperature
    images_similarity = image @ image.T
    texts_similarity = text @ text.T
    targets = F.softmax((images_similarity + texts_similarity) / 2 * temperature, dim=-1)
    texts_loss = cross_entropy(logits, targets)
    images_loss = cross_entropy(logits.T, targets.T)
    printed = ((images_loss + texts_loss) / 2.0).mean()
    assert torch.allclose(soft_targets(image, text, temperature), printed)


@pytest.mark.parametrize(
    "loss",
    [
        partial(infonce, scale=5.0),
        partial(siglip, scale=5.0, bias=-2.0),
        partial(soft_targets, temperature=1.0),
    ],
    ids=["infonce", "siglip", "soft targets"],
)
def test_gradients_by_differences(pairs, loss):
    image, text = (0.5 * vectors for vectors in pairs)
    image.requires_grad_(), text.requires_grad_()
    gradient = torch.autograd.grad(loss(image, text), (image, text))
    step = 1e-2
    for vectors, exact in zip((image, text), gradient, strict=True):
        for row, column in ((0, 0), (2, 5), (4, 6)):
            moved = []
            for sign in (1, -1):
                with torch.no_grad():
                    vectors[row, column] += sign * step
                    moved.append(loss(image, text).item())
                    vectors[row, column] -= sign * step
            slope = (moved[0] - moved[1]) / (2 * step)
            assert exact[row, column].item() == pytest.approx(slope, abs=2e-3)


def test_losses_are_lowest_for_pairs_that_belong_together():
    vectors = torch.eye(6)
    mixed = vectors.roll(1, 0)
    for loss in (partial(infonce, scale=20.0), partial(siglip, scale=20.0, bias=-10.0)):
        assert loss(vectors, vectors) < 0.01 < 1 < loss(vectors, mixed)
    assert soft_targets(5 * vectors, 5 * vectors) < soft_targets(5 * vectors, 5 * mixed)


def test_losses_keep_float32_where_autocast_rounds(pairs):
    image, text = units(pairs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = infonce(image, text, 9.0)
    assert torch.equal(rounded, infonce(image, text, 9.0))


def test_recall_by_counting():
    image = torch.eye(4)
    text = torch.tensor(
        [
            [1.0, 0, 0, 0],  # finds its image, 0
            [0.9, 0.8, 0, 0],  # of image 1: second
            [0, 0.2, 1.0, 0.5],  # of image 2: first
            [0.3, 0.2, 0.1, 0.0],  # of image 3: last
            [0, 0, 0, 0.6],  # of image 3: first
        ]
    )
    owner = torch.tensor([0, 1, 2, 3, 3])
    to_image, to_text = recall(image, text, owner, at=(1, 2, 4))
    assert to_image == [3 / 5, 4 / 5, 1.0]
    assert to_text == [1.0, 1.0, 1.0]
    assert recall(image, text.flip(0), owner, at=(1,))[1] == [1 / 4]


def test_chance_is_what_random_vectors_reach():
    g = torch.Generator().manual_seed(0)
    owner = torch.arange(40).repeat_interleave(5)
    told = [
        recall(torch.randn(40, 8, generator=g), torch.randn(200, 8, generator=g), owner, at=(1, 10))
        for _ in range(200)
    ]
    for direction, expected in enumerate(chance(40, 5, at=(1, 10))):
        for k in range(2):
            mean = sum(run[direction][k] for run in told) / len(told)
            assert mean == pytest.approx(expected[k], abs=0.02)
    assert chance(3, 2, at=(5,)) == ([1.0], [1.0])
