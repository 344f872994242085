"""A run's folder: stopping, full disks, leftovers, logs, trackers and reports."""

import json
import math
import os
import signal
import sys
import types
from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image
from torch import nn

from darkroom.app.outcome import Answer, report
from darkroom.errors import DarkroomError, NonFiniteError
from darkroom.recipes.runs import Run
from darkroom.training.fit import FitOptions, Training

OPTIONS = FitOptions(steps=12, batch=8, lr=1e-2, warmup=3, ema=0.9, device="cpu")


@dataclass(frozen=True)
class Config:
    width: int = 8


def start(folder, options=OPTIONS, save_every=100, spoil=lambda draw: 1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 1))
    model.config = Config()
    run = Run(folder, "test", options, Training(model, options), save_every)

    def loss(draw):
        x = draw.share(torch.randn(8, 4, generator=draw.generator))
        value = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return value * spoil(draw)

    return run, loss


def losses(folder, **how):
    run, loss = start(folder, **how)
    return [step.loss for step in run.steps(loss)]


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_waits_for_its_end(tmp_path, number):
    class Terminated(Exception):
        pass

    def handler(number, frame):
        raise Terminated

    def interrupt(draw):
        if draw.step == 4:
            os.kill(os.getpid(), number)
        return 1.0

    whole = losses(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGTERM, handler)
    run, loss = start(tmp_path / "run", spoil=interrupt)
    told = []
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Terminated):
            for step in run.steps(loss):
                told.append(step.loss)
        assert signal.getsignal(signal.SIGTERM) == handler  # given back
    finally:
        signal.signal(signal.SIGTERM, before[0])
    assert signal.getsignal(signal.SIGINT) == before[1]
    assert len(told) == 5  # the caller saw the step that was under way
    assert told + losses(tmp_path / "run") == whole


def test_a_second_signal_does_not_wait_and_saves_nothing_half_done(tmp_path):
    def interrupt(draw):
        if draw.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    whole = losses(tmp_path / "whole")
    run, loss = start(tmp_path / "run", spoil=interrupt, save_every=2)
    told = []
    with pytest.raises(KeyboardInterrupt):
        told += [step.loss for step in run.steps(loss)]
    rest = losses(tmp_path / "run")
    assert rest == whole[-len(rest) :]


def test_a_signal_between_steps_acts_at_once(tmp_path):
    run, loss = start(tmp_path)
    reached = False
    with pytest.raises(KeyboardInterrupt):
        for step in run.steps(loss):
            if step.index == 3:  # an evaluation, say
                os.kill(os.getpid(), signal.SIGINT)
                reached = True
    assert not reached
    assert start(tmp_path)[0].training.step == 4


def test_a_run_that_ends_early_leaves_a_report_that_says_so(tmp_path):
    run, loss = start(tmp_path)
    steps = run.steps(loss)
    for _ in range(3):
        next(steps)
    run.note(accuracy=0.5)
    steps.close()
    page = (tmp_path / "report.html").read_text()
    assert "has not come to its end" in page
    assert "accuracy" in page
    run, loss = start(tmp_path)
    list(run.steps(loss))
    run.finish(model=run.training.model)
    page = (tmp_path / "report.html").read_text()
    assert "has not come to its end" not in page
    assert "accuracy" in page


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path):
    run, loss = start(tmp_path, spoil=lambda draw: math.nan if draw.step == 6 else 1.0)
    with pytest.raises(NonFiniteError, match="step 6"):
        list(run.steps(loss))
    training = start(tmp_path)[0].training
    assert training.step == 6
    assert all(p.isfinite().all() for p in training.parameters)


