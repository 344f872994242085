"""Control networks as the ControlNet extension of A1111 says them, in its three forms."""

import re
from collections.abc import Mapping
from typing import Any

from darkroom.generation.metadata.chunks import number, whole
from darkroom.generation.metadata.params import UsedAnnotator, UsedControl

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
GUESSING = "ControlNet is more important"  # acts on the prompt's side alone, as guess mode
_KINDS = {row[0]: kind for kind, row in ANNOTATORS.items()}
_UNIT = re.compile(r"controlnet (\d{1,3})", re.ASCII)
_FLAT = re.compile(r"controlnet(?:-(\d{1,3}))? (\D.*)", re.ASCII)
_PART = re.compile(r"([A-Za-z/ ]{1,40}+): (\([^()]{0,200}+\)|[^,]*+)(?:, |\Z)")
_HASH = re.compile(r" \[[0-9a-fA-F]{4,64}\]\Z")
_OLD: Mapping[str, str] = {  # names of the extension's forms before its version 1.1.400
    "preprocessor": "module",
    "starting step": "guidance start",
    "ending step": "guidance end",
    "guidance strength": "guidance end",
    "preprocessor parameters": "preprocessor params",
}


def unit(used: UsedControl) -> str:
    """As the extension says it; it takes neither commas nor colons in a value."""
    drew = used.annotator
    module, *names = ANNOTATORS.get(drew.kind, (drew.kind,)) if drew else ("none",)
    options = drew.options if drew else {}
    if drew and drew.network and module == "scribble_xdog":
        module, names = "scribble_hed", []
    name = re.sub(r"\.(safetensors|pth|ckpt|pt|bin)$", "", re.split(r"[/\\]", used.net)[-1])
    fields: dict[str, Any] = {
        "Module": module,
        "Model": re.sub("[,:]", "_", name) or "None",
        "Weight": plain(used.weight),
        "Resize Mode": "Crop and Resize",
        "Processor Res": options.get("resolution"),
        **{
            key: plain(options[name])
            for key, name in zip(THRESHOLDS, names, strict=False)
            if name in options
        },
        "Guidance Start": plain(used.start),
        "Guidance End": plain(used.end),
        "Pixel Perfect": "resolution" not in options,
        "Control Mode": GUESSING if used.guess else "Balanced",
    }
    return ", ".join(f"{key}: {value}" for key, value in fields.items() if value is not None)


def controls(fields: Mapping[str, str]) -> dict[str, UsedControl | None]:
    """The control of each key that speaks of one; further keys of the same unit have None.

    Args:
        fields: of a whole text, by names in lower case.
    """
    units: dict[int, dict[str, str]] = {}
    owners: dict[str, int] = {}
    for key, text in fields.items():
        if match := _UNIT.fullmatch(key):
            number = int(match[1])
            units[number] = {name.strip().lower(): value for name, value in _PART.findall(text)}
        elif match := _FLAT.fullmatch(key):
            number = int(match[1] or 0)
            units.setdefault(number, {})[match[2]] = text
        else:
            continue
        owners[key] = number
    found: dict[str, UsedControl | None] = dict.fromkeys(owners)
    for number, said in sorted(units.items()):
        said = {_OLD.get(name, name): value for name, value in said.items()}
        first = next(key for key, owner in owners.items() if owner == number)
        if "model" in said and said.get("enabled", "True").lower() == "true":
            found[first] = _control(said)
    return found


def _control(said: Mapping[str, str]) -> UsedControl:
    module = said.get("module", "none")
    kind = _KINDS.get(module, module)
    names = ANNOTATORS.get(kind, ())[1:]
    params = [part.strip() for part in said.get("preprocessor params", "").strip("()").split(",")]
    resolution, *thresholds = (*params, "", "", "")[:3]
    thresholds = [said.get(key.lower(), old) for key, old in zip(THRESHOLDS, thresholds,
                                                                 strict=True)]  # fmt: skip
    options: dict[str, Any] = {
        name: value
        for name, text in zip(names, thresholds, strict=False)
        if (value := number(text)) is not None
    }
    if kind in ANNOTATORS and kind != "canny" and said.get("pixel perfect", "").lower() != "true":
        size = whole(said.get("processor res", resolution)) or 0
        options |= {"resolution": size} if size > 0 else {}
    start, end = said.get("guidance start", "0"), said.get("guidance end", "1")
    if "starting/ending" in said:
        start, _, end = said["starting/ending"].strip("()").partition(",")
    model = said["model"].strip()
    return UsedControl(
        net="" if model == "None" else _HASH.sub("", model),
        weight=_number_or(said.get("weight"), 1.0),
        start=_number_or(start, 0.0),
        end=_number_or(end, 1.0),
        guess=said.get("control mode") == GUESSING,
        annotator=None if module.lower() == "none" else UsedAnnotator(kind=kind, options=options),
    )


def plain(value: float) -> str:
    """A number as people write it: 7, not 7.0."""
    return repr(int(value)) if float(value).is_integer() else repr(float(value))


def _number_or(text: str | None, otherwise: float) -> float:
    found = number(text)
    return otherwise if found is None else found
