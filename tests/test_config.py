"""Strict conversion between dataclasses and plain data, TOML and JSON."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.config import (
    amended,
    from_dict,
    from_json,
    from_toml,
    to_dict,
    to_json,
    to_toml,
)
from darkroom.errors import ConfigError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")


@dataclass(frozen=True, kw_only=True)
class Train:
    name: str
    steps: int = 10
    channels: tuple[int, ...] = (32, 64)
    seed: int | None = None
    folder: Path | None = None
    mode: Literal["fast", "exact"] = "exact"
    colour: Colour = Colour.RED
    ema: bool = True
    size: int | tuple[int, int] = 64
    optimizer: Optimizer = field(default_factory=Optimizer)
    extra: Mapping[str, float] = field(default_factory=dict)
    stages: tuple[Optimizer, ...] = ()
    anything: Any = None


FULL = Train(
    name='quo"te\n\x7f ü',
    channels=(1, 2, 3),
    seed=7,
    folder=Path("a/b"),
    mode="fast",
    colour=Colour.BLUE,
    ema=False,
    size=(32, 48),
    optimizer=Optimizer(learning_rate=0.5, betas=(0.1, 0.2)),
    extra={"a.b": 1.0, "c": float("inf")},
    stages=(Optimizer(), Optimizer(learning_rate=2.0)),
)


def test_there_and_back(tmp_path):
    assert from_dict(Train, to_dict(FULL)) == FULL
    to_json(FULL, tmp_path / "c.json")
    assert from_json(Train, tmp_path / "c.json") == FULL
    (tmp_path / "c.toml").write_text(to_toml(FULL), encoding="utf-8")
    assert from_toml(Train, tmp_path / "c.toml") == FULL


@settings(max_examples=100, deadline=None)
@given(
    st.text(), st.integers(-(2**62), 2**62), st.lists(st.integers(0, 9)),
    st.none() | st.integers(0, 9), st.dictionaries(st.text(), st.floats(allow_nan=False)),
)  # fmt: skip
def test_toml_says_everything(name, steps, channels, seed, extra):
    import tomllib

    config = Train(name=name, steps=steps, channels=tuple(channels), seed=seed, extra=extra)
    assert from_dict(Train, tomllib.loads(to_toml(config))) == config


def test_defaults_and_widening():
    config = from_dict(Train, {"name": "x", "optimizer": {"learning_rate": 1}})
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.steps == 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"nam": "x"}, "f.toml: unknown key 'nam' for Train; did you mean name?"),
        ({"name": "x", "zzzzz": 1}, "f.toml: unknown key 'zzzzz' for Train; valid: name, steps"),
        ({}, "f.toml: Train needs name"),
        ({"name": 3}, "f.toml: name: expected a string, found 3"),
        ({"name": "x", "steps": "3"}, "steps: expected a whole number, found '3'"),
        ({"name": "x", "steps": 3.0}, "steps: expected a whole number, found 3.0"),
        ({"name": "x", "steps": True}, "steps: expected a whole number, found true"),
        ({"name": "x", "ema": 1}, "ema: expected true or false, found 1"),
        ({"name": "x", "channels": [1, "2"]}, "channels[1]: expected a whole number, found '2'"),
        ({"name": "x", "channels": "12"}, "channels: expected a list, found '12'"),
        ({"name": "x", "mode": "slow"}, "mode: expected one of 'fast', 'exact', found 'slow'"),
        ({"name": "x", "colour": "green"}, "colour: expected one of 'red', 'blue', found 'green'"),
        ({"name": "x", "size": "big"}, "size: expected a whole number or "),
        ({"name": "x", "seed": "7"}, "seed: expected a whole number, found '7'"),
        ({"name": "x", "optimizer": 3}, "optimizer: expected a table of Optimizer, found 3"),
        (
            {"name": "x", "optimizer": {"learning_rat": 1}},
            "optimizer: unknown key 'learning_rat' for Optimizer; did you mean learning_rate?",
        ),
        ({"name": "x", "optimizer": {"betas": [1]}}, "optimizer.betas: expected 2 values, found 1"),
        (
            {"name": "x", "optimizer": {"learning_rate": 0}},
            "optimizer: learning_rate must be above",
        ),
        ({"name": "x", "stages": [{}, {"beta": 1}]}, "stages[1]: unknown key 'beta'"),
        ({"name": "x", "extra": {"a": "b"}}, "extra.a: expected a number, found 'b'"),
    ],
)
def test_refuses(data, message):
    with pytest.raises(ConfigError) as caught:
        from_dict(Train, data, "f.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides(tmp_path):
    (tmp_path / "c.toml").write_text('name = "x"\n[optimizer]\nlearning_rate = 1.0\n')
    overrides = ["optimizer.learning_rate=2e-3", "name=plain text", "channels=[8, 9]", "steps = 4"]
    config = from_toml(Train, tmp_path / "c.toml", overrides)
    assert config.optimizer.learning_rate == 2e-3
    assert (config.name, config.channels, config.steps) == ("plain text", (8, 9), 4)
    data = {"a": {"b": 1}}
    assert amended(data, ["a.b=2"]) == {"a": {"b": 2}}
    assert data == {"a": {"b": 1}}, "the original is left alone"
    for bad in ("steps", "=3", "name.sub=3"):
        with pytest.raises(ConfigError):
            from_toml(Train, tmp_path / "c.toml", [bad])


def test_bad_files(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        from_toml(Train, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        from_toml(Train, tmp_path / "bad.toml")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        from_json(Train, tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="JSON object"):
        from_json(Train, tmp_path / "list.json")


def test_none_that_toml_cannot_say():
    @dataclass(frozen=True)
    class Sampler:
        steps: int | None = 3

    with pytest.raises(ConfigError, match="steps is None"):
        to_toml(Sampler(None))


def test_mistakes_of_the_programmer():
    with pytest.raises(ValueError, match="dataclass"):
        to_dict(Train)
    with pytest.raises(ValueError, match="plain form"):
        to_dict(Train(name="x", anything=object()))

    @dataclass(frozen=True)
    class Odd:
        value: complex = 1j

    with pytest.raises(ValueError, match="cannot read fields"):
        from_dict(Odd, {"value": 1})
