"""From what people type to values, before anything is loaded; and completion of names. No torch."""

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom import foreign
from darkroom.errors import ConfigError, ModelNotFoundError
from darkroom.names import (
    DEVICE_NAMES,
    DTYPE_NAMES,
    SAMPLER_NAMES,
    SPACING_NAMES,
    did_you_mean,
)
from darkroom.text.prompt import HypernetworkRequest, LoraRequest

SIZE = re.compile(r"(\d{1,5})[xX](\d{1,5})")
_WEIGHT = re.compile(r"[+-]?(\d{1,4}\.?\d*|\.\d+)")
LARGEST = 16384  # pixels of a side
MOST_LINES = 100_000  # of a file of prompts


def size(text: str) -> tuple[int, int]:
    """'768x512' (width x height, as people write it) -> (512, 768), (height, width)."""
    match = SIZE.fullmatch(text.strip())
    if not match:
        raise typer.BadParameter(f"{text!r}: expected WIDTHxHEIGHT in pixels, such as 512x768")
    width, height = int(match[1]), int(match[2])
    for what, pixels in (("width", width), ("height", height)):
        if not 8 <= pixels <= LARGEST:
            raise typer.BadParameter(f"{what} {pixels}: expected 8 to {LARGEST} pixels")
        if pixels % 8:
            near = (pixels + 4) // 8 * 8
            raise typer.BadParameter(
                f"{what} {pixels} is no multiple of 8; the nearest that is: {near}"
            )
    return height, width


def sampler(text: str) -> str:
    """One of SAMPLER_NAMES."""
    return _known(text, "sampler", SAMPLER_NAMES)


def spacing(text: str) -> str:
    """One of SPACING_NAMES."""
    return _known(text, "spacing", SPACING_NAMES)


def timesteps(text: str) -> tuple[int, ...]:
    """'999,749,499,249': whole numbers that decrease; whether they exist the model says."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1000:
        raise typer.BadParameter(f"{len(parts)} timesteps: expected at most 1000")
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,6}", part):
            raise typer.BadParameter(
                f"{part[:20]!r} is no timestep; expected whole numbers that decrease, such as "
                "999,749,499,249"
            )
    found = tuple(map(int, parts))
    for before, after in pairwise(found):
        if after >= before:
            raise typer.BadParameter(
                f"{after} comes after {before}; timesteps must decrease, such as 999,749,499,249"
            )
    return found


def dtype(text: str) -> str:
    """One of DTYPE_NAMES."""
    return _known(text, "dtype", DTYPE_NAMES)


def device(text: str) -> str:
    """'cpu', 'cuda', 'cuda:1' or 'mps'; whether it is there is seen when torch is."""
    kind, _, number = text.partition(":")
    if kind not in DEVICE_NAMES or (text != kind and not number.isdigit()):
        raise typer.BadParameter(
            f"no device {text!r}; known: {' '.join(DEVICE_NAMES)}{did_you_mean(kind, DEVICE_NAMES)}"
        )
    return text


def seed(text: str) -> int:
    """A whole number that torch's generators take."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= 2**63:
        raise typer.BadParameter(f"{text!r}: expected a whole number from 0 to {2**63 - 1}")
    return int(text)


def guidance(text: str) -> float:
    """A finite scale from 0 to 100."""
    return _number(text, 0, 100, "from 0 to 100; 1 switches guidance off")


def strength(text: str) -> float:
    """Above 0, at most 1."""
    value = _number(text, 0, 1, "above 0 and at most 1")
    if value == 0:
        raise typer.BadParameter(f"{text}: expected a number above 0 and at most 1")
    return value


def refiner_start(text: str) -> float:
    """Between 0 and 1."""
    value = _number(text, 0, 1, "between 0 and 1")
    if value in (0, 1):
        raise typer.BadParameter(f"{text}: expected a number between 0 and 1")
    return value


def lora(text: str) -> LoraRequest:
    """'fox', 'fox:0.8' or 'fox:TEXT:UNET' as in a prompt's tag; the name may be a path or hf:..."""
    head, *tail = text.rsplit(":", 2)
    if len(tail) == 2 and not _WEIGHT.fullmatch(tail[0]):
        head, tail = f"{head}:{tail[0]}", tail[1:]
    if tail and not all(map(_WEIGHT.fullmatch, tail)):
        head, tail = ":".join((head, *tail)), []
    name = head.strip()
    if not name or (":" in name and not re.search(r"[/\\]", name)):
        raise typer.BadParameter(f"{text!r}: expected NAME:WEIGHT, such as fox:0.8")
    weights = [float(weight) for weight in tail] or [1.0]
    return LoraRequest(name, weights[-1], weights[0], text)


