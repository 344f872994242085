"""``inspect``: what a model file, a model folder or a picture is, from headers alone.

No torch is imported and no tensor is read, so the answer comes in a fraction of a second, for
files of any size; nothing in the file runs.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.catalog import Known, by_file
from darkroom.weights.files import Header, read_header
from darkroom.weights.inspect.bases import BY_INPUTS, base_of, input_channels, particulars
from darkroom.weights.inspect.gelu import UNSAID, activation
from darkroom.weights.inspect.rule import Names, Rule
from darkroom.weights.inspect.rules import fitting
from darkroom.weights.inspect.unopened import refusal
from darkroom.weights.readers.faults import printable
from darkroom.weights.readers.quantized import UNQUANTISED, is_scaled, packed

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
MOST_UNKNOWN = 5
PLAYGROUND = "preconditioned, with mean and deviation of latents, as Playground v2.5"
COSXL = "velocity at continuous levels, as CosXL"
NOTHING: Mapping[str, Any] = {}

__all__ = ["FileReport", "inspect"]


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What a file is. Empty fields mean that it does not say.

    ``prediction`` is "noise" or "velocity"; ``prediction_source`` says who says so.
    ``unknown`` are the first names that no file of this kind should have, of ``unknown_count``.
    ``skipped`` are the classes of objects in a pickle that were left inert.
    """

    path: str
    kind: str
    base: str = ""
    variant: str = ""
    layout: str = ""
    format: str = ""
    name: str = ""  # the published model of this file name, or the title in its metadata
    dtype: str = ""
    tensors: int = 0
    parameters: int = 0
    bytes: int = 0
    parts: Mapping[str, str] = field(default_factory=dict)
    input_channels: int | None = None
    prediction: str = ""
    prediction_source: str = ""
    ema: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    unknown: tuple[str, ...] = ()
    unknown_count: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The fields that say something, as plain data for JSON."""
        from darkroom.config import to_dict

        empty = ("", 0, None, False, [], {})
        return {name: value for name, value in to_dict(self).items() if value not in empty}


def inspect(path: str | os.PathLike[str]) -> FileReport:
    """Say what a file or folder is.

    Args:
        path: a model file, an ``.index.json``, a model folder, or a PNG, JPEG or WebP picture.

    Raises:
        CheckpointError: the file cannot be used; one line with the fault and the remedy.
        ImageError: a picture that cannot be read.
    """
    path = Path(path)
    with foreign.understood(path, CheckpointError):
        if path.is_dir():
            from darkroom.weights.inspect.folders import inspect_folder

            return inspect_folder(path)
        if path.suffix.lower() in PICTURES:
            return _picture(path)
        return report_of(read_header(path))


def kind_of(header: Header) -> str:
    """The kind of one file alone, as its report tells it."""
    names = Names(header.tensors)
    return (fitting(names) or _by_structure(header, names)).kind


def report_of(header: Header) -> FileReport:
    """The report on one file whose header has been read."""
    tensors = header.tensors
    names = Names(tensors)
    rule = fitting(names) or _by_structure(header, names)
    known = by_file(header.path.name.partition(".safetensors")[0].rpartition("/")[2]) or by_file(
        header.path.stem
    )
    base = base_of(rule, tensors, names, header.metadata)
    inputs = input_channels(tensors) if "U-Net" in rule.kind or "checkpoint" in rule.kind else None
    unknown = _unknown(rule, names)
    ema = names.have("^model_ema.") or names.have("ema_unet.")
    said, source = _prediction(rule, base, inputs, header, names, known)
    notes = list(_notes(rule, base, said, header, known))
    details = particulars(rule, tensors, names) | _named(header)
    details |= {"EDM": edm} if (edm := _edm(names)) else {}
    if rule.kind == "CLIP":
        gelu = activation(rule, header.path, header.metadata.get("darkroom", ""), known)
        details |= {"activation": gelu} if gelu else {}
        notes += [] if gelu else [UNSAID]
    return FileReport(
        path=str(header.path),
        kind=rule.kind,
        base=base,
        variant=BY_INPUTS.get(inputs or 4, ""),
        layout=rule.layout,
        format=header.format,
        name=known.name if known else _text(header.metadata.get("modelspec.title", "")),
        dtype=dtype_of(header),
        tensors=len(tensors),
        parameters=sum(info.count for info in tensors.values()),
        bytes=header.size,
        parts=_parts(names),
        input_channels=inputs,
        prediction=said,
        prediction_source=source,
        ema=ema,
        details=details,
        training=_training(header.metadata),
        licence=_licence(rule, header, known),
        unknown=tuple(printable(name) for name in unknown[:MOST_UNKNOWN]),
        unknown_count=len(unknown),
        skipped=_skipped(header),
        notes=tuple(notes),
    )


def _skipped(header: Header) -> dict[str, int]:
    """Classes of objects left inert, and how many of each; TorchScript numbers its classes."""
    counts = Counter[str]()
    for name, count in header.skipped.items():
        counts[re.sub(r"^__torch__\.|___torch_mangle_\d+\.", "", name)] += count
    return dict(sorted(counts.items())[:20])


def dtype_of(header: Header) -> str:
    """The number formats by share: "float16", or "float16 + float32" where both matter."""
    shares: Counter[str] = Counter()
    for info in header.tensors.values():
        shares[info.dtype] += info.size
    total = sum(shares.values()) or 1
    return " + ".join(dtype for dtype, size in shares.most_common(3) if size > total / 1000)


def _by_structure(header: Header, names: Names) -> Rule:
    """Kinds that have no names of their own, only a form."""
    if all(re.match(r"\d+\.[01]\.linear\.", name) for name in names.all):
        return Rule("hypernetwork", "A1111", ())
    shapes = [info.shape for info in header.tensors.values()]
    if len(shapes) <= 4 and all(
        1 <= len(shape) <= 2 and shape[-1] in (768, 1024, 1280) for shape in shapes
    ):
        return Rule("textual inversion", "diffusers", ())
    return Rule("unknown", "", ())


def _unknown(rule: Rule, names: Names) -> list[str]:
    if rule.kind == "unknown":
        return names.all
    return [name for name in names.all if rule.known and not name.startswith(rule.known)]


def _parts(names: Names) -> dict[str, str]:
    """Which networks a single file holds."""
    prefixes = {
        "U-Net": "^model.diffusion_model.",
        "autoencoder": "^first_stage_model.",
        "text encoder": "^cond_stage_model.",
        "first text encoder": "^conditioner.embedders.0.",
        "second text encoder": "^conditioner.embedders.1.",
        "depth estimator": "^depth_model.",
        "ControlNet": "^control_model.",
    }
    found = {part: prefix[1:] + "*" for part, prefix in prefixes.items() if names.have(prefix)}
    return found if len(found) > 1 else {}


def _edm(names: Names) -> str:
    """Which form of EDM's continuous levels a checkpoint is marked with; "" for none."""
    if names.have("^edm_mean$") and names.have("^edm_std$"):
        return PLAYGROUND
    return COSXL if names.have("^edm_vpred.sigma_max$") else ""


