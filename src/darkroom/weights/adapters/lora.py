"""LoRA files: found by name, read, and fitted to a model."""

import functools
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import CheckpointError, LayoutError, ModelMismatchError, ModelNotFoundError
from darkroom.names import did_you_mean
from darkroom.weights import registry
from darkroom.weights.registry import MODEL_SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from darkroom.adapters.lora import LowRank
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.weights.layouts.lora import Change

FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL", "sdxl-refiner": "SDXL refiner"}
IN_FOLDERS = ("pytorch_lora_weights", "adapter_model")  # what trainers call the file
Layers = dict[str, dict[str, "LowRank"]]  # by part, by path


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """A LoRA that has been opened."""

    name: str
    tensors: "Mapping[str, Tensor]"
    path: Path | None = None
    sha256: str = ""
    base: str = ""  # "SD 1.x", "SDXL", ...: what it was made for; "" = it does not say
    config: Mapping[str, Any] = field(default_factory=dict)  # peft's, its keys after the part's


def find_lora(name: str | os.PathLike[str]) -> Path:
    """Where the LoRA called ``name`` is; imports no torch.

    ``name`` is a path, ``hf:owner/name:file``, a registered name, or the name of a file in a model
    folder or below, with its ending or without.

    Raises:
        ModelNotFoundError: with the nearest name, and what to do.
    """
    text = os.fspath(name)
    if text.startswith("hf:"):
        from darkroom.weights.locate import locate

        return _file(locate(text).path)
    if path := registry.resolve(text):
        return _file(path)
    path = Path(text).expanduser()
    if text and path.exists():
        return _file(path)
    known = dict(_in_folders())
    for wanted in (text, Path(text).name if path.suffix in MODEL_SUFFIXES else text):
        for found, place in known.items():
            if wanted in (found, place.name, f"{found}{place.suffix}"):
                return place
    stems = [*registry.registered(), *known]
    raise ModelNotFoundError(
        f"no LoRA is called {text!r}{did_you_mean(text, stems)}; give the path of its file, or put "
        f"it into {registry.home() / 'models'}"
    )


def check_kind(path: Path) -> str:
    """The base of a LoRA file, by its header alone; imports no torch.

    Raises:
        ModelMismatchError: it is something else.
        CheckpointError: it cannot be read.
    """
    from darkroom.weights.inspect import inspect

    report = inspect(path)
    if report.kind not in ("LoRA", "unknown"):
        what = f"{report.kind} of {report.base}" if report.base else report.kind
        raise ModelMismatchError(
            f"{path}: expected a LoRA, this is: {what} ({report.layout or 'unknown names'}); "
            "`darkroom inspect` says more"
        )
    return report.base


def check_base(where: object, base: str, model: str) -> None:
    """Refuse a LoRA of one base for a model of another; either may be "", unknown.

    Raises:
        ModelMismatchError: naming both.
    """
    if base and model and base != model:
        raise ModelMismatchError(
            f"{where}: this is a LoRA for {base}; the model is {model}: use a LoRA for {model}, or "
            f"a model of {base}"
        )


def open_lora(name: str | os.PathLike[str]) -> LoraFile:
    """Find and open a LoRA; its tensors are read when they are asked for.

    Raises:
        ModelNotFoundError: there is none of that name.
        ModelMismatchError: the file is something else.
        CheckpointError: the file cannot be read.
    """
    from darkroom.weights.files import read_header, read_tensors

    path = find_lora(name)
    base = check_kind(path)
    tensors = read_tensors(path)
    config = _peft_config(path, read_header(path).metadata)
    return LoraFile(
        name=_called(name, path),
        tensors=tensors,
        path=path,
        sha256=_sha256(path, path.stat().st_mtime_ns, path.stat().st_size),
        base=base,
        config=config,
    )


