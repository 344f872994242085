"""The benchmark of searches runs, and what it compares agrees."""

import argparse
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "searching"))
import search_speed


@pytest.mark.parametrize("faiss", [False, True])
def test_a_small_store(tmp_path, faiss):
    if faiss:
        pytest.importorskip("faiss")
    arguments = argparse.Namespace(width=32, queries=10, faiss=faiss, dedupe=True)
    for _ in range(2):  # the second time, the store is there
        found = search_speed.measure(tmp_path / "store", 3000, arguments)
        assert found["vectors"] == 3000
        assert found["equal to numpy's"] == 1
        assert found["copies"] >= 0
    assert found["filled, s"] == 0
    if faiss:
        assert found["faiss, recall at 9"] > 0.6
