"""Losses and scores of segmentation.

Shapes: B batch, K classes, H W height and width. Labels are class numbers; one more number,
``void``, marks pixels that neither the loss nor a score looks at.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def confusion(predicted: Tensor, truth: Tensor, classes: int, void: int) -> Tensor:
    """(K, K) int64 counts of pixels: rows are the true class, columns the predicted one.

    Args:
        predicted: class numbers below K, of any shape.
        truth: class numbers of the same shape, or ``void``.
    """
    counted = truth != void
    pairs = truth[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


@dataclass(frozen=True)
class Scores:
    """How well a segmentation fits; a class that neither has, nor is predicted, is NaN."""

    iou: tuple[float, ...]  # of each class: intersection over union
    pixel_accuracy: float

    @classmethod
    def of(cls, confusion: Tensor) -> "Scores":
        """The scores of a confusion matrix (K, K), summed over all pictures."""
        counts = confusion.double().cpu()
        hit = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - hit
        return cls(tuple((hit / union).tolist()), (hit.sum() / counts.sum()).item())

    @property
    def mean_iou(self) -> float:
        """The mean over the classes that occur."""
        known = [value for value in self.iou if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


def median_frequency_weights(labels: Tensor, classes: int, void: int) -> Tensor:
    """(K,) weights that make rare classes count (Eigen and Fergus, arXiv:1411.4734, section 6.3.2).

    The frequency of a class is its share of the pixels of those pictures that show it; its weight
    is the median of all frequencies over its own. A class that never occurs has weight 0.

    Args:
        labels: (N, H, W).
    """
    counts = torch.stack(
        [torch.bincount(one[one != void].long().flatten(), minlength=classes) for one in labels]
    ).double()  # (N, K)
    seen = counts > 0
    total = (seen * counts.sum(1, keepdim=True)).sum(0)
    frequency = counts.sum(0) / total.clamp(min=1)
    present = frequency > 0
    weights = frequency[present].median() / frequency.clamp(min=1e-12)
    return torch.where(present, weights, 0.0).float()


def segmentation_loss(
    logits: Tensor, truth: Tensor, void: int, weights: Tensor | None = None, dice: float = 0.0
) -> Tensor:
    """Cross entropy per pixel, each weighted by its class; void pixels count as zero.

    A mean over all pixels, so that the mean over parts of a batch is that of the batch.

    Args:
        logits: (B, K, H, W).
        truth: (B, H, W).
        weights: (K,); None = all 1.
        dice: how much of the Dice loss is added.
    """
    logits, truth = logits.float(), truth.long()
    entropy = F.cross_entropy(logits, truth, weights, ignore_index=void, reduction="none")
    loss = entropy.mean()
    return loss + dice * dice_loss(logits, truth, void) if dice else loss


def dice_loss(logits: Tensor, truth: Tensor, void: int) -> Tensor:
    """1 - 2 |A B| / (|A|^2 + |B|^2) of probabilities (Milletari et al., arXiv:1606.04797, eq. 3).

    The mean over the classes that a picture shows, then over the pictures.
    """
    classes = logits.shape[1]
    counted = (truth != void)[:, None]
    probable = logits.softmax(dim=1) * counted
    wanted = F.one_hot(truth.masked_fill(truth == void, 0), classes).movedim(-1, 1) * counted
    both = (probable * wanted).sum(dim=(2, 3))
    either = (probable.square() + wanted).sum(dim=(2, 3))
    shown = wanted.sum(dim=(2, 3)) > 0  # (B, K)
    lost = torch.where(shown, 1 - 2 * both / either.clamp(min=1e-6), 0.0)
    return (lost.sum(1) / shown.sum(1).clamp(min=1)).mean()