def fit(file: LoraFile, model: "LatentDiffusion") -> Layers:
    """The changes a LoRA makes to a model, in the model's dtype, on its device.

    Raises:
        ModelMismatchError: it is for another base.
        LayoutError: naming what fits no layer, or what is no plain LoRA (LoHa, LoKr, DoRA, ...).
    """
    from darkroom.weights.layouts import lora as layout

    where = str(file.path or file.name)
    ours = FAMILIES.get(model.family, "")
    check_base(where, file.base, ours)
    verdict = f"this is a LoRA for {file.base}; the model is {ours}" if file.base and ours else ""
    parts = networks(model)
    try:
        changes = layout.read(file.tensors, parts)
    except LayoutError as error:
        if file.path is not None and (method := _method(file.path)) != "LoRA":
            raise LayoutError(
                f"{where}: a {method} file; this version reads LoRA and LoCon with down and up "
                f"({error})"
            ) from None
        hint = f"{verdict}; " if verdict else ""
        raise LayoutError(f"{where}: {hint}{error}; `darkroom inspect` says what it is") from None
    layers: Layers = {}
    for change in changes:
        try:
            layer = _low_rank(change, parts[change.part], file.config)
        except ModelMismatchError as error:
            hint = f": {verdict}" if verdict else ""
            raise ModelMismatchError(
                f"{where}: {change.source}: {error}{hint}; use a LoRA made for this model"
            ) from None
        layers.setdefault(change.part, {})[change.path] = layer
    return layers


def networks(model: "LatentDiffusion") -> "dict[str, nn.Module]":
    """The networks of a model that a LoRA may change, as checkpoints call them."""
    towers = [tower.model for tower in getattr(model.text_encoder, "towers", ())]
    names = ("text2",) if model.family == "sdxl-refiner" else ("text", "text2")
    return {"unet": model.unet, **dict(zip(names, towers, strict=False))}


def _low_rank(change: "Change", network: "nn.Module", config: Mapping[str, Any]) -> "LowRank":
    from darkroom.adapters.lora import LowRank, target

    like = next(network.parameters())
    down, up = change.down, change.up
    assert down is not None
    assert up is not None
    mid = None if change.mid is None else change.mid.to(like)
    scale = _scale(change, max(1, *down.shape[:1]), config)
    layer = LowRank(target(network, change.path), down.to(like), up.to(like), scale, mid)
    return layer.requires_grad_(False)


def _scale(change: "Change", rank: int, config: Mapping[str, Any]) -> float:
    """Alpha / rank; peft may say alpha in its configuration rather than beside the weights."""
    if change.alpha is not None:
        return change.alpha / rank
    prefix = {"unet": "unet.", "text": "text_encoder.", "text2": "text_encoder_2."}[change.part]
    said = {key.removeprefix(prefix): value for key, value in config.items()}
    alpha = said.get("lora_alpha")
    for pattern, value in (said.get("alpha_pattern") or {}).items():
        if f".{pattern}." in f".{change.source}":
            alpha = value
    if not isinstance(alpha, int | float):
        return 1.0
    return alpha / (math.sqrt(rank) if said.get("use_rslora") else rank)


def _peft_config(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """What peft says of a file: in its metadata, or in the file beside it."""
    text = metadata.get("lora_adapter_metadata", "")
    beside = path.with_name("adapter_config.json")
    if not text and path.stem == "adapter_model" and beside.is_file():
        text = beside.read_text("utf-8")
    try:
        config = json.loads(text or "{}")
    except ValueError:
        raise CheckpointError(f"{path}: peft's configuration of it is no JSON") from None
    return config if isinstance(config, dict) else {}


def _file(path: Path) -> Path:
    """The file itself, where a folder was meant."""
    if not path.is_dir():
        return path
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in MODEL_SUFFIXES)
    named = [p for p in found if p.stem in IN_FOLDERS]
    if named or len(found) == 1:
        return (named or found)[0]
    raise ModelNotFoundError(
        f"{path}: expected a LoRA, this folder holds {len(found)} model files; name one of them"
    )


def _in_folders() -> Iterator[tuple[str, Path]]:
    """The model files in the model folders and below, by stem; the first of a name wins."""
    seen = set()
    for folder in registry.model_folders():
        for path in sorted(folder.rglob("*")):
            name = path.stem
            if path.suffix.lower() in MODEL_SUFFIXES and name not in seen and path.is_file():
                seen.add(name)
                yield name, path


def _called(name: str | os.PathLike[str], path: Path) -> str:
    """What metadata say: a name, never a path of this machine."""
    text = os.fspath(name)
    if text.startswith("hf:") or text in registry.registered():
        return text
    return path.parent.name if path.stem in IN_FOLDERS else path.stem


def _method(path: Path) -> str:
    from darkroom.weights.inspect import inspect

    method = str(inspect(path).details.get("method", "LoRA"))
    return "LoRA" if method == "LoCon" else method


@functools.lru_cache(64)
def _sha256(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
