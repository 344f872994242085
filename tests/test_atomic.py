"""What killed writers leave is removed by the next; what lives is not; full disks name the file."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from darkroom.atomic import Held, atomic_write, on_disk, remove_unfinished, sweep, unfinished

KILLED = """
import os, signal, sys
from pathlib import Path
from darkroom.atomic import atomic_write, unfinished
here = Path(sys.argv[1])
with atomic_write(here / "a.bin") as file, unfinished(here, ".model.", directory=True) as folder:
    (folder / "half").write_bytes(b"x")
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()
"""


def writer(folder, what: str) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), what],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "ready\n"
    return child


def test_what_a_killed_writer_left_goes_and_what_lives_stays(tmp_path):
    with writer(tmp_path, "kill") as killed:
        assert killed.wait(600) == -signal.SIGKILL
    dead = {path.name for path in tmp_path.iterdir()}
    assert len(dead) == 2
    living = writer(tmp_path, "wait")
    lives = {path.name for path in tmp_path.iterdir()}
    assert len(lives) == 3, "the same file: what was left of it is gone; another name waits"
    assert set(remove_unfinished(tmp_path)) == dead & lives
    assert {path.name for path in tmp_path.iterdir()} == lives - dead
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"whole")
    living.communicate("\n", timeout=600)
    assert living.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]


def test_an_error_leaves_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    with atomic_write(tmp_path / "b"):
        pass
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "a").stat().st_mode


def test_only_temporary_names_are_swept(tmp_path):
    for name in (".a.x.part", "a.part", ".a", ".b.x.part"):
        (tmp_path / name).touch()
    assert sweep(tmp_path, ".a.") == [".a.x.part"]
    assert sweep(tmp_path / "nowhere", ".a.") == []
    with unfinished(tmp_path, ".a.") as path:
        assert sweep(tmp_path, ".a.") == []
        assert path.exists()


def test_a_folder_is_held_by_one(tmp_path):
    held = Held(tmp_path)
    with pytest.raises(BlockingIOError, match="another process is at work"):
        Held(tmp_path)
    held.release()
    held.release()
    Held(tmp_path).release()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_names_the_file(tmp_path, number):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "a.bin"):
        raise OSError(number, os.strerror(number))
    assert caught.value.filename == str(tmp_path / "a.bin")
    with pytest.raises(OSError) as caught, on_disk(tmp_path):
        raise OSError(errno.ECONNRESET, "no disk")
    assert caught.value.filename is None
