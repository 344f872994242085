"""The table of FastSAM's times; the peer is in no environment of ours."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "segmenting"))
import fastsam_speed


def test_ratios_are_the_peers_time_over_ours():
    spent = {
        "network": 100.0,
        "network, plain": 150.0,
        "network, ultralytics": 150.0,
        "picture to masks": 200.0,
        "picture to masks, ultralytics": 700.0,
    }
    times = {name: {"least": one, "median": one} for name, one in spent.items()}
    lines = fastsam_speed.table([{"network": "s", "milliseconds": times}])
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["1.50", "1.00", "3.50"]


@pytest.mark.slow
def test_both_find_the_same():
    pytest.importorskip("ultralytics")
    row = fastsam_speed.measure("n", 1, 320)
    assert row["objects"] == row["objects, ultralytics"]
    assert row["pixels that differ"] < 20
