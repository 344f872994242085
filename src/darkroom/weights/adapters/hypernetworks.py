"""Hypernetwork files of the A1111 web UI: found by name and read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import LayoutError, ModelMismatchError
from darkroom.weights.adapters.finding import called, find, sha256_of
from darkroom.weights.readers.quantized import UNQUANTISED

if TYPE_CHECKING:
    from darkroom.adapters.hypernetwork import Hypernetwork


@dataclass(frozen=True, kw_only=True)
class HypernetworkFile:
    """A hypernetwork that has been opened."""

    name: str
    network: "Hypernetwork"
    path: Path | None = None
    sha256: str = ""
    base: str = ""  # "SD 1.x", "SD 2.x", ...; "" = it does not say


def find_hypernetwork(name: str | os.PathLike[str]) -> Path:
    """Where the hypernetwork called ``name`` is; imports no torch.

    ``name`` is a path, ``hf:owner/name:file``, a registered name, or the name of a file in a model
    folder or below, with its ending or without.

    Raises:
        ModelNotFoundError: with the nearest name, and what to do.
    """
    return find(name, "hypernetwork")


def check_hypernetwork(path: Path) -> str:
    """The base of a hypernetwork file, by its header alone; imports no torch.

    Raises:
        ModelMismatchError: it is something else.
        CheckpointError: it cannot be read.
    """
    from darkroom.weights.inspect import inspect

    report = inspect(path)
    if report.kind != "hypernetwork":
        what = f"{report.kind} of {report.base}" if report.base else report.kind
        raise ModelMismatchError(
            f"{path}: expected a hypernetwork, this is: {what}; `darkroom inspect` says more"
        )
    return report.base


def open_hypernetwork(name: str | os.PathLike[str]) -> HypernetworkFile:
    """Find and read a hypernetwork.

    Raises:
        ModelNotFoundError: there is none of that name.
        ModelMismatchError: the file is something else.
        CheckpointError: the file cannot be used.
    """
    from darkroom.weights.files import read_object

    path = find_hypernetwork(name)
    base = check_hypernetwork(path)
    return HypernetworkFile(
        name=called(name, path),
        network=read_hypernetwork(read_object(path), str(path)),
        path=path,
        sha256=sha256_of(path),
        base=base,
    )


def read_hypernetwork(content: object, where: str) -> "Hypernetwork":
    """The networks in a file's content.

    Raises:
        LayoutError: it is not what A1111 writes.
    """
    from darkroom.adapters.hypernetwork import Hypernetwork, HypernetworkConfig

    if not isinstance(content, Mapping):
        raise LayoutError(f"{where}: no hypernetwork; a dictionary by width is expected")
    states = {key: value for key, value in content.items() if type(key) is int}
    defaults = HypernetworkConfig()
    try:
        config = HypernetworkConfig(
            layer_structure=_numbers(content, "layer_structure") or defaults.layer_structure,
            activation_func=_text(content, "activation_func"),
            is_layer_norm=bool(content.get("is_layer_norm", defaults.is_layer_norm)),
            activate_output=bool(content.get("activate_output", defaults.activate_output)),
            use_dropout=bool(content.get("use_dropout", defaults.use_dropout)),
            last_layer_dropout=bool(content.get("last_layer_dropout", False)),
            dropout_structure=_numbers(content, "dropout_structure"),
        )
        if not states:
            raise LayoutError("it has no networks")
        return Hypernetwork({width: _pair(width, pair) for width, pair in states.items()}, config)
    except LayoutError as error:
        raise LayoutError(f"{where}: {error}; it is damaged, or of an unknown kind") from None


def _pair(width: int, value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, (tuple, list)) or not all(isinstance(v, Mapping) for v in value):
        raise LayoutError(f"width {width}: two dictionaries are expected")
    for name, tensor in ((name, t) for part in value for name, t in part.items()):
        if not getattr(tensor, "is_floating_point", bool)():
            raise LayoutError(f"width {width}: {name} holds no plain numbers; {UNQUANTISED}")
    return tuple(value)


def _numbers(content: Mapping[Any, Any], key: str) -> tuple[float, ...] | None:
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or not all(isinstance(v, (int, float)) for v in value):
        raise LayoutError(f"{key}: numbers are expected")
    return tuple(value)


def _text(content: Mapping[Any, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise LayoutError(f"{key}: a name is expected")
    return value.lower() if value else None
