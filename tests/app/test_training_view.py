"""What `darkroom train` shows: a table on a terminal, lines elsewhere."""

import io

import pytest
import rich.console

from darkroom.app.training_view import TrainingView, peak_memory
from darkroom.training.fit import FitStep


def steps(count=20, first=0, **more):
    for i in range(first, count):
        noted = {"validation_loss": 0.5} if i >= 10 else {}
        yield FitStep(i, count, 1 / (i + 1), 1e-3, 0.7, 100.0, noted=noted, **more)


def run(**how):
    told = list(steps(**how))
    with TrainingView("x.toml", told[0]) as view:
        for step in told:
            view.show(step)
    return view


def test_lines_say_it_every_ten_percent(capfd):
    run()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("x.toml: 10 % (2 of 20 steps), ")
    assert "lr 1.00e-03, 100 samples/s" in lines[0]
    assert "validation loss" not in lines[0]
    assert "validation loss 0.5" in lines[-1]
    assert "x.toml: 100 % (20 of 20 steps)" in lines[-1]


def test_a_resumed_run_counts_from_where_it_goes_on(capfd):
    run(first=15)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("x.toml: 20 % (16 of 20 steps)")


def test_overflows_are_said(capfd):
    view = run(skipped=True)
    assert "20 steps overflowed" in capfd.readouterr().err
    assert ("overflowed steps", "20") in view.cells()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 24)])
def test_the_table_fits_the_terminal(monkeypatch, width, height):
    monkeypatch.setattr("darkroom.app.progress.is_live", lambda: True)
    console = rich.console.Console
    screen = io.StringIO()

    def terminal(**options):
        return console(file=screen, width=width, height=height, force_terminal=True)

    monkeypatch.setattr(rich.console, "Console", terminal)
    view = TrainingView("x.toml", next(steps()))
    for step in steps():
        view.show(step)
    page = console(file=io.StringIO(), width=width, record=True)
    page.print(view.live.render())
    lines = page.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for word in ("x.toml", "step 20 of 20", "100 %", "loss", "learning rate", "samples/s",
                 "time left", "peak memory", "validation loss"):  # fmt: skip
        assert word in text, text
    assert len(lines) == 2 + -(-len(view.cells()) // {40: 1, 80: 2, 120: 3}[width])


def test_memory_is_known_here():
    assert peak_memory() > 50_000_000
