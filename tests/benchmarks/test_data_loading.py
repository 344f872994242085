"""The contenders load the same pictures; the figures are not tested."""

import sys
from pathlib import Path

import numpy as np
import pytest

from training.data.data_sets import picture

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import data_loading  # noqa: E402


@pytest.mark.slow
def test_contenders_load_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for i in range(70):
        (photographs / f"{i:02}.jpg").write_bytes(picture(i, (60, 48), "JPEG"))
    data_loading.make(photographs, 66, tmp_path)
    means = {}
    for name in data_loading.KINDS:
        if name not in data_loading.PEERS:
            loaded = [np.asarray(batch) for batch in data_loading.batches(name, tmp_path, 16)]
            assert sum(map(len, loaded)) == 66
            axes = (2, 3) if loaded[0].shape[1] == 3 else (1, 2)
            means[name] = np.sort(np.concatenate([b.mean(axes) for b in loaded]).sum(1))
    plain = means.pop("plain PIL loop")
    for other in means.values():
        assert np.abs(other - plain).max() < 6  # of 765: the decoder's own scaling is a box
    measured = data_loading.run("darkroom, shards, prefetch", tmp_path, 16)
    assert min(measured.values()) > 0
    waits = data_loading.waiting(tmp_path, 2, 2)
    assert 0 <= waits["share"] < 1
