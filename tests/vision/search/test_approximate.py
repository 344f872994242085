import sys

import pytest
import torch
import torch.nn.functional as F

from darkroom.errors import CheckpointError
from darkroom.vision.search import NAME, Index, Writer, search
from darkroom.vision.search.approximate import Lists, build
from darkroom.vision.search.nearest import nearest
from darkroom.vision.search.store import File
from vision import things


def add(place, first: int, count: int) -> Index:
    g = torch.Generator().manual_seed(first)
    vectors = F.normalize(torch.randn(count, 8, generator=g), dim=1)
    with Writer(place / NAME, place, things.encoder()) as writer:
        files = [(File(f"{i}", i, i), b"%d" % i, 1) for i in range(first, first + count)]
        writer.add(files, vectors)
        writer.drop(["7", "8"])
        writer.commit()
    return Index.open(place)


def test_lists_find_most_and_what_came_later(tmp_path):
    pytest.importorskip("faiss")
    index = add(tmp_path, 0, 4000)
    path = build(index)
    add(tmp_path, 4000, 50)
    index = Index.open(tmp_path)
    lists = Lists(index)
    g = torch.Generator().manual_seed(9)
    queries = F.normalize(torch.randn(20, 8, generator=g), dim=1)
    hits = 0
    for query in [*queries, index.vectors[4001].float()]:
        rows, scores = lists.nearest(query, 10)
        truth, best = nearest(index, query, 10)
        hits += len(set(rows.tolist()) & set(truth.tolist()))
        assert not set(rows.tolist()) & {7, 8}
        assert (scores <= best + 1e-5).all()
    assert rows[0] == 4001
    assert hits > 0.6 * 210
    assert search(index, query, 3, lists)[0].path.name == "4001"
    whole = path.read_bytes()
    for damage in (whole[:-1], b"\0" * len(whole)):
        path.unlink()  # the old one is still mapped
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match="damaged"):
            Lists(index)


def test_too_few_and_not_made_yet(tmp_path):
    pytest.importorskip("faiss")
    index = add(tmp_path, 0, 20)
    with pytest.raises(CheckpointError, match="too few"):
        build(index)
    with pytest.raises(CheckpointError, match="no lists yet"):
        Lists(index)


def test_without_faiss(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = add(tmp_path, 0, 20)
    for use in (build, Lists):
        with pytest.raises(CheckpointError, match=r"darkroom-studio\[search\]"):
            use(index)