def _prediction(
    rule: Rule, base: str, inputs: int | None, header: Header, names: Names, known: Known | None
) -> tuple[str, str]:
    """("noise", "velocity" or "", who says so)."""
    metadata = header.metadata
    kind = metadata.get("modelspec.prediction_type", "").lower()
    if kind in ("v", "v_prediction", "epsilon"):
        return ("noise" if kind == "epsilon" else "velocity"), "the file's metadata"
    if "-768-v" in metadata.get("modelspec.architecture", ""):
        return "velocity", "the file's metadata"
    if metadata.get("ss_v_parameterization", "").lower() == "true":
        return "velocity", "the file's metadata"
    if edm := _edm(names):
        return ("velocity" if edm == COSXL else "noise"), "a mark in the file"
    if names.have("^v_pred$"):
        return "velocity", "a mark in the file"
    if "checkpoint" not in rule.kind and "U-Net" not in rule.kind:
        return "", ""
    if known and known.prediction:
        return known.prediction, f"the catalogue: {known.name}"
    if base in ("SD 1.x", "SDXL", "SDXL refiner"):
        return "noise", f"usual for {base}"
    if base == "SD 2.x" and inputs in (5, 9):
        return "noise", "usual for its variant"
    return "", ""


def _notes(rule: Rule, base: str, said: str, header: Header, known: Known | None) -> list[str]:
    notes = []
    if base == "SD 2.x" and not said and ("checkpoint" in rule.kind or "U-Net" in rule.kind):
        notes.append(
            "predicts noise (512-pixel models) or velocity (768-pixel models): the file does not "
            "say which; if pictures are noise, try the other prediction"
        )
    if what := packed(header.tensors):
        notes.append(f"has weights in {what}, which Darkroom does not read; {UNQUANTISED}")
    elif is_scaled(header.tensors):
        notes.append("scaled fp8: weights are multiplied by the scales beside them when read")
    if said_no := refusal(rule.kind):
        notes.append(said_no)
    if rule.kind == "unknown":
        notes.append("no known kind has these names")
    if rule.kind == "unknown" and any(name.endswith(".exp_avg") for name in header.tensors):
        notes.append("holds the state of an optimizer")
    if known and known.note:
        notes.append(known.note)
    return notes


