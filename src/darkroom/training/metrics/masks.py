"""How well masks fit. Shapes: N predicted and M true masks, H height, W width."""

from collections.abc import Sequence

import torch
from torch import Tensor

THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))  # of IoU, as COCO averages over them


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each pair of (..., H, W) bool; 0 where both are empty."""
    both, either = (a & b).sum((-2, -1)), (a | b).sum((-2, -1))
    return both / either.clamp(min=1)


def pairwise_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """(N, H, W) and (M, H, W) bool -> (N, M)."""
    a, b = predicted.flatten(1).float(), true.flatten(1).float()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1) - both).clamp(min=1)


def recall(ious: Sequence[Tensor], threshold: float = 0.75) -> float:
    """The fraction of true masks that some predicted one fits; each (N, M) is one picture's."""
    found = sum(int((best_of(one) >= threshold).sum()) for one in ious)
    return found / max(sum(one.shape[1] for one in ious), 1)


def average_recall(ious: Sequence[Tensor]) -> float:
    """The mean of ``recall`` over COCO's ten thresholds, each mask matched to its best."""
    return sum(recall(ious, threshold) for threshold in THRESHOLDS) / len(THRESHOLDS)


def best_of(ious: Tensor) -> Tensor:
    """(N, M) -> (M,): how well the best of the predicted masks fits each true one."""
    return ious.amax(0) if len(ious) else ious.new_zeros(ious.shape[1])


def average_precision(
    ious: Sequence[Tensor], scores: Sequence[Tensor], threshold: float = 0.5
) -> float:
    """COCO's: the precision at 101 recalls, interpolated, over all pictures; one class.

    In the order of their scores, each predicted mask takes the free true one that it fits best.

    Args:
        ious: (N, M) of each picture.
        scores: (N,) of each picture.
    """
    hits, rated = list[bool](), list[float]()
    for one, score in zip(ious, scores, strict=True):
        free = torch.ones(one.shape[1], dtype=torch.bool)
        for i in score.argsort(descending=True, stable=True).tolist():
            fits = torch.where(free, one[i], -1.0)
            best = int(fits.argmax()) if len(fits) else -1
            hit = best >= 0 and float(fits[best]) >= threshold
            if hit:
                free[best] = False
            hits.append(hit)
            rated.append(float(score[i]))
    total = sum(one.shape[1] for one in ious)
    if not hits or not total:
        return 0.0
    order = torch.tensor(rated, dtype=torch.double).argsort(descending=True, stable=True)
    hit = torch.tensor(hits)[order].cumsum(0).double()
    precision = hit / torch.arange(1, len(hit) + 1)
    best_after = precision.flip(0).cummax(0).values.flip(0)
    at = torch.searchsorted(hit / total, torch.linspace(0, 1, 101, dtype=torch.double))
    return torch.cat((best_after, best_after.new_zeros(1)))[at].mean().item()
