"""How a one-stage detector of masks learns: which cells answer for which object, and its losses.

Assignment by task alignment (Feng et al., TOOD, arXiv:2108.07755), boxes as distributions (Li et
al., Generalized Focal Loss, arXiv:2006.04388) and by Complete IoU (Zheng et al., arXiv:2005.03572),
masks within their boxes (Bolya et al., YOLACT, arXiv:1904.02689).

Shapes: B pictures, M objects of the one with most, N cells of all levels; boxes are left, top,
right, bottom in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.models.fastsam.network import (
    PROTOTYPE_STRIDE,
    STRIDES,
    Dense,
    FastSAM,
    cells,
    centres,
)

SCORE_POWER, IOU_POWER = 1.0, 6.0  # of the alignment: score^a IoU^b (TOOD, equation 4)
TOP = 10  # cells that an object gets at most
BOX, CLASS, BINS, MASK = 7.5, 0.5, 1.5, 7.5  # weights of the losses
EPSILON = 1e-7


@dataclass(frozen=True)
class Objects:
    """What is to be found; rows beyond an image's own objects are empty."""

    boxes: Tensor  # (B, M, 4)
    real: Tensor  # (B, M) bool
    shown: Tensor  # (B, H, W) uint8: the object's number, from 1, of each pixel; 0 = none


@dataclass(frozen=True)
class Assigned:
    """What each cell is to say."""

    positive: Tensor  # (B, N) bool
    which: Tensor  # (B, N): the object, where positive
    score: Tensor  # (B, N) in [0, 1]: how sure it is to be


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4), elementwise."""
    first, last = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    both = (last - first).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return both / (areas[0] + areas[1] - both + EPSILON)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the distance of the middles and the difference of the shapes (CIoU, section 3.3)."""
    iou = box_iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4
    angles = [
        torch.atan2(box[..., 2] - box[..., 0], (box[..., 3] - box[..., 1]).clamp(min=EPSILON))
        for box in (a, b)
    ]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + EPSILON)
    return iou - apart / (hull.square().sum(-1) + EPSILON) - weight * shape


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, middles: Tensor, objects: Objects) -> Assigned:
    """The cells that answer for each object: those whose score and box agree with it best.

    Args:
        scores: (B, N) in [0, 1]; boxes: (B, N, 4), as the network sees them.
        middles: (N, 2) of the cells; only cells whose middle lies in its box can get an object.
    """
    goal = objects.boxes[:, :, None]  # (B, M, 1, 4)
    inside = (middles > goal[..., :2]) & (middles < goal[..., 2:])
    able = inside.all(-1) & objects.real[..., None]  # (B, M, N)
    iou = box_iou(boxes[:, None], goal) * able
    fit = scores[:, None] ** SCORE_POWER * iou**IOU_POWER  # (B, M, N)
    best = fit.topk(min(TOP, fit.shape[-1]), dim=-1).indices
    chosen = torch.zeros_like(able).scatter_(-1, best, True) & able
    # a cell that several objects want goes to the one whose box it has best
    which = torch.where(chosen, iou, -1.0).argmax(1)  # (B, N)
    chosen &= F.one_hot(which, chosen.shape[1]).bool().transpose(1, 2)
    fit, iou = fit * chosen, iou * chosen
    # an object's best cell is to be as sure as its best box fits
    scale = iou.amax(-1, keepdim=True) / fit.amax(-1, keepdim=True).clamp(min=1e-30)
    return Assigned(chosen.any(1), which, (fit * scale).sum(1))


