"""Progress: ten plain lines where nobody watches, a live bar on a terminal."""

import os
import pty
import re
import select
import subprocess
import sys

import pytest
from PIL import Image

from darkroom.app.progress import Progress
from darkroom.app.terminal import bytes_text, seconds_text, table


def test_one_line_per_tenth(capsys):
    with Progress("drawing", 137) as bar:
        for _ in range(137):
            bar.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    said = [int(re.search(r"(\d+) %", line)[1]) for line in lines]
    assert said == [*range(10, 101, 10)]
    assert lines[-1].startswith("drawing: 100 % (137 of 137 steps), ")
    assert "it/s" in lines[0]
    assert re.search(r"\d s left", lines[0])


def test_few_steps_make_few_lines(capsys):
    with Progress("drawing", 2) as bar:
        bar.advance()
        bar.advance(1, "picture 2")
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_bytes(capsys):
    with Progress("pulling", 4_000_000, "bytes") as bar:
        bar.advance(4_000_000)
    assert "4.0 MB of 4.0 MB" in capsys.readouterr().err


def test_the_rate_leaves_out_the_first_step(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("darkroom.app.progress.time.monotonic", lambda: clock[0])
    bar = Progress("x", 10)
    clock[0] += 30  # warming up
    bar.advance()
    for _ in range(3):
        clock[0] += 0.05
        bar.advance()
    assert bar.rate == pytest.approx(20)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (4.27e9, "4.3 GB")]
)
def test_bytes_for_people(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (3.21, "3.2 s"), (75, "1:15"), (4000, "1:06:40")]
)
def test_seconds_for_people(seconds, text):
    assert seconds_text(seconds) == text


def test_tables_are_tabs_where_nobody_watches(capsys):
    table(("A", "B"), [("1", "two words")])
    assert capsys.readouterr().out == "A\tB\n1\ttwo words\n"


LIVE = """
import time
from PIL import Image
from darkroom.app.progress import Progress
from darkroom.app.terminal import say
with Progress("drawing", 30, preview=True) as bar:
    for i in range(30):
        time.sleep(0.01)
        bar.advance(1, "picture 1")
        bar.picture(Image.new("RGB", (8, 8), "red"))
        if i == 15:
            bar.say("a line that stays")
"""


def on_a_terminal(code: str, **changes: str) -> str:
    """What a program writes to its terminal."""
    leader, follower = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", **changes}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, env=env
    )
    os.close(follower)
    written = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux says so when the other end closes
            break
        if not chunk:
            break
        written += chunk
    assert process.wait(10) == 0, written.decode()
    os.close(leader)
    return written.decode()


def test_a_bar_on_a_terminal():
    written = on_a_terminal(LIVE)
    assert "of 30 steps" in written
    assert "it/s" in written
    assert " left" in written
    assert "a line that stays" in written
    assert "▀" in written
    assert "\x1b[2K" in written  # redrawn in place


def test_no_color_is_respected():
    written = on_a_terminal(LIVE, NO_COLOR="1")
    assert "of 30 steps" in written
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|38;2|48;2)[;m]", written)


def test_a_dumb_terminal_gets_plain_lines():
    written = on_a_terminal(LIVE, TERM="dumb")
    assert "\x1b" not in written
    assert "drawing: 100 % (30 of 30 steps)" in written


def test_half_blocks_have_the_picture_s_colours():
    from rich.text import Text

    from darkroom.app.progress import half_blocks

    image = Image.new("RGB", (2, 2), (255, 0, 0))
    image.putpixel((0, 1), (0, 0, 255))
    text = half_blocks(image, 2, Text)
    assert text.plain == "▀▀"
    assert str(text.spans[0].style) == "rgb(255,0,0) on rgb(0,0,255)"
