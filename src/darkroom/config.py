"""Frozen dataclass <-> plain data <-> TOML and JSON. Strict: nothing unknown, nothing coerced.

A field may be bool, int, float, str, Path, Literal, Enum, ``X | None``, ``tuple[X, ...]``,
``tuple[X, Y]``, ``Mapping[str, X]``, ``Any`` or another dataclass. ``Annotated[int, Range(1, 9)]``
says what a number may be; without it, whole numbers fit 64 bits and others are not NaN.
"""

import collections.abc
import dataclasses
import enum
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import ConfigError, ConfigFileError, UnknownKeyError
from darkroom.names import nearest

T = TypeVar("T")
LONGEST_LIST = 10_000


@dataclasses.dataclass(frozen=True)
class Range:
    """The least and the most that a number may be."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"from {self.low:,} to {self.high:,}"


Size = Annotated[int, Range(1, 1 << 20)]  # a size: channels, heads, pixels of a side
Count = Annotated[int, Range(0, 1 << 20)]  # how many, or none
Share = Annotated[float, Range(0, 1)]
WHOLE = Range(-(1 << 63), (1 << 64) - 1)


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build ``cls`` from plain data, checking every key and every type.

    Args:
        where: what the data came from (a file name); the error message begins with it.

    Raises:
        ConfigError: on an unknown key (naming the nearest valid one), a missing key, a value of
            another type, or whatever ``__post_init__`` refuses with a ValueError.
    """
    return _dataclass(cls, data, _Place(where, ""))


def check(config: T, where: str = "") -> T:
    """``config`` itself, if ``from_dict`` would have taken its values.

    Raises:
        ConfigError: as ``from_dict``.
    """
    _dataclass(type(config), _shallow(config), _Place(where, ""))
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data of a dataclass instance, which ``from_dict`` turns back into an equal one."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"to_dict takes a dataclass instance, got {config!r:.60}")
    return {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init
    }


