"""Folders: a diffusers pipeline with its parts, or one model at the root."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.catalog import lookup
from darkroom.weights.files import Header, read_header
from darkroom.weights.inspect import COSXL, PLAYGROUND, FileReport, dtype_of, report_of
from darkroom.weights.inspect.bases import BY_INPUTS, BY_TEXT_WIDTH
from darkroom.weights.inspect.unopened import kind_of_class, refusal
from darkroom.weights.locate import parts_elsewhere
from darkroom.weights.readers.faults import Fault, naming, printable
from darkroom.weights.readers.index import INDEX_SUFFIX

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
LONGEST_JSON = 4 << 20
OWN = "darkroom."  # how the classes of our own folders begin
KINDS = {"Sam": "SAM"}  # what is called otherwise than its class
PREDICTIONS = {"epsilon": "noise", "v_prediction": "velocity", "sample": "sample"}


def inspect_folder(folder: Path) -> FileReport:
    """The report on a folder.

    Raises:
        CheckpointError: it holds no model, or a file in it cannot be used.
    """
    if (folder / "model_index.json").exists():  # whatever it is: the reader says what is wrong
        return _pipeline(folder)
    chosen = weights_of(folder)
    if chosen is None:
        with naming(folder):
            raise Fault("holds no model: no model_index.json, no weights", "name a file in it")
    report = report_of(read_header(chosen))
    config = _json(folder / "config.json")
    class_name = config.get("_class_name") or config.get("architectures")
    class_name = class_name[0] if isinstance(class_name, list) and class_name else class_name
    changes: dict[str, Any] = {"path": str(folder), "layout": f"{report.layout} folder".strip()}
    if type(class_name) is str and class_name:
        changes["details"] = {"class": printable(class_name)} | dict(report.details)
        if report.kind == "unknown" and class_name.startswith(OWN):  # in our names, as we wrote it
            kind = printable(class_name.removeprefix(OWN))
            changes |= {"kind": KINDS.get(kind, kind), "layout": "Darkroom folder"}
            changes |= {"unknown": (), "unknown_count": 0, "notes": ()}
        if report.kind == "unknown" and (kind := kind_of_class((class_name,))):
            changes |= {"kind": kind, "unknown": (), "unknown_count": 0}
            changes["notes"] = (refusal(kind),)
    return replace(report, **changes)


def weights_of(folder: Path) -> Path | None:
    """The weights in a folder: an index before single files, safetensors before pickles."""
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file())
    plain = [path for path in files if path.name.endswith(INDEX_SUFFIX)]
    for suffix in WEIGHTS:
        plain += [path for path in files if path.suffix == suffix and "-of-" not in path.name]
    plain.sort(key=lambda p: (_preference(p), "fp16" in p.name or "non_ema" in p.name))
    return plain[0] if plain else None


def _preference(path: Path) -> int:
    name = path.name.removesuffix(INDEX_SUFFIX)
    return next((i for i, suffix in enumerate(WEIGHTS) if name.endswith(suffix)), len(WEIGHTS))


def _pipeline(folder: Path) -> FileReport:
    index = _json(folder / "model_index.json")
    parts: dict[str, str] = {}
    headers: dict[str, Header] = {}
    elsewhere = parts_elsewhere(index, folder)
    for name, value in index.items():
        if name.startswith("_") or type(value) is not list or len(value) != 2:
            continue
        if value[1] is None or not name.isidentifier():
            continue
        parts[name] = printable(str(value[1]))
        if (weights := weights_of(elsewhere.get(name, folder / name))) is not None:
            headers[name] = read_header(weights)
    unet = _json(folder / "unet" / "config.json")
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    width, inputs = unet.get("cross_attention_dim"), unet.get("in_channels")
    inputs = inputs if type(inputs) is int else None
    outputs = unet.get("out_channels", 4)
    outputs = outputs if type(outputs) is int else 4
    beside = inputs - outputs if inputs else 0
    if beside == outputs + 1:  # a mask and masked latents, of however many channels
        beside = 5
    known = lookup(str(index.get("_name_or_path", "")))
    kind = PREDICTIONS.get(str(scheduler.get("prediction_type", "epsilon")), "")
    edm = str(scheduler.get("_class_name", "")).startswith("EDM")
    details = {"EDM": COSXL if kind == "velocity" else PLAYGROUND} if edm else {}
    missing = [part for part in ("unet", "vae", "text_encoder") if part in parts]
    missing = [part for part in missing if part not in headers]
    others = () if "unet" in parts else parts.values()
    foreign = refusal(kind_of_class((str(index.get("_class_name", "")), *others)))
    dtypes = Counter(dtype_of(header) for header in headers.values())
    return FileReport(
        path=str(folder),
        kind="checkpoint",
        base=BY_TEXT_WIDTH.get(width, "") if type(width) is int else "",
        variant=BY_INPUTS.get(4 + beside, ""),
        layout="diffusers folder",
        format=" + ".join(sorted({header.format for header in headers.values()})),
        name=known.name if known else printable(str(index.get("_class_name", ""))),
        dtype=" + ".join(dtype for dtype, _ in dtypes.most_common(3)),
        tensors=sum(len(header.tensors) for header in headers.values()),
        parameters=sum(i.count for h in headers.values() for i in h.tensors.values()),
        bytes=sum(header.size for header in headers.values()),
        parts=parts,
        input_channels=inputs,
        prediction=kind if scheduler else "",
        prediction_source="the scheduler's config" if scheduler and kind else "",
        details=details,
        licence=known.licence if known else "",
        notes=(
            *((foreign,) if foreign else ()),
            *(f"{part} has no weights here" for part in missing),
            *(f"{part} is that of {place.parent.name}" for part, place in elsewhere.items()),
        ),
    )


def _json(path: Path) -> dict[str, Any]:
    """A config; empty where there is none.

    Raises:
        CheckpointError: it is too long, or no JSON object.
    """
    return foreign.read_object(path, CheckpointError, LONGEST_JSON) if path.exists() else {}
