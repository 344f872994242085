"""What is timed computes the same. The figures are not tested."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "searching"))

import clip_speed  # noqa: E402

from weights.layouts import clips  # noqa: E402


def test_all_libraries_have_the_same_vectors():
    text = replace(clips.TEXT, vocabulary=49_408, positions=77, end=49_407)
    cases = clip_speed.compare(replace(clips.CONFIGS["vit"], text=text), batch=3, repeats=1)
    assert set(cases) == {"pictures", "texts"}
    for case in cases.values():
        assert {"darkroom", "darkroom, plain", "transformers"} <= set(case)
        assert all(row["apart"] < 1e-5 for row in case.values())
        table = clip_speed.markdown(
            {
                "machine": clip_speed.machine.describe(1), "model": "x", "batch": 3,
                "open_clip": "absent", "torchvision": "absent", "cases": cases,
            }
        ).splitlines()[7:]  # fmt: skip
        assert {line.count("|") for line in table} == {7}
