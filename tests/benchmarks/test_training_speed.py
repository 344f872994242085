"""The two training loops that are timed do the same thing. The figures are not tested."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import training_speed  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("job", training_speed.JOBS)
def test_both_loops_have_the_same_losses(job, monkeypatch):
    monkeypatch.setitem(training_speed.JOBS, job, 2)
    monkeypatch.setattr("darkroom.acceleration.keep_freed_memory", lambda: True)
    ours, theirs = (list(training_speed.CONTENDERS[name](job, 2)) for name in ("darkroom", "peer"))
    assert ours == pytest.approx(theirs, rel=1e-2)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