def test_leftovers_of_killed_saves_are_cleaned_up(tmp_path):
    (tmp_path / ".state.safetensors.abc.part").write_bytes(b"half")
    (tmp_path / "mine.part").write_bytes(b"stays")
    start(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.part"]


def test_a_log_line_cut_short_is_forgotten(tmp_path):
    whole = losses(tmp_path)
    run, loss = start(tmp_path, options=replace(OPTIONS, steps=14))
    with run.log.open("a") as log:
        log.write('{"step": 12, "lo')
    run, loss = start(tmp_path, options=replace(OPTIONS, steps=14))
    assert len(list(run.steps(loss))) == 2
    assert len(whole) == 12
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [12, 14]


def test_the_log_says_which_steps_overflowed(tmp_path):
    options = replace(OPTIONS, precision="float16")
    run, loss = start(tmp_path, options=options)
    run.training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    skipped = sum(step.skipped for step in run.steps(loss))
    assert skipped
    assert rows(tmp_path)[-1]["skipped"] == skipped


# --- a full disk


def test_a_full_disk_keeps_the_state_and_says_so(tmp_path, capfd):
    """A limit on the size of files makes real writes fail: the state's, then the log's."""
    resource = pytest.importorskip("resource")
    losses(tmp_path)
    state = (tmp_path / "state.safetensors").read_bytes()
    log = (tmp_path / "log.jsonl").read_bytes()
    more = replace(OPTIONS, steps=20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, name in ((len(state) - 100, "state.safetensors"), (len(log) + 20, "log.jsonl")):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(DarkroomError) as caught:
                losses(tmp_path, options=more)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        capfd.readouterr()
        assert report(caught.value, Answer()) == 1
        said = capfd.readouterr().err
        assert said.count("\n") == 1
        assert f"{tmp_path / name}: no room for" in said
        assert "free some space and give the same command again" in said
        assert (tmp_path / "state.safetensors").read_bytes() == state
        assert not list(tmp_path.glob(".*.part"))
        (tmp_path / "log.jsonl").write_bytes(log)
    assert len(losses(tmp_path, options=more)) == 8


def test_the_first_save_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import errno

    def fail(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("darkroom.atomic.os.fsync", fail)
    run, loss = start(tmp_path)
    with pytest.raises(DarkroomError, match="No space left on device.*nothing was saved"):
        list(run.steps(loss))
    assert {path.name for path in tmp_path.iterdir()} <= {"log.jsonl", "tensorboard"}


# --- trackers


def test_tensorboard_gets_what_the_log_gets(tmp_path, monkeypatch):
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def close(self):
            told.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    losses(tmp_path)
    assert told[0] == (str(tmp_path / "tensorboard"), 1)
    assert told[-1] == "closed"
    row = next(row for row in rows(tmp_path) if "loss" in row)
    assert ("loss", row["loss"], 12) in told


@pytest.mark.parametrize("where", ["open", "add"])
def test_a_tracker_that_fails_stops_nothing(tmp_path, monkeypatch, where):
    class Writer:
        def __init__(self, folder, purge_step):
            if where == "open":
                raise RuntimeError("no")

        def add_scalar(self, name, value, step):
            raise OSError("disk")

        def close(self):
            pass

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert len(losses(tmp_path)) == 12


# --- reports


def test_a_report_stands_alone_and_escapes_everything(tmp_path):
    bad = "<script>alert('x')</script>"
    run, loss = start(tmp_path)
    run.report.title = bad
    for _ in run.steps(loss):
        if run.due(4):
            run.note(**{bad: 1.0, "validation_loss": 0.5, "accuracy": 0.25})
    run.picture("samples", Image.new("RGB", (8, 8)), bad)
    run.table(bad, [bad, "b"], [[bad, 0.123456789], ["x", 1]])
    run.text(bad)
    run.finish(model=run.training.model)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "0.1235" in page
    assert "mean loss" in page
    assert page.count("<svg") == 3  # losses, accuracy, and the one with the bad name
    assert (tmp_path / "samples.png").is_file()


def test_a_report_counts_the_time_of_every_session():
    from darkroom.recipes.report import cards

    start = {"event": "start", "step": 0}
    page = cards(
        [start, {"step": 20, "seconds": 30, "loss": 2.0}, {"step": 40, "seconds": 65, "loss": 1.0},
         start, {"step": 60, "seconds": 100, "mean_loss": 0.75}]
    )  # fmt: skip
    assert "2 min 45 s" in page
    assert ">60<" in page
    assert ">0.75<" in page
    assert cards([]) == ""


def test_a_second_training_in_a_folder_is_refused(tmp_path):
    run, loss = start(tmp_path)
    steps = run.steps(loss)
    next(steps)
    with pytest.raises(DarkroomError, match="another training is at work in this folder"):
        start(tmp_path)
    steps.close()
    assert len(losses(tmp_path)) == OPTIONS.steps - 1
    assert losses(tmp_path) == []  # finished, and free again
    start(tmp_path)
