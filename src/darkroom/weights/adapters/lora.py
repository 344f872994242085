"""LoRA files: found by name, read, and fitted to a model."""

import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import foreign
from darkroom.errors import CheckpointError, LayoutError, ModelMismatchError
from darkroom.weights.adapters.embeddings import EmbeddingFile
from darkroom.weights.adapters.finding import called, check_base, find, sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from darkroom.adapters.lora import LayerChange
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.weights.layouts.lora import Change

FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL", "sdxl-refiner": "SDXL refiner"}
PEFT_PREFIXES = {"unet": "unet.", "text": "text_encoder.", "text2": "text_encoder_2."}
BUNDLED = "bundle_emb."  # before a textual inversion in the file of a LoRA
Layers = dict[str, dict[str, "LayerChange"]]  # by part, by path


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """A LoRA that has been opened."""

    name: str
    tensors: "Mapping[str, Tensor]"
    path: Path | None = None
    sha256: str = ""
    base: str = ""  # "SD 1.x", "SDXL", ...: what it was made for; "" = it does not say
    config: Mapping[str, Any] = field(default_factory=dict)  # peft's, its keys after the part's
    metadata: Mapping[str, str] = field(default_factory=dict)  # of a file of safetensors
    embeddings: tuple[EmbeddingFile, ...] = ()  # textual inversions that lie in the same file


def find_lora(name: str | os.PathLike[str]) -> Path:
    """Where the LoRA called ``name`` is; imports no torch.

    ``name`` is a path, ``hf:owner/name:file``, a registered name, or the name of a file in a model
    folder or below, with its ending or without.

    Raises:
        ModelNotFoundError: with the nearest name, and what to do.
    """
    return find(name, "LoRA")


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
    metadata = read_header(path).metadata
    tensors, embeddings = divided(read_tensors(path), str(path))
    return LoraFile(
        name=called(name, path),
        tensors=tensors,
        path=path,
        sha256=sha256_of(path),
        base=base,
        config=_peft_config(path, metadata),
        metadata=metadata,
        embeddings=embeddings,
    )


def divided(
    tensors: "Mapping[str, Tensor]", where: str
) -> "tuple[Mapping[str, Tensor], tuple[EmbeddingFile, ...]]":
    """A LoRA's tensors, and the textual inversions in the same file.

    These are ``bundle_emb.NAME.*``, as A1111 reads them, and the words of numbered LoRAs.

    Raises:
        CheckpointError: one of them is no textual inversion.
    """
    from darkroom.text.textual_inversion import read_embedding
    from darkroom.weights.layouts import numbered_lora

    bundled: dict[str, dict[str, Any]] = {}
    for name in tensors:
        if name.startswith(BUNDLED):
            word, _, key = name.removeprefix(BUNDLED).partition(".")
            key, _, inner = key.partition(".")
            value = {inner: tensors[name]} if key == "string_to_param" else tensors[name]
            bundled.setdefault(word, {})[key] = value
    if numbered_lora.is_numbered(tensors):
        found = numbered_lora.words(tensors)
        bundled |= {word: {"emb_params": vectors} for word, vectors in found.items()}
    if not bundled:
        return tensors, ()
    files = []
    for word, content in bundled.items():
        try:
            _, vectors = read_embedding(content, word)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: the textual inversion in it: {error}") from None
        vectors = tuple(tensor.float() for tensor in vectors)
        files.append(EmbeddingFile(name=word, words=(word,), vectors=vectors))
    rest = {
        name: tensors[name]
        for name in tensors
        if not name.startswith(BUNDLED) and name not in bundled
    }
    return rest, tuple(files)


def fit(file: LoraFile, model: "LatentDiffusion", *, as_stored: bool = False) -> Layers:
    """The changes a LoRA makes to a model, in the model's dtype, on its device.

    Args:
        as_stored: keep the file's dtype: enough for differences, which are float32 of either.

    Raises:
        ModelMismatchError: it is for another base.
        LayoutError: naming what fits no layer, and the base that the file is for.
    """
    from darkroom.weights.layouts import lora as layout
    from darkroom.weights.layouts import numbered_lora

    where = str(file.path or file.name)
    ours = FAMILIES.get(model.family, "")
    check_base(where, file.base, ours)
    parts = networks(model)
    try:
        tensors = file.tensors
        if numbered_lora.is_numbered(tensors):
            tensors = numbered_lora.named(tensors, file.metadata, parts)
        changes = layout.read(tensors, parts)
    except LayoutError as error:
        hint = f"{verdict}; " if (verdict := _verdict(file, ours)) else ""
        raise LayoutError(f"{where}: {hint}{error}; `darkroom inspect` says what it is") from None
    layers: Layers = {}
    for change in changes:
        try:
            layer = _layer(change, parts[change.part], file.config, as_stored)
        except ModelMismatchError as error:
            hint = f": {verdict}" if (verdict := _verdict(file, ours)) else ""
            raise ModelMismatchError(
                f"{where}: {change.source}: {error}{hint}; use a LoRA made for this model"
            ) from None
        layers.setdefault(change.part, {})[change.path] = layer
    return layers


