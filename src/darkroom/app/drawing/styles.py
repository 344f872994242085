"""Prompt styles: words around a prompt that are kept under a name. No torch."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.app.outcome import usage
from darkroom.app.values import existing
from darkroom.errors import ConfigError
from darkroom.names import did_you_mean

PLACE = "{prompt}"
BUILT_IN = Path(__file__).parents[2] / "assets" / "styles.toml"


@dataclass(frozen=True)
class Style:
    """What a style adds: to the prompt and to the negative prompt."""

    name: str
    prompt: str = ""
    negative: str = ""

    def applied(self, prompt: str, negative: str) -> tuple[str, str]:
        """Both prompts with the style in them, as A1111 does it."""
        return _merged(self.prompt, prompt), _merged(self.negative, negative)


def chosen(names: Sequence[str], file: Path | None = None) -> tuple[Style, ...]:
    """The styles of these names.

    Looked up in ``file``, then the user's styles.toml and styles.csv in the data folder
    (DARKROOM_HOME), then those that come with Darkroom.

    Raises:
        UsageError: there is no such style.
        ConfigError: a file of styles cannot be read.
    """
    if not names:
        return ()
    known = available(file)
    for name in names:
        if name not in known:
            raise usage(f"no style {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}",
                        "--style")  # fmt: skip
    return tuple(known[name] for name in names)


def available(file: Path | None = None) -> dict[str, Style]:
    """Every style by name; the user's own first."""
    from darkroom.weights.registry import home

    own = [home() / name for name in ("styles.toml", "styles.csv")]
    files = [*([existing(file, "file of styles")] if file else []), *filter(Path.is_file, own)]
    found: dict[str, Style] = {}
    for path in (*files, BUILT_IN):
        for style in read(path):
            found.setdefault(style.name, style)
    return found


def read(path: Path) -> list[Style]:
    """The styles in a TOML file of ours, or in a styles.csv as A1111 writes it.

    TOML: a table for each style with ``prompt`` and ``negative``. CSV: the columns name, prompt and
    negative_prompt; rows without a name or without text are headings, and left out.

    Raises:
        ConfigError: the file is neither.
    """
    text = foreign.read_text(path, ConfigError)
    return _from_csv(path, text) if path.suffix.lower() == ".csv" else _from_toml(path, text)


def _from_toml(path: Path, text: str) -> list[Style]:
    try:
        tables: dict[str, Any] = foreign.parse_toml(text, str(path), ConfigError)
    except ConfigError as error:
        raise ConfigError(f"{error}; expected [name] with prompt and negative") from None
    styles = []
    for name, table in tables.items():
        fields: Mapping[str, Any] = table if isinstance(table, Mapping) else {}
        wrong = [key for key in fields if key not in ("prompt", "negative")]
        if not fields or wrong or not all(isinstance(value, str) for value in fields.values()):
            raise ConfigError(
                f"{path}: style {name!r}: expected a table of prompt and negative, both texts"
            )
        styles.append(Style(name, fields.get("prompt", ""), fields.get("negative", "")))
    return styles


def _from_csv(path: Path, text: str) -> list[Style]:
    rows = csv.DictReader(text.splitlines(keepends=True))
    columns = [name.strip() for name in rows.fieldnames or ()]
    if "name" not in columns or not {"prompt", "text"} & set(columns):
        raise ConfigError(f"{path}: expected the columns name, prompt and negative_prompt")
    rows.fieldnames = columns
    styles = []
    for row in rows:
        name = (row.get("name") or "").strip()
        prompt = row.get("prompt") or row.get("text") or ""
        negative = row.get("negative_prompt") or ""
        if name and (prompt or negative):
            styles.append(Style(name, prompt, negative))
    return styles


def _merged(style: str, text: str) -> str:
    if PLACE in style:
        return style.replace(PLACE, text)
    return ", ".join(part for part in (text.strip(), style.strip()) if part)
