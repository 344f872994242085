"""How SAM learns: its losses, and a user who clicks where the answer is wrong.

Kirillov et al., arXiv:2304.02643, section 3 and appendix A. Shapes: P prompts of one object each,
K masks for each, S pixels of a side, s = S / 2 of the logits' for features at 1/8.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.sam.mask_decoder import NarrowAttention
from darkroom.models.sam.network import Sam

FOCAL, DICE = 20.0, 1.0  # weights of the two losses
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al., arXiv:1708.02002)
SPREAD, MOST = 0.1, 0.05  # of a drawn box: deviation per side, and the most per picture


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """(..., h, w) of logits and of 0 or 1 -> (...): the mean over the pixels."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = (logits.sigmoid() - truth).abs()
    weight = (1 - ALPHA) + (2 * ALPHA - 1) * truth
    return (weight * wrong**GAMMA * entropy).mean((-2, -1))


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """(..., h, w) -> (...): 1 - (2 |A B| + 1) / (|A| + |B| + 1), over probabilities."""
    probable = logits.sigmoid()
    both = (probable * truth).sum((-2, -1))
    return 1 - (2 * both + 1) / (probable.sum((-2, -1)) + truth.sum((-2, -1)) + 1)


def soft_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of logits above 0 with 0 or 1, (..., h, w) -> (...)."""
    inside = (logits > 0).to(truth.dtype)
    both = (inside * truth).sum((-2, -1))
    return both / (inside.sum((-2, -1)) + truth.sum((-2, -1)) - both).clamp(min=1)


def balanced_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy in which object and background weigh alike: (..., h, w) -> (...).

    A network that knows nothing says a half everywhere, not "nothing": from there it finds out
    sooner what a prompt is. In the end its masks are too large.
    """
    share = truth.mean((-2, -1), keepdim=True).clamp(0.01, 0.99)
    weight = 0.5 * torch.where(truth > 0.5, 1 / share, 1 / (1 - share))
    return F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="none").mean(
        (-2, -1)
    )


Kind = Literal["focal", "balanced"]


def mask_loss(
    logits: Tensor, rating: Tensor, truth: Tensor, several: bool, kind: Kind = "focal"
) -> Tensor:
    """Of one answer, (P,): 20 focal + dice, and the square of what the rated IoU is off.

    Args:
        logits: (P, K, s, s); rating: (P, K), the IoU that each is thought to have.
        truth: (P, s, s) of 0 and 1.
        several: the first mask counts, and the best of the others: an unsure prompt may mean any
            of them. Else the first alone.
        kind: "balanced" = ``balanced_loss`` + dice.
    """
    logits, rating = logits.float(), rating.float()
    goal = truth[:, None].expand_as(logits)
    pixels = FOCAL * focal_loss(logits, goal) if kind == "focal" else balanced_loss(logits, goal)
    loss = pixels + DICE * dice_loss(logits, goal)  # (P, K)
    off = (rating - soft_iou(logits.detach(), goal)).square()
    if not several:
        return loss[:, 0] + off[:, 0]
    return loss[:, 0] + loss[:, 1:].amin(1) + off.sum(1)


