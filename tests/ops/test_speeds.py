"""Which row is used, and what becomes of the figures: by a clock that the tests turn."""

import json
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from darkroom.ops import speeds
from darkroom.ops.speeds import MARGIN, Speeds, cache_folder, measurable, rounded, winner


class Clock:
    """Each row takes the seconds that it is said to take."""

    def __init__(self) -> None:
        self.now, self.runs = 0.0, 0

    def __call__(self) -> float:
        return self.now

    def row(self, seconds: float):
        def run() -> None:
            self.now += seconds
            self.runs += 1

        return run


def figures(clock: Clock, folder: Path | None = None) -> Speeds:
    return Speeds(folder, clock, lambda: 0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"torch": 1.0, "onednn": 1.0}, "torch"),
        ({"torch": 1.0, "onednn": 0.93}, "torch"),  # faster, within the margin
        ({"torch": 1.0, "onednn": 0.89}, "onednn"),
        ({"torch": 1.0, "onednn": 2.2}, "torch"),
        ({"torch": 1.0, "plain": 0.8, "onednn": 0.7}, "onednn"),
        ({"torch": 1.0, "plain": 0.99, "onednn": 1.1}, "torch"),
    ],
)
def test_the_plain_row_wins_unless_another_is_faster_beyond_the_margin(seconds, expected) -> None:
    for shape in ((64, 32, 32), (77, 768), (1, 1, 1, 1)):
        for scale in (1e-4, 1.0):
            clock = Clock()
            found = figures(clock)
            rows = {name: clock.row(scale * s) for name, s in seconds.items()}
            assert found.quickest("linear", shape, rows) == expected
            runs = clock.runs
            assert found.quickest("linear", shape, rows) == expected
            assert clock.runs == runs  # it is known now


def test_the_margin_itself() -> None:
    assert winner({"torch": MARGIN + 1e-9, "onednn": 1.0}) == "onednn"
    assert winner({"torch": MARGIN, "onednn": 1.0}) == "torch"


def test_the_least_of_interleaved_rounds_counts() -> None:
    """One row is disturbed now and then, and is the faster one nevertheless."""
    clock, turn = Clock(), iter(range(1000))

    def disturbed() -> None:
        clock.now += 0.5e-3 if next(turn) % 3 == 0 else 9e-3

    rows = {"torch": clock.row(1e-3), "onednn": disturbed}
    assert figures(clock).quickest("linear", (1,), rows) == "onednn"


def test_slow_operations_are_measured_less_often() -> None:
    slow, quick = Clock(), Clock()
    figures(slow).quickest("linear", (1,), {"a": slow.row(1.0), "b": slow.row(1.0)})
    figures(quick).quickest("linear", (1,), {"a": quick.row(1e-4), "b": quick.row(1e-4)})
    assert slow.runs == 2 * (1 + 3)
    assert quick.runs == 2 * (1 + speeds.ROUNDS)


def test_disturbed_runs_do_not_count(tmp_path) -> None:
    """Every third run is interrupted, and takes ten times as long."""
    clock, runs = Clock(), iter(range(1000))
    interruptions = [0]

    def row(seconds: float):
        def run() -> None:
            disturbed = next(runs) % 3 == 0
            interruptions[0] += disturbed
            clock.now += seconds * (10 if disturbed else 1)

        return run

    rows = {"torch": row(1e-3), "onednn": row(0.8e-3)}
    found = Speeds(tmp_path, clock, lambda: interruptions[0])
    assert found.quickest("linear", (1,), rows) == "onednn"
    assert found.known() == {"linear 1": pytest.approx({"torch": 1e-3, "onednn": 0.8e-3})}


@pytest.mark.parametrize(("seconds", "row"), [(0.8, "torch"), (0.5, "onednn")])
def test_in_doubt_the_plain_row_and_again_next_time(tmp_path, seconds: float, row: str) -> None:
    clock, count = Clock(), iter(range(10**6))
    found = Speeds(tmp_path, clock, lambda: next(count))  # always interrupted
    rows = {"torch": clock.row(1e-3), "onednn": clock.row(seconds * 1e-3)}
    assert found.quickest("linear", (1,), rows) == row
    assert clock.runs == 2 * (1 + 3 * speeds.ROUNDS)
    assert found.quickest("linear", (1,), rows) == row
    assert clock.runs == 2 * (1 + 3 * speeds.ROUNDS)  # not again in this process
    assert not list(tmp_path.iterdir())


