"""The comparison of encoders: what each process does, and the table. No figure is tested."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import encoders  # noqa: E402


class Pipe:
    """Tells to run twice, then to end."""

    def __init__(self) -> None:
        self.sent, self.orders = [], [True, True, False]

    def send(self, answer: object) -> None:
        self.sent.append(answer)

    def recv(self) -> bool:
        return self.orders.pop(0)


def test_a_contender_answers_then_is_timed(monkeypatch) -> None:
    calls = []

    def prepare(folder: Path) -> encoders.Call:
        assert folder.is_dir()
        return lambda: calls.append(folder) or torch.ones(2)

    job = encoders.Job("tiny", {encoders.DARKROOM: prepare})
    monkeypatch.setattr(encoders, "JOBS", {"tiny": lambda: job})
    monkeypatch.setattr(encoders.torch, "set_num_threads", lambda _: None)
    monkeypatch.setenv("DARKROOM_ACCELERATE", "1")
    pipe = Pipe()
    encoders.work(pipe, "tiny", encoders.PLAIN, 1)
    answer, *timed = pipe.sent
    assert answer.tolist() == [1, 1]
    assert len(calls) == 3
    assert [len(one) for one in timed] == [3, 3]
    assert not calls[0].exists()


def test_ratios_are_theirs_over_ours() -> None:
    rows = {
        name: {"seconds": [s, s], "median": s, "cpu": 2 * s, "peak_mb": 9.0, "apart": 0.0}
        for name, s in ((encoders.DARKROOM, 2.0), ("transformers", 3.0))
    }
    fields = {
        "machine": encoders.machine.describe(1), "instructions": "AVX2", "environment": {},
        "rounds": 2, "crews": 1, "jobs": {"tiny": rows},
    }  # fmt: skip
    *_, ours, theirs = encoders.markdown(fields).splitlines()
    assert "| | |" in ours
    assert "| **1.50** | 1.50 |" in theirs
    assert ours.count("|") == theirs.count("|") == 8
