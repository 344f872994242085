"""Help, version and completion: quick, because torch stays out."""

import os
import re
import resource
import subprocess
import sys

import pytest
import typer
from app_commands import command, environment

from darkroom.app.cli import app
from darkroom.app.help import MAIN

VERBS = (
    [],
    ["generate"],
    ["grid"],
    ["inspect"],
    ["doctor"],
    ["bench"],
    ["train"],
    ["embed"],
    ["search"],
    ["segment"],
    ["models"],
    ["models", "list"],
    ["models", "add"],
    ["models", "pull"],
    ["models", "remove"],
    ["models", "verify"],
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_says_examples_and_exit_codes(darkroom, verb):
    ended = darkroom(*verb, "--help")
    assert ended.code == 0
    assert "130 Ctrl-C" in " ".join(ended.out.split())
    assert "xample" in ended.out or "Start with" in ended.out
    assert "darkroom" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_that_answers_takes_json(darkroom, verb):
    if verb not in ([], ["models"]):
        assert "--json" in darkroom(*verb, "--help").out


MANY = ("generate", "edit", "control", "grid", "segment", "classify", "search")


@pytest.mark.parametrize("verb", [*VERBS, *([verb] for verb in MANY)], ids=" ".join)
def test_help_fits_a_screen_of_80_columns(darkroom, verb):
    lines = darkroom(*verb, "--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 23  # and a prompt below


@pytest.mark.parametrize("verb", MANY)
def test_help_all_shows_every_option(darkroom, verb):
    brief, whole = darkroom(verb, "--help"), darkroom(verb, "--help-all")
    assert (brief.code, whole.code) == (0, 0)
    assert f"darkroom {verb} --help-all" in brief.out
    options = set(re.findall(r"--[a-z][a-z-]+", whole.out))
    assert set(re.findall(r"^  (--[a-z][a-z-]+)", brief.out, re.MULTILINE)) < options
    assert "--device" in options and "--device" not in brief.out


def test_every_name_in_the_short_pages_is_an_option():
    command = typer.main.get_command(app)
    for verb, names in MAIN.items():
        known = {param.name for param in command.commands[verb].params}
        assert set(names.split()) <= known, verb


def test_help_imports_neither_torch_nor_anything_heavy():
    code = (
        "import sys; from darkroom.app.cli import run\n"
        f"for verb in {VERBS!r}: assert run([*verb, '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'huggingface_hub', 'tokenizers', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("verb", [[], ["generate"], ["models", "pull"]], ids=" ".join)
def test_help_takes_half_a_second_at_most(verb):
    """CPU time, so that a busy machine does not matter; the best of three."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command(*verb, "--help"), capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.5


def test_no_arguments_show_the_help_and_are_a_usage_error(darkroom):
    ended = darkroom()
    assert ended.code == 2
    assert "generate" in ended.out + ended.err


def test_version(darkroom):
    assert darkroom("--version").out.startswith("darkroom 0.")


def complete(*words: str) -> list[str]:
    """What bash would offer for the last word."""
    asked = environment(
        _DARKROOM_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(("darkroom", *words)),
        COMP_CWORD=str(len(words)),
    )
    done = subprocess.run(command(), capture_output=True, text=True, env=asked, check=True)
    return done.stdout.split()


def test_completion_of_names():
    assert complete("gen") == ["generate"]
    assert complete("generate", "--sampler", "dpmpp_2m") == ["dpmpp_2m", "dpmpp_2m_sde"]
    assert complete("generate", "--spacing", "l") == ["leading", "linspace"]
    assert "--strength" in complete("generate", "--s")


def test_completion_of_models(home, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "dreamy.safetensors").write_bytes(b"x")
    os.environ["DARKROOM_MODELS"] = str(folder)
    try:
        assert complete("generate", "--model", "dre") == ["dreamy"]
    finally:
        del os.environ["DARKROOM_MODELS"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_show_completion(shell):
    asked = environment(SHELL=f"/bin/{shell}", PATH=os.environ["PATH"])
    done = subprocess.run(command("--show-completion"), capture_output=True, text=True, env=asked)
    assert done.returncode == 0, done.stderr
    assert "_DARKROOM_COMPLETE" in done.stdout