def bins_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Distances as the two bins around each (DFL, equation 6): (K, 4, bins), (K, 4) -> (K,)."""
    bins = logits.shape[-1]
    goal = distances.clamp(0, bins - 1 - 0.01)
    low = goal.long()
    share = goal - low
    parts = logits.log_softmax(-1)
    lower, upper = (parts.gather(-1, n[..., None])[..., 0] for n in (low, low + 1))
    return -(lower * (1 - share) + upper * share).mean(-1)


def mask_loss(logits: Tensor, truth: Tensor, boxes: Tensor) -> Tensor:
    """Cross entropy within each box over its area (YOLACT, section 3): (K, h, w) -> (K,).

    Args:
        truth: (K, h, w) of 0 and 1; boxes: (K, 4) in pixels of these.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    y = torch.arange(logits.shape[1], device=logits.device)[None, :, None] + 0.5
    x = torch.arange(logits.shape[2], device=logits.device)[None, None] + 0.5
    left, top, right, bottom = (side[:, None, None] for side in boxes.unbind(1))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    area = inside.sum((1, 2)).clamp(min=1)
    return (entropy * inside).sum((1, 2)) / area


def instance_loss(model: FastSAM, dense: Dense, objects: Objects) -> Tensor:
    """All losses, per picture of the batch."""
    decoded = model.decode(dense)
    height, width = objects.shown.shape[1:]
    grids = [(height // stride, width // stride, stride) for stride in STRIDES]
    middles = torch.cat([centres(*grid, decoded.boxes) for grid in grids])
    strides = torch.cat([decoded.boxes.new_full((h * w,), stride) for h, w, stride in grids])
    scores = decoded.scores[..., 0].detach().float()
    given = assign(scores, decoded.boxes.detach().float(), middles, objects)
    logits = torch.cat([cells(level) for level in dense.classes], 1)[..., 0]
    total = given.score.sum().clamp(min=1)
    loss = CLASS * F.binary_cross_entropy_with_logits(logits, given.score, reduction="sum") / total
    picture, cell = given.positive.nonzero(as_tuple=True)
    if len(picture):
        which, weight = given.which[picture, cell], given.score[picture, cell]
        goal = objects.boxes[picture, which]
        fit = complete_iou(decoded.boxes[picture, cell], goal)
        bins = torch.cat([cells(level) for level in dense.boxes], 1)[picture, cell]
        middle, stride = middles[cell], strides[cell][:, None]
        distances = torch.cat((middle - goal[:, :2], goal[:, 2:] - middle), 1) / stride
        coarse = bins_loss(bins.unflatten(1, (4, -1)), distances)
        loss = loss + (weight * (BOX * (1 - fit) + BINS * coarse)).sum() / total
        masks = _masks(decoded.coefficients[picture, cell], decoded.prototypes, picture)
        truth = _shrunk(objects.shown, picture, which)
        loss = loss + MASK * mask_loss(masks, truth, goal / PROTOTYPE_STRIDE).mean()
    return loss


def _masks(coefficients: Tensor, prototypes: Tensor, picture: Tensor) -> Tensor:
    """(K, h, w) logits of K objects: each of its own picture's prototypes; pictures rise."""
    counts = torch.bincount(picture, minlength=len(prototypes)).tolist()
    parts = [
        coefficient @ prototype.flatten(1)
        for coefficient, prototype in zip(coefficients.split(counts), prototypes, strict=True)
    ]
    return torch.cat(parts).unflatten(1, prototypes.shape[2:])


def _shrunk(shown: Tensor, picture: Tensor, which: Tensor) -> Tensor:
    """(K, h, w) of 0 and 1, at the prototypes' size: where an object has half of the pixels."""
    keys, back = torch.unique(picture * 256 + which, return_inverse=True)
    masks = shown[keys // 256] == (keys % 256 + 1)[:, None, None].to(shown.dtype)
    return (F.avg_pool2d(masks[:, None].float(), PROTOTYPE_STRIDE)[:, 0] >= 0.5).float()[back]


def objects_of(
    boxes: Sequence[Tensor], shown: Sequence[Tensor], place: torch.device | str = "cpu"
) -> Objects:
    """One batch of pictures' boxes (n, 4) and (H, W) uint8 numbers."""
    most = max(1, *(len(own) for own in boxes)) if boxes else 1
    padded = torch.zeros(len(boxes), most, 4)
    real = torch.zeros(len(boxes), most, dtype=torch.bool)
    for i, own in enumerate(boxes):
        padded[i, : len(own)], real[i, : len(own)] = own, True
    return Objects(padded.to(place), real.to(place), torch.stack(list(shown)).to(place))
