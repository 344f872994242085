import pytest
import torch
import torch.nn.functional as F

from darkroom.vision.search import NAME, Index, Writer
from darkroom.vision.search.duplicates import duplicates, identical, unchanged
from darkroom.vision.search.store import File
from vision import things


def index_of(place, vectors, digests=None) -> Index:
    """Picture i has 1000 - i pixels, so the first is the best."""
    with Writer(place / NAME, place, things.encoder()) as writer:
        digests = digests or [b"%d" % i for i in range(len(vectors))]
        writer.add([(File(f"{i}", 9, i), d, 1000 - i) for i, d in enumerate(digests)], vectors)
        writer.commit()
    return Index.open(place)


def groups_of(index, **options) -> dict[int, list[int]]:
    steps = list(duplicates(index, **options))
    assert steps[-1].done == len(index)
    return {
        int(group.keep.file.path): sorted(int(copy.entry.file.path) for copy in group.copies)
        for step in steps
        for group in step.groups
    }


def simply(vectors: torch.Tensor, threshold: float) -> dict[int, list[int]]:
    """By the table of all pairs."""
    near = (vectors @ vectors.T) >= threshold
    free, groups = set(range(len(vectors))), {}
    for i in range(len(vectors)):
        if i in free:
            taken = [j for j in sorted(free) if j > i and near[i, j]]
            free -= {i, *taken}
            if taken:
                groups[i] = taken
    return groups


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("threshold", [0.9, 0.97])
def test_as_by_a_table_of_all_pairs(tmp_path, block, threshold):
    g = torch.Generator().manual_seed(0)
    middles = torch.randn(25, 8, generator=g).repeat(8, 1)
    index = index_of(tmp_path, middles + 0.15 * torch.randn(200, 8, generator=g))
    truth = simply(F.normalize(index.vectors.float(), dim=1), threshold)
    assert len(truth) > 10
    assert groups_of(index, threshold=threshold, block=block) == truth


def test_a_chain_is_no_group(tmp_path):
    angles = torch.tensor([0.0, 0.2, 0.4])  # each near the next, the ends apart
    vectors = torch.zeros(3, 8)
    vectors[:, 0], vectors[:, 1] = angles.cos(), angles.sin()
    assert groups_of(index_of(tmp_path, vectors), threshold=0.97) == {0: [1]}


@pytest.mark.parametrize("block", [50, 1024])
def test_many_alike(tmp_path, block):
    index = index_of(tmp_path, torch.ones(300, 8))
    assert groups_of(index, block=block) == {0: list(range(1, 300))}


def test_the_same_bytes(tmp_path):
    vectors = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    vectors[3] = vectors[1]
    index = index_of(tmp_path, vectors, [b"a", b"b", b"c", b"b", b"a"])
    found = {
        int(g.keep.file.path): [int(c.entry.file.path) for c in g.copies] for g in identical(index)
    }
    assert found == {0: [4], 1: [3]}
    ((copy,),) = [g.copies for step in duplicates(index, 0.999) for g in step.groups]
    assert (copy.identical, copy.entry.file.path) == (True, "3")
    with pytest.raises(ValueError, match="cosine"):
        next(duplicates(index, 1.5))


def test_whether_a_file_is_still_the_same(tmp_path):
    index = index_of(tmp_path, torch.ones(1, 8))
    (entry,) = index.entries()
    assert not unchanged(tmp_path, entry)
    path = tmp_path / "0"
    path.write_bytes(b"x" * 9)
    assert not unchanged(tmp_path, entry)
    changed = path.stat().st_mtime_ns
    assert unchanged(tmp_path, entry._replace(file=entry.file._replace(changed=changed)))