def drawn_boxes(boxes: Tensor, size: int, noise: Tensor) -> Tensor:
    """Boxes as people draw them: (P, 4), each side off by a tenth of the box's, with limits.

    Args:
        noise: (P, 4), normally distributed.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    most = MOST * size
    moved = boxes + (SPREAD * sides * noise).clamp(-most, most)
    first, last = moved.clamp(0, size).chunk(2, dim=1)
    return torch.cat((torch.minimum(first, last), torch.maximum(first, last)), dim=1)


def clicked(where: Tensor, chance: Tensor) -> Tensor:
    """A pixel of each (P, H, W) bool, evenly at random: (P, 2), x and y.

    Args:
        chance: (P,) in [0, 1). Where nothing is set, the pixel is any.
    """
    flat = where.flatten(1)
    flat = (flat | ~flat.any(1, keepdim=True)).float().cumsum(1)
    wanted = (chance * flat[:, -1])[:, None]
    index = torch.searchsorted(flat, wanted, right=True).clamp(max=flat.shape[1] - 1)[:, 0]
    width = where.shape[2]
    return torch.stack((index % width, index // width), 1).float()


def corrected(logits: Tensor, truth: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """The next click: (P, 2) in pixels of the logits, and (P,): 1 where more belongs, else 0.

    Somewhere in what is wrong; in the object where nothing is.

    Args:
        logits: (P, s, s); truth: (P, s, s) of 0 and 1; chance: (P,) in [0, 1).
    """
    goal = truth > 0.5
    wrong = (logits > 0) != goal
    right = ~wrong.any((1, 2), keepdim=True).any(2, keepdim=True)
    point = clicked(torch.where(right, goal, wrong), chance)
    x, y = point.long().unbind(1)
    return point, goal[torch.arange(len(goal)), y, x].long()


@dataclass(frozen=True)
class Targets:
    """Objects to be found, and the chances by which they are pointed at."""

    scene: Tensor  # (P,) of which picture
    truth: Tensor  # (P, S, S) bool
    boxes: Tensor  # (P, 4): left, top, right, bottom
    chance: Tensor  # (P, clicks + 1) in [0, 1)
    noise: Tensor  # (P, 4), normally distributed
    boxed: Tensor  # (P,) bool: begun with a box, else with a click

    def to(self, place: torch.device) -> "Targets":
        """The same on a device."""
        return Targets(*(getattr(self, part.name).to(place) for part in fields(self)))


def answers(
    model: Sam, features: Tensor, targets: Targets, clicks: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, bool]]:
    """What the network answers to a first prompt, and after each correction.

    Args:
        features: (B, C, h, w) of the pictures.
        clicks: corrections after the first prompt.

    Yields:
        logits (P', K, s, s), the rated IoU (P', K), truth (P', s, s) of 0 and 1, and whether it was
        the first prompt; once for the prompts begun with clicks, once for those with boxes.
    """
    size = model.config.size
    for boxed in (False, True):
        chosen = (targets.boxed == boxed).nonzero()[:, 0]
        if not len(chosen):
            continue
        truth, chance = targets.truth[chosen], targets.chance[chosen]
        own = features[targets.scene[chosen]]
        boxes = labels = points = None
        if boxed:
            boxes = drawn_boxes(targets.boxes[chosen], size, targets.noise[chosen])
        else:
            points = clicked(truth, chance[:, 0])[:, None]
            labels = torch.ones(len(chosen), 1, dtype=torch.long, device=points.device)
        logits, rating = model.decode(own, points=points, labels=labels, boxes=boxes)
        scale = size // logits.shape[-1]
        small = (F.avg_pool2d(truth[:, None].float(), scale)[:, 0] >= 0.5).float()
        yield logits, rating, small, True
        for click in range(1, clicks + 1):
            # what goes back in is what the network itself thinks best
            best = rating.detach()[:, 1:].argmax(1) + 1 if click == 1 else 0
            low = logits.detach()[torch.arange(len(chosen)), best].float()
            point, label = corrected(low, small, chance[:, click])
            point = ((point + 0.5) * scale - 0.5)[:, None]
            points = point if points is None else torch.cat((points, point), 1)
            labels = label[:, None] if labels is None else torch.cat((labels, label[:, None]), 1)
            logits, rating = model.decode(
                own, points=points, labels=labels, boxes=boxes, masks=low[:, None], candidates=1
            )
            yield logits, rating, small, False


def interactive_loss(
    model: Sam, features: Tensor, targets: Targets, clicks: int, kind: Kind = "focal"
) -> Tensor:
    """The mean over prompts and answers."""
    total = torch.zeros((), device=features.device)
    for logits, rating, truth, first in answers(model, features, targets, clicks):
        total = total + mask_loss(logits, rating, truth, first, kind).sum()
    return total / (len(targets.scene) * (clicks + 1))


@torch.no_grad()
def align(model: Sam, sharpness: float = 2.5, learnt: float = 0.2) -> None:
    """Begin with a decoder whose tokens look where their prompt is.

    Queries and keys are projected alike, so that attention begins with similar places; values
    come out as they went in; learned tokens begin small beside positions. With torch's own
    beginning, hundreds of steps pass before a prompt makes a difference.
    """
    decoder, prompts = model.mask_decoder, model.prompt_encoder
    for parameter in (
        decoder.iou_token, decoder.mask_tokens, prompts.outside, prompts.inside,
        prompts.first_corner, prompts.last_corner, prompts.no_point, prompts.no_mask,
    ):  # fmt: skip
        parameter.mul_(learnt)
    for attention in decoder.modules():
        if isinstance(attention, NarrowAttention):
            attention.q.weight.mul_(sharpness)
            attention.k.load_state_dict(attention.q.state_dict())
            nn.init.orthogonal_(attention.v.weight)
            attention.out.weight.copy_(attention.v.weight.T)
            nn.init.zeros_(attention.v.bias)
            nn.init.zeros_(attention.out.bias)