def test_one_thread_is_measured_by_its_own_time(monkeypatch) -> None:
    """While another program runs, that clock stands still."""

    class Named:
        def __getattr__(self, name: str):
            return lambda: name

    monkeypatch.setattr(speeds, "time", Named())
    monkeypatch.setattr("darkroom.machine.interruptions", lambda: 3)
    for threads, clock, interruptions in ((1, "thread", 0), (2, "perf", 3)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        found = Speeds()
        assert str(found.clock()).startswith(clock)
        assert found.interruptions() == interruptions


def test_a_process_measures_for_some_seconds_at_most() -> None:
    clock = Clock()
    found = figures(clock)
    rows = {"torch": clock.row(1.0), "onednn": clock.row(0.5)}
    chosen = [found.quickest("linear", (size,), rows) for size in range(1, 9)]
    assert chosen == ["onednn"] * 2 + ["torch"] * 6  # six seconds each
    found.forget()
    assert found.quickest("linear", (9,), rows) == "onednn"


def test_a_row_that_cannot_run_here_is_not_used() -> None:
    clock = Clock()

    def fails() -> None:
        raise RuntimeError("could not create a primitive")

    rows = {"torch": clock.row(1.0), "onednn": fails}
    assert figures(clock).quickest("linear", (1,), rows) == "torch"


def choose(folder: Path, seconds: float = 0.5) -> tuple[str, int]:
    """What is chosen beside a plain row of one second, and how often something ran."""
    clock = Clock()
    rows = {"torch": clock.row(1.0), "onednn": clock.row(seconds)}
    return figures(clock, folder).quickest("linear", (64, 32), rows), clock.runs


def test_figures_are_kept(tmp_path) -> None:
    assert choose(tmp_path) == ("onednn", 8)
    assert choose(tmp_path, 2.0) == ("onednn", 0)  # from the file
    assert Speeds(tmp_path).known() == {"linear 64x32": {"torch": 1.0, "onednn": 0.5}}
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]  # nothing unfinished
    found = Speeds(tmp_path)
    found.forget()
    assert found.known() == {}
    assert choose(tmp_path, 2.0) == ("torch", 8)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 5000,
        b'{"conditions": 1, "seconds": {}}',
    ],
)
def test_a_damaged_file_is_measured_again(tmp_path, damage: bytes) -> None:
    choose(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert choose(tmp_path, 2.0) == ("torch", 8)
    assert choose(tmp_path) == ("torch", 0)


@pytest.mark.parametrize(
    "rows", [{}, None, {"torch": 1.0}, {"torch": "1", "onednn": 0.5}, {"torch": -1.0, "onednn": 1}]
)
def test_a_damaged_figure_is_measured_again(tmp_path, rows) -> None:
    choose(tmp_path)
    (file,) = tmp_path.iterdir()
    held = json.loads(file.read_text())
    held["seconds"]["linear 64x32"] = rows
    file.write_text(json.dumps(held))
    assert choose(tmp_path, 2.0) == ("torch", 8)


def test_a_change_of_the_machine_is_measured_again(tmp_path, monkeypatch) -> None:
    choose(tmp_path)
    changes = (
        lambda m: m.setattr("torch.__version__", "9.9"),
        lambda m: m.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT"),
        lambda m: m.setattr("darkroom.machine.processor", lambda: "another"),
        lambda m: m.setenv("ONEDNN_MAX_CPU_ISA", "SSE41"),
        lambda m: m.setattr("torch.get_num_threads", lambda: 31),
        lambda m: m.setattr(speeds, "REVISION", 0),
    )
    for change in changes:
        with monkeypatch.context() as context:
            change(context)
            assert choose(tmp_path, 2.0) == ("torch", 8)
    assert choose(tmp_path) == ("onednn", 0)
    assert len(list(tmp_path.iterdir())) == 1 + len(changes)


def test_another_number_of_threads_has_figures_of_its_own(monkeypatch) -> None:
    clock = Clock()
    found = figures(clock)
    rows = {"torch": clock.row(1.0), "onednn": clock.row(0.5)}
    assert found.quickest("linear", (1,), rows) == "onednn"
    monkeypatch.setattr("torch.get_num_threads", lambda: 31)
    rows = {"torch": clock.row(1.0), "onednn": clock.row(1.0)}
    assert found.quickest("linear", (1,), rows) == "torch"


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert choose(tmp_path / "file" / "below") == ("onednn", 8)


def test_threads_measure_once() -> None:
    clock = Clock()
    found, rows = figures(clock), {"torch": clock.row(1.0), "onednn": clock.row(0.5)}
    chosen: list[str] = []
    threads = [
        threading.Thread(target=lambda: chosen.append(found.quickest("linear", (1,), rows)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chosen == ["onednn"] * 8
    assert clock.runs == 8


def test_where_figures_are_kept(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "speed"
    monkeypatch.delenv("DARKROOM_HOME")
    assert cache_folder().parts[-1] == "speed"


def test_shapes_that_share_a_figure() -> None:
    assert [rounded(n, 64) for n in (1, 2, 3, 63, 64, 65, 9999)] == [1, 2, 2, 32, 64, 64, 64]


def test_what_goes_the_plain_way() -> None:
    x = torch.ones(2)
    assert measurable(x, None, torch.nn.Parameter(x))
    assert not measurable(x, x.half())
    assert not measurable(x, torch.ones(2, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not measurable(x)
    with FlopCounterMode(display=False):
        assert not measurable(x)
    seen: list[bool] = []
    torch.func.vmap(lambda y: (seen.append(measurable(y)), y)[1])(x)
    torch.func.jvp(lambda y: (seen.append(measurable(y)), y)[1], (x,), (x,))
    assert seen == [False, False]
