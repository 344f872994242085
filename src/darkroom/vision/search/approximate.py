"""Search in many millions of vectors, by faiss: only the lists nearest to the query are read.

An inverted file (IVF) with a byte a number: it trains in minutes, adds in one pass and is mapped
from the disk, where a graph (HNSW) wants all vectors and their links in memory. What it proposes
is ranked by the store's own vectors.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.atomic import sync_folder
from darkroom.errors import CheckpointError
from darkroom.vision.search.codes import unit
from darkroom.vision.search.nearest import nearest, truth
from darkroom.vision.search.store import Index

PROBED = 1 / 16  # of the lists, in a search
WIDER = 8  # times as many as asked for are proposed
TRAINED = 64  # vectors to train on, for each list
CHUNK = 100_000


def build(index: Index) -> Path:
    """Write the lists of a store beside its vectors; a few minutes for a million.

    Raises:
        CheckpointError: faiss is not installed, or there are too few pictures to make lists of.
    """
    faiss = _faiss()
    alive = torch.ones(len(index.vectors), dtype=torch.bool)
    alive[index.holes] = False
    rows = alive.nonzero()[:, 0]
    count = min(round(4 * len(rows) ** 0.5), len(rows) // 40)
    if count < 1:
        raise CheckpointError(
            f"{index.path}: {len(rows)} pictures are too few for lists; an exact search is instant"
        )
    flat = faiss.IndexFlatIP(index.width)
    kind = faiss.ScalarQuantizer.QT_8bit
    lists = faiss.IndexIVFScalarQuantizer(
        flat, index.width, count, kind, faiss.METRIC_INNER_PRODUCT
    )
    lists.cp.niter = 10  # rounds of k-means; its default of 25 finds no more
    some = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    lists.train(unit(index.vectors[some[: TRAINED * count]]).numpy())
    for part in rows.split(CHUNK):
        lists.add_with_ids(unit(index.vectors[part]).numpy(), part.numpy())
    name = f"lists-{index.generation}-{len(index.vectors)}"
    temporary = index.path / f".{name}.part"
    faiss.write_index(lists, str(temporary))
    path = index.path / f"{name}-{temporary.stat().st_size}"  # says if it was cut off
    os.replace(temporary, path)
    sync_folder(path.parent)
    for old in index.path.glob(f"lists-{index.generation}-*"):
        if old != path:
            old.unlink()
    return path


class Lists:
    """The lists of a store, mapped from the disk.

    Raises:
        CheckpointError: there are none, or faiss is not installed.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        faiss = _faiss()
        made = sorted(index.path.glob(f"lists-{index.generation}-*"))
        if not made:
            raise CheckpointError(
                f"{index.path}: no lists yet; `darkroom embed --faiss` makes them"
            )
        *_, rows, size = made[-1].name.split("-")
        self.rows = int(rows)  # that are in it
        try:
            if made[-1].stat().st_size != int(size):
                raise RuntimeError(f"{made[-1].stat().st_size} of {size} bytes")
            flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            self.lists: Any = faiss.read_index(str(made[-1]), flags)
        except RuntimeError as error:
            raise CheckpointError(
                f"{made[-1]}: damaged ({str(error).splitlines()[-1][:80]}); "
                "`darkroom embed --faiss` writes it again"
            ) from None
        self.lists.nprobe = max(1, round(self.lists.nlist * PROBED))

    def nearest(self, query: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """As ``nearest.nearest``, but some of the nearest may be missing.

        Pictures that were added since the lists were made are searched exactly.
        """
        query = torch.nn.functional.normalize(query.float(), dim=0)
        _, ids = self.lists.search(query[None].numpy(), WIDER * count)
        rows = torch.from_numpy(ids[0])
        rows = rows[(rows >= 0) & ~torch.isin(rows, self.index.holes)]
        scores = truth(self.index, query, rows)
        if self.rows < len(self.index.vectors):
            more = nearest(self.index, query, count, start=self.rows)
            rows, scores = torch.cat([rows, more[0]]), torch.cat([scores, more[1]])
        best = scores.sort(descending=True, stable=True).indices[:count]
        return rows[best], scores[best]


def _faiss() -> Any:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise CheckpointError(
            "lists are made and searched by faiss, which is not installed; "
            'install it: pip install "darkroom-studio[search]"'
        ) from None
    return faiss
