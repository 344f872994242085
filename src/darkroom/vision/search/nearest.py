"""The pictures of a store nearest to a query, exactly: the codes say which could be among them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.errors import ModelMismatchError
from darkroom.images import ImageLike
from darkroom.vision.encoder import Encoder
from darkroom.vision.search.codes import encode, margin, products, unit
from darkroom.vision.search.store import Index

if TYPE_CHECKING:
    from darkroom.vision.search.approximate import Lists

SAME = 0.9999  # cosine from which on two pictures are taken for one


class Match(NamedTuple):
    """One picture that a search found."""

    path: Path
    score: float  # cosine, -1 to 1


def query(
    encoder: Encoder,
    words: Sequence[str] = (),
    pictures: Sequence[ImageLike] = (),
    without: Sequence[str] = (),
) -> Tensor:
    """A unit vector (E,): the sum of what is wanted, minus what is not.

    Raises:
        ImageError: a picture cannot be read.
        ValueError: nothing is wanted, or nothing is left of it.
    """
    wanted = [encoder.encode_text(words)] if words else []
    wanted += [encoder.encode_image(pictures)] if pictures else []
    if not wanted:
        raise ValueError("nothing to look for; give words or a picture")
    vector = torch.cat(wanted).sum(0)
    if without:
        vector -= encoder.encode_text(without).sum(0)
    if vector.norm() < 1e-3:
        raise ValueError("what is wanted and what is not are the same; nothing is left to look for")
    return F.normalize(vector, dim=0)


def search(
    index: Index, query: Tensor, count: int = 9, lists: "Lists | None" = None
) -> list[Match]:
    """The ``count`` pictures nearest to a query (D,), best first; copies of one appear once.

    Args:
        lists: look into these only, which is faster in many millions and may miss some.

    Raises:
        ModelMismatchError: the query is from a model of another width.
    """
    looked = count + 3
    while True:
        rows, scores = (lists.nearest if lists else partial(nearest, index))(query, looked)
        kept = distinct(unit(index.vectors[rows]), count)
        if len(kept) == count or looked >= len(index):
            break
        looked *= 4
    entries = index.entries(rows[kept].tolist())
    return [
        Match(index.folder / entry.file.path, score)
        for entry, score in zip(entries, scores[kept].tolist(), strict=True)
    ]


def nearest(index: Index, query: Tensor, count: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """(K,) rows and cosines of the ``count`` nearest pictures, or of all; best first, exact.

    Products of the codes are no further from the truth than a known margin. What ``count`` of
    them have in truth is a limit; whatever could be above it is looked up.

    Args:
        start: the first row to look at.

    Raises:
        ModelMismatchError: as ``search``.
    """
    if query.shape != (index.width,):
        raise ModelMismatchError(
            f"the index holds vectors of {index.width} numbers, the query "
            f"{tuple(query.shape)}; embed the folder again with the same model"
        )
    query = F.normalize(query.float(), dim=0)
    codes = index.codes.part(slice(start, None))
    holes = index.holes[index.holes >= start] - start
    count = min(count, len(codes) - len(holes))
    if not count:
        return torch.empty(0, dtype=torch.int64), torch.empty(0)
    asked = encode(query[None], index.turn)
    about = products(asked, codes)[0]
    about[holes] = -torch.inf
    limit = truth(index, query, start + about.topk(count).indices).min()
    rows = start + (about >= limit - margin(asked, codes)).nonzero()[:, 0]
    scores = truth(index, query, rows)
    best = scores.sort(descending=True, stable=True).indices[:count]
    return rows[best], scores[best]


def truth(index: Index, query: Tensor, rows: Tensor) -> Tensor:
    """Cosines (K,) of a query of length one and of rows, from their float16 vectors."""
    return torch.cat([unit(index.vectors[part]) @ query for part in rows.split(1 << 16)])


def distinct(vectors: Tensor, count: int) -> list[int]:
    """Which of unit vectors (K, D) to keep: the first ``count`` that are not copies of one kept."""
    kept: list[int] = []
    for i in range(len(vectors)):
        if len(kept) == count:
            break
        if not kept or (vectors[kept] @ vectors[i]).max() < SAME:
            kept.append(i)
    return kept
