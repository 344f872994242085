"""Malformed and hostile files end with one kind of error, in one line, soon, and nothing runs."""

import contextlib
import gc
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from hostile import KINDS, MARKER, Kind, cases

from bounded import guarded
from darkroom.errors import CheckpointError, UnsafeFileError
from darkroom.weights.files import read_header, read_object, read_tensors
from darkroom.weights.inspect import inspect

SECONDS, MEGABYTES = 60.0, 500  # of this process: a hang, and the bound that is promised
HEAVY = {  # which come to the readers' own limits: a second each, in the slow run
    "bomb_million_tensors", "st_50_thousand_tensors", "names_long_list_in_every_root", "bomb_marks",
    "names_shared_key_in_many_dicts", "bomb_sets", "modules_that_double", "bomb_deep_key",
}  # fmt: skip
RUNNING = (  # audit events that reading a file has no reason to raise
    "os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty os.startfile "
    "subprocess.Popen exec compile import pickle.find_class marshal.loads code.__new__ "
    "function.__new__ ctypes.dlopen socket.__new__ socket.connect urllib.Request "
    "webbrowser.open os.remove os.rename os.mkdir os.rmdir os.chmod os.symlink os.link "
    "shutil.rmtree os.putenv sys.addaudithook"
).split()


class Watch:
    """Notes what happens in this process while ``on``; an audit hook can never be taken away."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        writing = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa+")
        if event in RUNNING or writing:
            self.seen.append(f"{event} {str(args)[:100]}")


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()


def status(field: str) -> int:
    """Kilobytes, by Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def forget_peak() -> bool:
    """Start measuring the peak of resident memory anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def read_all(path: Path, verify: bool) -> None:
    for tensor in read_tensors(path, verify=verify).values():
        if tensor.numel() and tensor.dtype != torch.bool:
            tensor.reshape(-1)[0].item()


def check(
    folder: Path, watch: Watch, count: int, start: int = 0, kinds: list[Kind] = KINDS
) -> dict[str, tuple[float, float]]:
    """Read so many hostile files; the worst (seconds, megabytes) of each kind."""
    (folder / "warm.bin").write_bytes(b"no checkpoint")
    for warm in (read_header, read_object, inspect):  # lazy imports happen before the watch
        with pytest.raises(CheckpointError):
            warm(folder / "warm.bin")
    worst: dict[str, tuple[float, float]] = {}
    gc.collect()
    gc.freeze()  # so that the collection before each file is quick
    for case in cases(folder, count, start, kinds):
        gc.collect()
        measured = forget_peak()
        before = status("VmRSS")
        begin = time.process_time()
        watch.on = True
        error = None
        try:
            with guarded(SECONDS):
                read_all(case.path, case.kind.verify)
        except CheckpointError as caught:
            error = caught
        finally:
            watch.on = False
        seconds = time.process_time() - begin
        megabytes = (status("VmHWM") - before) / 1024 if measured else 0.0
        where = f"{case.path.name}: {error}"
        assert not watch.seen, (where, watch.seen)
        assert (error is not None) or not case.kind.refused, where
        if error is not None:
            message = str(error)
            assert message.startswith(case.path.name[:20]), where
            assert message.isprintable(), where
            assert len(message) <= 200, where
            assert "; " in message, where
            assert isinstance(error, UnsafeFileError) or not case.kind.unsafe, where
            assert error.exit_code == 3
            with contextlib.suppress(CheckpointError):  # damaged data do not show in a header
                inspect(case.path)
        elif case.path.suffix != ".json":
            inspect(case.path)
            read_object(case.path)
        assert megabytes <= MEGABYTES, where
        before_worst = worst.get(case.kind.name, (0.0, 0.0))
        worst[case.kind.name] = max(seconds, before_worst[0]), max(megabytes, before_worst[1])
    assert not (folder / MARKER).exists()
    return worst


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_one_file_of_each_kind(tmp_path, watch):
    assert len(KINDS) >= 60
    kinds = [kind for kind in KINDS if kind.name not in HEAVY]
    assert len(kinds) == len(KINDS) - len(HEAVY)
    worst = check(tmp_path, watch, len(kinds), kinds=kinds)
    assert len(worst) == len(kinds)


@pytest.mark.slow
def test_two_thousand_files(tmp_path, watch):
    worst = check(tmp_path, watch, 2_100)
    slowest = max(worst, key=lambda name: worst[name][0])
    largest = max(worst, key=lambda name: worst[name][1])
    print(f"{len(worst)} kinds, 2,100 files")  # noqa: T201
    print(f"slowest {slowest}: {worst[slowest][0]:.2f} s")  # noqa: T201
    print(f"largest {largest}: {worst[largest][1]:.0f} MB")  # noqa: T201


def test_the_watch_sees_what_runs(tmp_path, watch):
    """The payloads do run in Python's own reader, and this test would notice."""
    import pickle

    path = tmp_path / "attack.pkl"
    path.write_bytes(f"cos\nsystem\n(S'touch {MARKER}'\ntR.".encode())
    watch.on = True
    try:
        pickle.loads(path.read_bytes())
    finally:
        watch.on = False
        seen, watch.seen = watch.seen, []
    assert os.path.exists(tmp_path / MARKER)
    assert any(event.startswith("os.system") for event in seen)
    with pytest.raises(UnsafeFileError, match="os.system"):
        read_tensors(path)
