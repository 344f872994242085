"""Every way to end has its exit code and its one line."""

import errno
import json
import os
import subprocess
import sys

import pytest
import torch
import typer
from app_commands import command

from darkroom import errors
from darkroom.app.outcome import Answer, exit_code, one_line, report, usage


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DarkroomError("x"), 1),
        (errors.NonFiniteError("x"), 1),
        (usage("x"), 2),
        (typer.BadParameter("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.PromptError("x"), 2),
        (ValueError("x"), 2),
        (errors.CheckpointError("x"), 3),
        (errors.UnsafeFileError("x"), 3),
        (errors.ModelNotFoundError("x"), 3),
        (errors.ModelMismatchError("x"), 3),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), 3),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), 1),
        (errors.NotEnoughMemoryError("x"), 4),
        (MemoryError(), 4),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 4),
        (errors.CancelledError("x"), 5),
        (KeyboardInterrupt(), 130),
        (RuntimeError("a bug"), 1),
        (KeyError("a bug"), 1),
    ],
    ids=repr,
)
def test_exit_codes_and_lines(error, code, capsys, monkeypatch):
    monkeypatch.delenv("DARKROOM_DEBUG", raising=False)
    answer = Answer()
    assert report(error, answer) == code == exit_code(error)
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("error: ")
    assert written.err.count("\n") == 1
    assert answer.fields == {"error": one_line(error), "exit_code": code}


def test_torch_on_a_cpu_says_out_of_memory_its_own_way():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert exit_code(caught.value) == 4


def test_messages_of_many_lines_become_one():
    assert one_line(errors.DarkroomError("a\n  b\t c")) == "a b c"


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("DARKROOM_DEBUG", "1")
    try:
        raise errors.CheckpointError("broken")
    except errors.CheckpointError as error:
        report(error, Answer())
    assert "Traceback" in capsys.readouterr().err


def test_the_object_is_one_line_of_json(capsys):
    Answer(wanted=True, fields={"a": "ü\n", "b": [1, None]}).print()
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": "ü\n", "b": [1, None]}
    Answer(wanted=False, fields={"a": 1}).print()
    assert capsys.readouterr().out == ""


USAGE = [
    (["generat"], "generate"),
    (["generate", "a", "--step", "4"], "--steps"),
    (["generate", "a", "b"], "b"),
    (["generate", "a", "--sampler", "eulr"], "euler"),
    (["generate", "a", "--size", "500x512"], "504"),
    (["generate", "a", "--strength", "0.5"], "--image"),
    (["generate", "a", "--image", "x.png", "--strength", "2"], "at most 1"),
    (["generate", "a", "--negative", "b", "--guidance", "1"], "--negative"),
    (["generate", "a", "--prompts", "p.txt"], "not both"),
    (["generate"], "PROMPT"),
    (["generate", "a", "--count", "0"], "--count"),
    (["generate", "a", "--count", "2", "--out", "-"], "one picture"),
    (["generate", "a", "--json", "--out", "-"], "stdout"),
    (["generate", "a", "--out", "a.gif"], ".png, .jpg"),
    (["models", "ad"], "add"),
    (["models", "add"], "path"),
    (["inspect"], "see `darkroom inspect --help`"),
    (["doctor", "now"], "now"),
]


@pytest.mark.parametrize(("line", "said"), USAGE, ids=lambda value: str(value)[:40])
def test_usage_errors(darkroom, line, said):
    ended = darkroom(*line)
    assert ended.code == 2
    assert said in ended.error
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["generate", "a", "--image", "foto.jpg"], "foto.jpg"),
        (["generate", "--from", "gone.png"], "gone.png"),
        (["generate", "--prompts", "gone.txt"], "gone.txt"),
        (["generate", "a", "--model", "no-such-model"], "no-such-model"),
        (["generate", "a", "--model", "./gone.safetensors"], "gone.safetensors"),
        (["inspect", "gone.safetensors"], "gone.safetensors"),
        (["models", "add", "gone.safetensors"], "gone.safetensors"),
        (["models", "remove", "nothing"], "nothing"),
        (["models", "verify", "nothing"], "nothing"),
        (["train", "gone.toml"], "gone.toml"),
        (["bench", "--model", "no-such-model"], "no-such-model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_missing_files_and_models(darkroom, line, said):
    ended = darkroom(*line, "--json")
    assert ended.code == 3
    assert said in ended.error
    assert ended.answer["exit_code"] == 3
    assert said in ended.answer["error"]


def test_bad_values_are_found_before_torch_is_imported():
    code = (
        "import sys; from darkroom.app.cli import run\n"
        "assert run(['generate', 'a', '--model', 'no-such-model']) == 3\n"
        "assert run(['generate', 'a', '--image', 'no.png']) == 3\n"
        "assert run(['generate', 'a', '--sampler', 'x']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_nobody_is_told_of_a_broken_pipe():
    """``darkroom --help | true``: the reader closes before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("--version"), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b""