def hypernetwork(text: str) -> HypernetworkRequest:
    """'style' or 'style:0.7', as in a prompt's tag; the name may be a path or hf:..."""
    head, _, weight = text.rpartition(":")
    if not head or not _WEIGHT.fullmatch(weight):
        head, weight = text, "1"
    name = head.strip()
    if not name or (":" in name and not re.search(r"[/\\]", name)):
        raise typer.BadParameter(f"{text!r}: expected NAME:WEIGHT, such as style:0.7")
    return HypernetworkRequest(name, float(weight), text)


def prompts_file(path: Path, what: str = "prompt") -> tuple[str, ...]:
    """The lines of a UTF-8 text file, without the blank ones.

    Raises:
        ModelNotFoundError: there is no such file (exit code 3).
        typer.BadParameter: it is no text, or has no line.
    """
    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such file of {what}s; check the path")
    lines = foreign.read_text(path, ConfigError).split("\n")
    prompts = tuple(line.strip() for line in lines if line.strip())
    if len(prompts) > MOST_LINES:
        raise typer.BadParameter(
            f"{path}: {len(prompts):,} {what}s; expected at most {MOST_LINES:,}: split the file"
        )
    if not prompts:
        raise typer.BadParameter(f"{path}: no {what} in it; expected one a line")
    return prompts


def existing(path: Path, what: str) -> Path:
    """``path`` if it is a file.

    Raises:
        ModelNotFoundError: it is not (exit code 3).
    """
    if path.is_file():
        return path
    close = did_you_mean(path.name, neighbours(path))
    state = "is a folder, expected a file" if path.is_dir() else f"no such {what}{close}"
    raise ModelNotFoundError(f"{path}: {state}; check the path")


def complete_sampler(incomplete: str) -> list[str]:
    """Shell completion of --sampler."""
    return _starting(incomplete, SAMPLER_NAMES)


def complete_spacing(incomplete: str) -> list[str]:
    """Shell completion of --spacing."""
    return _starting(incomplete, SPACING_NAMES)


def complete_dtype(incomplete: str) -> list[str]:
    """Shell completion of --dtype."""
    return _starting(incomplete, DTYPE_NAMES)


def complete_device(incomplete: str) -> list[str]:
    """Shell completion of --device."""
    return _starting(incomplete, DEVICE_NAMES)


def complete_model(incomplete: str) -> list[str]:
    """Shell completion of --model: every name that load() would find on this machine."""
    from darkroom.app.found import found_models
    from darkroom.weights.shelves import ADAPTERS

    names = (model.name for model in found_models() if model.kind not in ADAPTERS)
    return _starting(incomplete, dict.fromkeys(names))


def complete_lora(incomplete: str) -> list[str]:
    """Shell completion of --lora: names in the folders of models."""
    from darkroom.app.found import adapter_names

    return _starting(incomplete, dict.fromkeys(adapter_names("LoRA")))


def complete_style(incomplete: str) -> list[str]:
    """Shell completion of --style."""
    from darkroom.app.drawing.styles import available

    return _starting(incomplete, available())


def complete_registered(incomplete: str) -> list[str]:
    """Shell completion of names that ``models add`` and ``models pull`` made."""
    from darkroom.weights.registry import registered

    return _starting(incomplete, registered())


def _known(text: str, what: str, names: tuple[str, ...]) -> str:
    if text in names:
        return text
    raise typer.BadParameter(
        f"no {what} {text!r}{did_you_mean(text, names)}; known: {' '.join(names)}"
    )


def _number(text: str, low: float, high: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # false for NaN as well
        raise typer.BadParameter(f"{text}: expected a number {expected}")
    return value


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def neighbours(path: Path) -> list[str]:
    """The names of what lies beside ``path``."""
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []


Device = Annotated[
    Any,
    typer.Option(
        metavar="NAME",
        parser=device,
        autocompletion=complete_device,
        help="cpu, cuda, cuda:N or mps.",
    ),
]
