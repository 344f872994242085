"""The ``parameters`` text of AUTOMATIC1111's web UI, which most programs read.

The grammar: the prompt; a line that starts with ``Negative prompt:``; last a line of ``Key: value``
pairs, at least three, separated by commas; a value with a comma, colon or newline is a JSON string.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from darkroom.errors import ConfigError
from darkroom.generation.metadata.params import (
    Params,
    SourceImage,
    UsedAnnotator,
    UsedControl,
    UsedInpaint,
)
from darkroom.sampling.table import TABLE

SAMPLERS: Mapping[str, str] = {name: next(iter(row.a1111), name) for name, row in TABLE.items()}
SPACINGS: Mapping[str, str] = {
    "karras": "Karras",
    "exponential": "Exponential",
    "leading": "DDIM",
    "trailing": "Simple",
    "linspace": "Uniform",
    "beta": "Beta",
    "sgm_uniform": "SGM Uniform",
}
ANNOTATORS: Mapping[str, tuple[str, ...]] = {  # by kind: what the extension calls it; A and B
    "canny": ("canny", "low", "high"),
    "depth": ("depth_midas",),
    "normal": ("normal_midas", "background"),
    "scribble": ("scribble_xdog", "threshold"),  # without a network
    "hed": ("softedge_hed",),
    "mlsd": ("mlsd", "score", "length"),
    "seg": ("seg_ufade20k",),
    "openpose": ("openpose",),
}
THRESHOLDS = ("Threshold A", "Threshold B")
_KINDS = {row[0]: kind for kind, row in ANNOTATORS.items()}
_SAMPLER_NAMES = {theirs.lower(): ours for ours, theirs in SAMPLERS.items()}
_SPACING_NAMES = {theirs.lower(): ours for ours, theirs in SPACINGS.items()} | {
    "normal": "linspace",
}
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_UNIT = re.compile(r"ControlNet (\d{1,3})", re.ASCII)
_NEGATIVE = "Negative prompt:"
GUESSING = "ControlNet is more important"  # acts on the prompt's side alone, as guess mode


def write(params: Params) -> str:
    """The text for ``params``."""
    height, width = params.size
    inpaint = params.inpaint
    source = params.image or inpaint or params.depth
    fields: dict[str, Any] = {
        "Steps": params.steps,
        "Sampler": SAMPLERS.get(params.sampler, params.sampler),
        "Schedule type": SPACINGS.get(params.spacing, params.spacing or "Automatic"),
        "CFG scale": _number(params.guidance),
        "Seed": params.seed,
        "Size": f"{width}x{height}",
        "Model": params.model or None,
        "Denoising strength": _number(source.strength) if source and source.strength else None,
        "Mask blur": inpaint.feather if inpaint else None,
        "Inpaint area": "Only masked" if inpaint and inpaint.only_masked else None,
        "Masked area padding": inpaint.padding if inpaint and inpaint.only_masked else None,
        "CFG Rescale": _number(params.rescale) if params.rescale else None,
        "Clip skip": params.clip_skip + 1 if params.clip_skip else None,  # 1 is the last layer
        "Refiner": params.refiner.name if params.refiner else None,
        "Refiner switch at": _number(params.refiner.start) if params.refiner else None,
        "TI hashes": ", ".join(f"{e.name}: {e.sha256[:12]}" for e in params.embeddings if e.sha256)
        or None,
        **{f"ControlNet {i}": _unit(used) for i, used in enumerate(params.controls)},
        "RNG": "CPU",
        "Batch size": len(params.seeds) if len(params.seeds) > 1 else None,
        "Batch pos": params.index if len(params.seeds) > 1 else None,
        "Version": f"darkroom {params.darkroom}",
    }
    pairs = ", ".join(
        f"{key}: {_quote(value)}" for key, value in fields.items() if value is not None
    )
    negative = f"\n{_NEGATIVE} {params.negative}" if params.negative else ""
    return f"{params.prompt}{negative}\n{pairs}".strip()


def read(text: str) -> Params:
    """The parameters in a text written by Darkroom, the web UI or a program like it.

    Raises:
        ConfigError: when the text has no line of parameters.
    """
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < 3:
        raise ConfigError("no generation parameters: expected a last line like 'Steps: 20, ...'")
    prompt, negative = [], []
    current = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            current, line = negative, line.removeprefix(_NEGATIVE).strip()
        current.append(line)
    fields = {key: _unquote(value) for key, value in pairs}
    sampler, spacing = _sampler(fields.get("Sampler", ""), fields.get("Schedule type", ""))
    strength = _float(fields.get("Denoising strength"))
    inpaint = "Mask blur" in fields
    return Params(
        prompt="\n".join(prompt),
        negative="\n".join(negative) or None,
        seeds=(_int(fields.get("Seed")),),
        steps=_int(fields.get("Steps")),
        sampler=sampler,
        spacing=spacing,
        size=_size(fields.get("Size", "")),
        guidance=_float(fields.get("CFG scale")) or 1.0,
        rescale=_float(fields.get("CFG Rescale")) or 0.0,
        clip_skip=max(_int(fields.get("Clip skip")) - 1, 0),
        image=SourceImage(sha256="", strength=strength) if strength and not inpaint else None,
        inpaint=_inpaint(fields, strength) if inpaint else None,
        controls=_controls(fields),
        model=fields.get("Model", ""),
    )


def _inpaint(fields: Mapping[str, str], strength: float) -> UsedInpaint:
    return UsedInpaint(
        strength=strength or 1.0,
        feather=_int(fields["Mask blur"]),
        only_masked=fields.get("Inpaint area") == "Only masked",
        padding=_int(fields.get("Masked area padding")),
    )


def _unit(used: UsedControl) -> str:
    """As the ControlNet extension says it; it takes neither commas nor colons in a value."""
    drew = used.annotator
    module, *names = ANNOTATORS.get(drew.kind, (drew.kind,)) if drew else ("none",)
    options = drew.options if drew else {}
    if drew and drew.network and module == "scribble_xdog":
        module, names = "scribble_hed", []
    name = re.sub(r"\.(safetensors|pth|ckpt|pt|bin)$", "", re.split(r"[/\\]", used.net)[-1])
    fields: dict[str, Any] = {
        "Module": module,
        "Model": re.sub("[,:]", "_", name) or "None",
        "Weight": _number(used.weight),
        "Resize Mode": "Crop and Resize",
        "Processor Res": options.get("resolution"),
        **{
            key: _number(options[name])
            for key, name in zip(THRESHOLDS, names, strict=False)
            if name in options
        },
        "Guidance Start": _number(used.start),
        "Guidance End": _number(used.end),
        "Pixel Perfect": "resolution" not in options,
        "Control Mode": GUESSING if used.guess else "Balanced",
    }
    return ", ".join(f"{key}: {value}" for key, value in fields.items() if value is not None)


def _controls(fields: Mapping[str, str]) -> tuple[UsedControl, ...]:
    found: list[UsedControl] = []
    units = {int(m[1]): fields[m[0]] for key in fields if (m := _UNIT.fullmatch(key))}
    for _, text in sorted(units.items()):
        said = dict(part.split(": ", 1) for part in text.split(", ") if ": " in part)
        module = said.get("Module", "none")
        if "Model" not in said:  # of an extension before 2023
            continue
        kind = _KINDS.get(module, module)
        names = ANNOTATORS.get(kind, ())[1:]
        options: dict[str, Any] = {
            name: _float(said[key])
            for key, name in zip(THRESHOLDS, names, strict=False)
            if key in said
        }
        if kind in ANNOTATORS and kind != "canny" and said.get("Pixel Perfect") != "True":
            resolution = _int(said.get("Processor Res"))
            options |= {"resolution": resolution} if resolution > 0 else {}
        drew = UsedAnnotator(kind=kind, options=options)
        found.append(
            UsedControl(
                net="" if said["Model"] == "None" else re.sub(r" \[\w+\]$", "", said["Model"]),
                weight=_float(said.get("Weight", "1")),
                start=_float(said.get("Guidance Start")),
                end=_float(said.get("Guidance End", "1")),
                guess=said.get("Control Mode") == GUESSING,
                annotator=None if module.lower() == "none" else drew,
            )
        )
    return tuple(found)


def _sampler(name: str, schedule: str) -> tuple[str, str]:
    """Our names; old texts say both in one, as in "DPM++ 2M Karras"."""
    name, schedule = name.strip().lower(), schedule.strip().lower()
    for suffix in ("karras", "exponential"):
        if name.endswith(f" {suffix}"):
            name, schedule = name.removesuffix(suffix).strip(), schedule or suffix
    return _SAMPLER_NAMES.get(name, ""), _SPACING_NAMES.get(schedule, "")


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _number(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() else repr(float(value))


def _float(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _int(text: str | None) -> int:
    return int(text) if text and re.fullmatch(r"-?\d{1,20}", text) else 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.strip())
    return (int(match[2]), int(match[1])) if match else (0, 0)
