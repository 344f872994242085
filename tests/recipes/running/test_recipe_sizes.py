"""Recipes with odd values end with one line, before anything is built or read."""

import pytest

from darkroom import recipes
from darkroom.errors import ConfigError, ConfigFileError, NotEnoughMemoryError
from darkroom.generation import memory

RECIPE = """
recipe = "mnist"
data = "nowhere"
out = "run"
[model]
channels = [8, 16]
attention = [false, true]
groups = 4
[fit]
steps = 2
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path / "r.toml"


def test_reads(path):
    assert recipes.read(path)[1].fit.steps == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("model.groups=0", "model.groups: expected a whole number from 1 to"),
        ("model.groups=3", "must be divisible by num_groups"),
        ("model.blocks=1000000", "more than 20,000 layers"),
        ("model.blocks=1000000000", "model.blocks: expected a whole number from 0"),
        ("model.channels=[]", "model:"),
        ("model.channels=[4, 8, 16]", "one value per level"),
        ("model.channels=[1000000, 1000000]", "more than 20,000 layers or 1e"),
        ("model.eps=nan", "NaN is not a number"),
        ("fit.lr=nan", "NaN is not a number"),
        ("fit.lr=inf", "fit.lr: expected a number from 0"),
        ("fit.lr=1" + "0" * 400, "more than 38 digits"),
        ("fit.lr=-1", "fit.lr: expected a number from 0"),
        ("fit.batch=0", "fit.batch: expected a whole number from 1"),
        ("fit.steps=" + "[" * 70 + "]" * 70, "nested more than 64 deep"),
        ("fit.steps=" + "[" * 5000 + "]" * 5000, "nested more than 64 deep"),
        ("save_every=0", "save_every: expected a whole number from 1"),
        ("recipe=x", "recipe is 'x'"),
        (f"{'a.' * 500}b=1", "unknown key"),
    ],
)
def test_values(path, value, message):
    with pytest.raises(ConfigError) as caught:
        recipes.read(path, assignments=[value])
    said = str(caught.value)
    assert message in said
    assert "\n" not in said
    assert caught.value.exit_code == (2 if "unknown key" in message else 3)
    if message in ("NaN is not a number",) or "a.a" in value:
        return
    name, _, text = value.rpartition("=")
    table, _, key = name.rpartition(".")
    lines = [line for line in RECIPE.splitlines() if not line.startswith(f"{key} =")]
    place = lines.index(f"[{table}]") + 1 if table else 0
    lines.insert(place, f"{key} = {text if text != 'x' else repr(text)}")
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigFileError) as caught:  # it stands in the file
        recipes.read(path)
    assert caught.value.exit_code == 3


def test_more_than_the_memory_holds(path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 100_000)
    with pytest.raises(NotEnoughMemoryError, match="model: training it needs more than"):
        recipes.read(path)


def test_what_a_recipe_cannot_do_is_one_line(path, monkeypatch):
    recipe, _ = recipes.read(path)

    def train(config):
        raise TypeError("odd\nvalues")
        yield

    monkeypatch.setattr(recipe, "train", train)
    for call in (lambda: list(recipes.run(path)), lambda: recipes.plan(path)):
        with pytest.raises(ConfigFileError, match=r"cannot be used \(TypeError: odd values\)"):
            call()