def from_toml(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Build ``cls`` from a TOML file, with ``a.b=value`` overrides put on top.

    Raises:
        ConfigError: when the file is missing, is no TOML, or does not fit ``cls``.
    """
    return from_dict(cls, amended(read_toml(path), overrides), str(path))


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table that a TOML file holds. Raises ConfigError when it is missing, or no TOML."""
    return foreign.read_toml(path, ConfigError)


def from_json(cls: type[T], path: str | Path) -> T:
    """Build ``cls`` from a JSON file. Raises ConfigError as ``from_toml`` does."""
    return from_dict(cls, foreign.read_object(path, ConfigError), str(path))


def to_json(config: Any, path: str | Path) -> None:
    """Write ``config`` as an indented JSON file, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n").encode())


def to_toml(config: Any) -> str:
    """``config`` as TOML text. ``None`` has no spelling there: such fields are left out.

    Raises:
        ConfigError: when a field is None but its default is not, as leaving it out would change it.
    """
    _refuse_lost_nones(config, "")
    return "\n".join(_toml_table(to_dict(config), "")).strip() + "\n"


def amended(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """``data`` with ``a.b=value`` assignments; a value is TOML, or else taken as a string."""
    result = _copied(data)
    for assignment in overrides:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(
                f"override {assignment!r}: expected name=value, like optimizer.lr=1e-4"
            )
        *tables, leaf = name.strip().split(".")
        table = result
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"override {assignment!r}: {part} is a value, not a table")
        table[leaf] = _toml_or_text(text, f"override {name.strip()}")
    return result


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where in which file a value stands: makes messages."""

    source: str
    path: str

    def at(self, name: str | int) -> "_Place":
        if isinstance(name, int):
            return _Place(self.source, f"{self.path}[{name}]")
        return _Place(self.source, f"{self.path}.{name}" if self.path else name)

    def unknown(self, problem: str) -> ConfigError:
        return UnknownKeyError(str(self.error(problem)))

    def error(self, problem: str) -> ConfigError:
        return ConfigError(": ".join(part for part in (self.source, self.path, problem) if part))


def _dataclass(cls: type[T], data: Any, place: _Place) -> T:
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"expected a dataclass, got {cls!r}")
    if not isinstance(data, Mapping):
        raise place.error(f"expected a table of {cls.__name__}, found {_kind(data)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in data:
        if key not in fields:
            close = nearest(str(key), fields)
            hint = f"did you mean {close}?" if close else f"valid: {', '.join(fields)}"
            raise place.unknown(f"unknown key {key!r:.60} for {cls.__name__}; {hint}")
    missing = [name for name, field in fields.items() if name not in data and _required(field)]
    if missing:
        raise place.error(f"{cls.__name__} needs {', '.join(missing)}")
    values = {key: _value(hints[key], value, place.at(key)) for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:  # a __post_init__ that checks ranges
        raise place.error(str(error)) from None


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _value(hint: Any, value: Any, place: _Place) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Annotated:
        kind, *limits = arguments
        return _within(_value(kind, value, place), kind, limits, place)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, place)
    if origin is typing.Literal:
        if value not in arguments or isinstance(value, bool) != isinstance(arguments[0], bool):
            choices = ", ".join(repr(choice) for choice in arguments)
            raise place.error(f"expected one of {choices}, found {_kind(value)}")
        return value
    if origin is tuple or hint is tuple:
        return _tuple(arguments, value, place)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise place.error(f"expected a table, found {_kind(value)}")
        return {key: _value(arguments[1], item, place.at(key)) for key, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            _dataclass(hint, _shallow(value), place)
            return value
        return _dataclass(hint, value, place)
    return _scalar(hint, value, place)


def _scalar(hint: Any, value: Any, place: _Place) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise place.error("expected a number of at most 300 digits") from None
    if hint in (int, float) and isinstance(value, bool):
        raise place.error(f"expected {_NAMES[hint]}, found {str(value).lower()}")
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is type(None) and value is None:
        return None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            choices = ", ".join(repr(member.value) for member in hint)
            raise place.error(f"expected one of {choices}, found {_kind(value)}") from None
    if hint not in _NAMES:
        raise ValueError(f"{place.path}: config.py cannot read fields of type {hint!r}")
    if not isinstance(value, hint):
        raise place.error(f"expected {_NAMES[hint]}, found {_kind(value)}")
    if hint is float and math.isnan(value):
        raise place.error("expected a number, found nan")
    return _within(value, int, (WHOLE,), place) if hint is int else value


def _within(value: Any, kind: Any, limits: Sequence[Any], place: _Place) -> Any:
    for limit in limits:
        if isinstance(limit, Range) and not limit.low <= value <= limit.high:
            raise place.error(f"expected {_NAMES[kind]} {limit}, found {_kind(value)}")
    return value


def _union(members: Sequence[Any], value: Any, place: _Place) -> Any:
    problems: list[ConfigError] = []
    if value is None and type(None) in members:
        return None
    exact = [member for member in members if type(value) is member]  # 3 stays an int in int | float
    for member in (*exact, *members):
        if member is type(None):
            continue
        try:
            return _value(member, value, place)
        except ConfigError as error:
            problems.append(error)
    if len(members) - (type(None) in members) == 1:
        raise problems[0]
    names = " or ".join(
        _NAMES.get(member, getattr(member, "__name__", str(member))) for member in members
    )
    raise place.error(f"expected {names}, found {_kind(value)}")


def _tuple(members: Sequence[Any], value: Any, place: _Place) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise place.error(f"expected a list, found {_kind(value)}")
    if len(value) > LONGEST_LIST:
        raise place.error(f"expected at most {LONGEST_LIST:,} values, found {len(value):,}")
    if not members:
        return tuple(value)
    if len(members) == 2 and members[1] is Ellipsis:
        members = [members[0]] * len(value)
    if len(value) != len(members):
        raise place.error(f"expected {len(members)} values, found {len(value)}")
    return tuple(
        _value(member, item, place.at(i))
        for i, (member, item) in enumerate(zip(members, value, strict=True))
    )


_NAMES: Mapping[Any, str] = types.MappingProxyType(
    {bool: "true or false", int: "a whole number", float: "a number", str: "a string",
     Path: "a path", type(None): "nothing"}
)  # fmt: skip


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"{value!r:.60}"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{value!r:.60} of type {type(value).__name__} has no plain form")


def _shallow(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.init}


def _copied(data: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in data.items()}


def _toml_or_text(text: str, where: str) -> Any:
    """A value as TOML writes it; what is no TOML is a string."""
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    except RecursionError:
        pass  # which the next line says
    return foreign.parse_toml(f"value = {text}", where, ConfigFileError)["value"]


def _refuse_lost_nones(config: Any, path: str) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is not None:
            raise ConfigError(
                f"{path}{field.name} is None and its default is not: TOML cannot say it"
            )
        if dataclasses.is_dataclass(value):
            _refuse_lost_nones(value, f"{path}{field.name}.")


def _toml_table(data: Mapping[str, Any], name: str) -> Iterable[str]:
    """Plain values first, then one ``[a.b]`` section per nested table, as TOML demands."""
    tables = {k: v for k, v in data.items() if isinstance(v, Mapping)}
    for key, value in data.items():
        if value is not None and key not in tables:
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in tables.items():
        path = f"{name}.{_toml_key(key)}" if name else _toml_key(key)
        yield from ("", f"[{path}]", *_toml_table(value, path))


def _toml_key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, str):  # JSON's escapes are TOML's, but TOML also wants DEL escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value if item is not None) + "]"
    inner = ", ".join(
        f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None
    )
    return "{" + inner + "}"