def _named(header: Header) -> dict[str, Any]:
    """The name and step that embeddings, hypernetworks and trainers write."""
    kept = ("name", "step", "global_step", "epoch", "sd_checkpoint_name", "layer_structure")
    found = {}
    for key in kept:
        value = header.extras.get(key)
        if value is not None and value != "":
            found[key] = _text(value) if isinstance(value, str) else value
    return found


def _training(metadata: Mapping[str, str]) -> dict[str, str]:
    """What trainers and the ModelSpec standard wrote, without the long lists."""
    found = {}
    for key in sorted(metadata):
        if key.startswith(("ss_", "modelspec.")) and metadata[key] not in ("", "None"):
            if key in ("ss_tag_frequency", "ss_bucket_info", "ss_datasets", "modelspec.thumbnail"):
                continue
            found[key] = _text(metadata[key])
    if tags := _tags(metadata.get("ss_tag_frequency", "")):
        found["tags"] = tags
    return found


def _tags(text: str) -> str:
    """The most frequent words that a LoRA was trained on: its trigger words, most likely."""
    counts = Counter[str]()
    for word, count in re.findall(r'"((?:[^"\\]|\\.){1,80})":\s*(\d{1,9})\b', text[:2_000_000]):
        counts[word.strip()] += int(count)
    return ", ".join(printable(word) for word, _ in counts.most_common(10))


def _licence(rule: Rule, header: Header, known: Known | None) -> str:
    said = header.metadata.get("modelspec.license") or header.metadata.get("license", "")
    return _text(said) or (known.licence if known else "") or rule.licence


def _text(value: str) -> str:
    return printable(value, 200)


def _picture(path: Path) -> FileReport:
    from darkroom.images import DESCRIBED, peek

    picture = peek(path, DESCRIBED)
    details: dict[str, Any] = {"width": picture.width, "height": picture.height}
    details["text"] = tuple(sorted(printable(str(key)) for key in picture.info))
    notes = ()
    if "sd-ti-embedding" in picture.info:
        notes = ("holds a textual inversion",)
    return FileReport(
        path=str(path),
        kind="picture",
        format=picture.format or "",
        bytes=path.stat().st_size,
        details=details,
        notes=notes,
    )
