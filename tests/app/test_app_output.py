"""Names of pictures; files appear whole and replace nothing."""

import errno
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.app.output import Output, output, slug, write_new
from darkroom.errors import CheckpointError


@given(st.text(max_size=300))
def test_a_slug_has_only_harmless_characters(text):
    assert re.fullmatch(r"[a-z0-9-]{0,60}", slug(text))
    assert not slug(text).startswith("-")
    assert not slug(text).endswith("-")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Red Apple!", "a-red-apple"),
        ("../../etc/passwd", "etc-passwd"),
        ("ünïcode café", "unicode-cafe"),
        ("日本", ""),
        ("$(touch x); `ls`", "touch-x-ls"),
        ("word " * 40, "word-word-word-word-word-word-word-word-word-word-word-word"),
    ],
)
def test_slugs(text, expected):
    assert slug(text) == expected


def test_pictures_are_numbered_and_nothing_is_replaced(tmp_path):
    target = Output(tmp_path / "new" / "folder")
    assert target.save(b"1", "a fox", 7).name == "00001-a-fox-7.png"
    assert target.save(b"2", "a fox", 7).name == "00002-a-fox-7.png"
    (tmp_path / "new" / "folder" / "00041-x.png").write_bytes(b"")
    assert target.save(b"3", "", 8).name == "00042-8.png"
    assert (tmp_path / "new" / "folder" / "00001-a-fox-7.png").read_bytes() == b"1"


def test_a_file_that_is_there_gets_a_neighbour(tmp_path):
    target = output(str(tmp_path / "fox.png"))
    names = [target.save(bytes([n]), "a fox", 7).name for n in range(3)]
    assert names == ["fox.png", "fox-2.png", "fox-3.png"]
    assert (tmp_path / "fox.png").read_bytes() == b"\0"


def test_out_is_a_folder_or_a_picture(tmp_path):
    assert output("pictures") == Output(folder=output("pictures").folder)
    assert output("a/fox.webp").file == "fox.webp"
    assert output("a/fox.JPG").suffix == ".jpg"
    (tmp_path / "odd.png").mkdir()
    assert output(str(tmp_path / "odd.png")).file == ""


def test_many_writers_never_meet(tmp_path):
    target = Output(tmp_path / "pictures")
    threads = [
        threading.Thread(target=lambda n=n: target.save(str(n).encode(), "x", 1)) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = sorted((tmp_path / "pictures").iterdir())
    assert {file.read_bytes() for file in files} == {str(n).encode() for n in range(16)}


def test_a_link_to_nowhere_counts_as_taken(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a.png", b"x")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError) as caught:
            write_new(tmp_path / "a.png", b"x" * 1000)
        assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == ["here"]


def test_permissions_are_the_usual_ones(tmp_path):
    before = os.umask(0o027)
    try:
        write_new(tmp_path / "a.png", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def closed(*arguments: str, redirect: str) -> subprocess.CompletedProcess:
    """The command in a shell that closes one of its streams."""
    words = shlex.join([sys.executable, "-m", "darkroom", *arguments])
    return subprocess.run(
        ["sh", "-c", f"{words} {redirect}"], capture_output=True, timeout=600, check=False
    )


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_closed_streams_are_no_traceback(tmp_path):
    done = closed("models", "list", redirect=">&-")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"Traceback" not in done.stderr
    done = closed("generate", "x", "--sampler", "none", redirect="2>&-")
    assert (done.returncode, done.stderr) == (2, b"")
    done = closed("generate", "-", "--out", str(tmp_path / "x"), redirect="<&-")
    assert done.returncode == 2
    assert b"nothing came on stdin" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file.txt/pictures", "is no folder, so"),
        ("x" * 300, "a name has at most 255 bytes"),
        ("pictures\0x", "a name has at most 255 bytes"),
    ],
)
def test_a_place_is_looked_at_before_anything_is_drawn(place, reason, tmp_path):
    (tmp_path / "file.txt").touch()
    with pytest.raises(CheckpointError, match=reason):
        output(str(tmp_path / place)).check()
    output(str(tmp_path / "new" / "deep" / "a.png")).check()
    assert {path.name for path in tmp_path.iterdir()} == {"file.txt", "here"}  # the working folder


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_stdout_is_one_line():
    done = closed("models", "list", "--json", redirect="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1


SLEEPER = """
import signal, sys, time
import darkroom.app.cli as cli
cli.PATIENCE = 0.2
def stubborn(arguments):
    print("ready", flush=True)
    while True:
        try:
            time.sleep(600)
        except Exception:  # as code that meets damaged files may do
            pass
cli.run = stubborn
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_sigterm_ends_what_holds_on_to_its_exception():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SLEEPER], **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        child.terminate()
        _, said = child.communicate(timeout=600)
    assert child.returncode in (5, -signal.SIGALRM)
    assert "Traceback" not in said
