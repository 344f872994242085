"""Losses that pull an image and its caption together, and how well they then find each other.

Shapes: N pairs, E embedding. Row n of ``image`` belongs to row n of ``text``. With several
processes, gather the embeddings first (``distributed.gather``): every loss needs all pairs.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def infonce(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """Which text is the image's, which image is the text's (Radford et al., 2103.00020, figure 3).

    Args:
        image, text: (N, E) unit vectors.
        scale: the inverse temperature.
    """
    logits = scale * products(image, text)
    target = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def siglip(image: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """Whether each of the N x N pairs belongs together (Zhai et al., 2303.15343, algorithm 1).

    Args:
        image, text: (N, E) unit vectors.
        scale, bias: learned; the paper begins with 10 and -10.
    """
    logits = scale * products(image, text) + bias
    sign = 2 * torch.eye(len(image), device=image.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(image)


def soft_targets(image: Tensor, text: Tensor, temperature: float = 1.0) -> Tensor:
    """The book's loss: pairs that are alike share their probability (features A10, A11).

    targets = softmax((I I^T + T T^T) / 2 * temperature), not held fixed: they have a gradient.

    Args:
        image, text: (N, E), not normalised.
    """
    logits = products(text, image) / temperature
    alike = (products(image, image) + products(text, text)) / 2
    target = (alike * temperature).softmax(-1)
    of_texts = -(target * logits.log_softmax(-1)).sum(-1)
    of_images = -(target.T * logits.T.log_softmax(-1)).sum(-1)
    return ((of_texts + of_images) / 2).mean()


def products(a: Tensor, b: Tensor) -> Tensor:
    """(N, E), (M, E) -> dot products (N, M), in float32 also where autocast would round them."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T


def recall(
    image: Tensor, text: Tensor, owner: Tensor, at: Sequence[int] = (1, 5, 10)
) -> tuple[list[float], list[float]]:
    """Recall at k, text to image and image to text.

    A text finds its image, an image one of its texts, among the k best dot products.

    Args:
        image: (N, E).
        text: (M, E).
        owner: (M,) the image of each text; every image has one at least.
    """
    similarity = text @ image.T  # (M, N)
    own = similarity.gather(1, owner[:, None])
    rank = (similarity > own).sum(1)  # of the text's image
    mine = owner[:, None] == torch.arange(len(image), device=owner.device)
    best = similarity.masked_fill(~mine, -math.inf).amax(0)
    first = (similarity > best).sum(0)  # of the image's best text
    return [hits(rank, k) for k in at], [hits(first, k) for k in at]


def hits(rank: Tensor, k: int) -> float:
    return (rank < k).double().mean().item()


def chance(images: int, texts: int, at: Sequence[int] = (1, 5, 10)) -> tuple[list[float], ...]:
    """What ``recall`` gives on average for embeddings at random, ``texts`` for each image."""
    total = images * texts
    among = [min(k, total) for k in at]
    missed = [math.comb(total - texts, k) / math.comb(total, k) for k in among]
    return [min(1.0, k / images) for k in at], [1 - miss for miss in missed]