def fuse(
    model: "LatentDiffusion", *loras: "tuple[str | os.PathLike[str] | LoraFile, float]"
) -> ExitStack:
    """Write LoRAs into a model's weights, until the result is closed or its ``with`` block left.

    Drawing then costs what it does without. All are changes of the weights as they are now; they
    add up in float32, in this order, and are rounded to the model's dtype once.

    Args:
        loras: each a file or name, and a weight, of the U-Net's and the text towers' part alike.

    Raises:
        ModelNotFoundError: there is no such LoRA.
        ModelMismatchError: one is for another model, or the model's weights are packed.
        CheckpointError: a file cannot be used.
    """
    from darkroom.adapters.fused import Fused

    fitted = [
        (
            fit(lora if isinstance(lora, LoraFile) else open_lora(lora), model, as_stored=True),
            weight,
        )
        for lora, weight in loras
    ]
    with ExitStack() as stack:
        for part, network in networks(model).items():
            changes = [(layers[part], weight) for layers, weight in fitted if part in layers]
            stack.enter_context(Fused(network, changes))
        return stack.pop_all()


def networks(model: "LatentDiffusion") -> "dict[str, nn.Module]":
    """The networks of a model that a LoRA may change, as checkpoints call them."""
    towers = [tower.model for tower in getattr(model.text_encoder, "towers", ())]
    names = ("text2",) if model.family == "sdxl-refiner" else ("text", "text2")
    return {"unet": model.unet, **dict(zip(names, towers, strict=False))}


def _layer(
    change: "Change", network: "nn.Module", config: Mapping[str, Any], as_stored: bool
) -> "LayerChange":
    from darkroom.adapters.lora import LowRank, target
    from darkroom.adapters.lycoris import NormChange, Rebuilt, is_norm_change

    like, layer = next(network.parameters()), target(network, change.path)
    dtype = None if as_stored else like.dtype
    tensors = {role: tensor.to(like.device, dtype) for role, tensor in change.tensors.items()}
    if is_norm_change(tensors):
        return NormChange(layer, tensors).requires_grad_(False)
    rank = max(1, *tensors["down"].shape[:1]) if "down" in tensors else 0
    scale = _scale(change, rank, config) if rank else None
    if rank and not tensors.keys() - {"down", "up", "mid"}:
        return LowRank(layer, scale=scale or 0.0, **tensors).requires_grad_(False)
    return Rebuilt(layer, tensors, change.alpha, scale).requires_grad_(False)


def _verdict(file: LoraFile, ours: str) -> str:
    """What the file is for, where that is known and something does not fit."""
    base = file.base or _base(file.tensors)
    return f"this is a LoRA for {base}; the model is {ours or 'of another kind'}" if base else ""


def _base(tensors: "Mapping[str, Tensor]") -> str:
    from darkroom.weights.files import TensorInfo
    from darkroom.weights.inspect.bases import base_of
    from darkroom.weights.inspect.rule import Names
    from darkroom.weights.inspect.rules import fitting

    names = Names(tensors)
    rule = fitting(names)
    if rule is None or rule.kind != "LoRA":
        return ""
    shapes = {name: TensorInfo("float32", tuple(t.shape)) for name, t in tensors.items()}
    return base_of(rule, shapes, names, {})


def _scale(change: "Change", rank: int, config: Mapping[str, Any]) -> float:
    """Alpha / rank; peft may say alpha in its configuration rather than beside the weights."""
    if change.alpha is not None:
        return change.alpha / rank
    prefix = PEFT_PREFIXES[change.part]
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
        text = foreign.read_text(beside, CheckpointError)
    config = foreign.parse_json(text or "{}", f"{path}: peft's configuration", CheckpointError)
    return config if isinstance(config, dict) else {}
