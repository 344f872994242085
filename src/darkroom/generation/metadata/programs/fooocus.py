"""Fooocus' pictures: JSON in the chunk ``parameters``, also of programs that are like it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.errors import ConfigError
from darkroom.generation.metadata.chunks import (
    THEIRS,
    described,
    mapping,
    number,
    shown,
    stem,
    text_in,
    unsaid,
    whole,
)
from darkroom.generation.metadata.methods import of_k
from darkroom.generation.metadata.params import Origin, Params, UsedRefiner
from darkroom.generation.metadata.programs.wording import is_weighted, of_comfyui
from darkroom.sampling.table import TABLE

PROGRAM = "Fooocus"
OTHERS = {  # fields by which other programs' JSON is known
    "sui_image_params": "SwarmUI",
    "software": "",  # its value is the name
    "app": "",
    "models": "Draw Things",
}
_PAIR = re.compile(r"\D{0,3}(\d{1,6})\D{1,9}(\d{1,6})\D{0,3}", re.ASCII)
SILENT = frozenset((  # fields that are read, or change nothing
    "base_model", "base_model_hash", "clip_skip", "full_negative_prompt", "full_prompt",
    "guidance_scale", "loras", "metadata_scheme", "negative_prompt", "performance", "prompt",
    "prompt_expansion", "refiner_model", "refiner_model_hash", "refiner_switch", "resolution",
    "sampler", "scheduler", "seed", "steps", "styles", "version", "created_by", "width", "height",
))  # fmt: skip
STEPS = {"Speed": 30, "Quality": 60, "Extreme Speed": 8, "Lightning": 4, "Hyper-SD": 4}
_LORA = re.compile(r"(.{1,255}) : (-?\d{1,4}(?:\.\d{1,8})?)", re.ASCII)


def read(texts: Mapping[str, str]) -> Params | None:
    """The parameters in Fooocus' JSON; None when the chunk holds none.

    Raises:
        ConfigError: it is the JSON of another program, which is named.
    """
    data = mapping(texts.get(THEIRS, "")) or mapping(texts.get("comment", ""))
    if not data:
        return None
    # the program before 2.2 called its fields as its log does: "Base Model"
    data = {str(name).lower().replace(" ", "_"): value for name, value in data.items()}
    if "base_model" not in data or "prompt" not in data:
        known = (label or text_in(data, key) for key, label in OTHERS.items() if key in data)
        program = next(known, "")
        raise ConfigError(
            f"{shown(program, 40) or 'another program'} drew the picture, whose text Darkroom does "
            f"not read; it holds {described(texts)}; give a PROMPT and flags instead"
        )
    method = of_k(text_in(data, "sampler"), text_in(data, "scheduler"))
    questions = dict(method.questions)
    prompt = _prompt(data.get("full_prompt")) or of_comfyui(text_in(data, "prompt"))
    negative = _prompt(data.get("full_negative_prompt")) or of_comfyui(
        text_in(data, "negative_prompt")
    )
    pace = text_in(data, "performance")
    steps, seed = whole(data.get("steps")) or STEPS.get(pace), whole(data.get("seed"))
    scale, size = number(data.get("guidance_scale")), _size(data)
    model = stem(text_in(data, "base_model"))
    questions |= unsaid(
        steps=steps,
        seed=seed,
        guidance=scale,
        size=size if all(size) else None,
        model=model or None,
    )
    timesteps = method.timesteps(steps or 0)
    start = number(data.get("refiner_switch"))
    refiner = stem(text_in(data, "refiner_model"))
    refined = refiner not in ("", "None") and start is not None and 0 < start < 1
    return Params(
        prompt=prompt + "".join(_tags(data)),
        negative=negative if scale is None or scale > 1 else None,
        seeds=(seed or 0,),
        steps=len(timesteps) or steps or 0,
        sampler=method.sampler,
        spacing=method.spacing,
        timesteps=timesteps,
        options=method.options,
        size=size,
        guidance=1.0 if scale is None else scale,
        clip_skip=max((whole(data.get("clip_skip")) or 0) - 1, 0),
        refiner=UsedRefiner(name=refiner, start=start or 0.8) if refined else None,
        model=model,
        origin=Origin(
            program=PROGRAM,
            missing=tuple(_missing(data, prompt, negative, method.sampler)),
            questions=questions,
        ),
    )


def _prompt(texts: Any) -> str:
    """The prompt with its styles: each text is encoded by itself."""
    found = [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
    return " BREAK ".join(map(of_comfyui, found))


def _tags(data: Mapping[str, Any]) -> Iterator[str]:
    loras = data.get("loras")
    if isinstance(loras, list):
        pairs = [(row[0], row[1]) for row in loras if isinstance(row, list) and len(row) > 1]
    else:
        said = (v for k, v in data.items() if k.startswith(("lora_combined_", "lora_")))
        pairs = [m.groups() for v in said if isinstance(v, str) and (m := _LORA.fullmatch(v))]
    for name, weight in pairs:
        name, weight = stem(str(name)), number(weight)
        if name in ("", "None") or weight is None:
            continue
        if set(name) & set("<>:"):
            raise ConfigError(
                f"{PROGRAM} drew the picture with the LoRA {shown(name)!r}, whose name has one of "
                "< > :; give a PROMPT and flags instead"
            )
        yield f"<lora:{name}:{weight:g}>"


def _missing(data: Mapping[str, Any], prompt: str, negative: str, sampler: str) -> Iterator[str]:
    for name, value in data.items():
        idle = value in (None, "", "None", False, 0) or name in SILENT or name.startswith("lora_")
        if not idle and not (name == "vae" and value == "Default (model)"):
            yield f"{shown(name, 40)}: {shown(value, 40)}"
    if text_in(data, "performance") not in ("", "Speed", "Quality"):
        yield f"performance: {shown(data['performance'], 40)}"  # with a LoRA of its own
    if not data.get("full_prompt") and data.get("styles") not in (None, "", "[]", []):
        yield f"styles: {shown(data['styles'], 40)}"
    if sampler and TABLE[sampler].stochastic:
        yield "the noise that its sampler adds at each step"
    if is_weighted(prompt, negative):
        yield "its way of weighting words"


def _size(data: Mapping[str, Any]) -> tuple[int, int]:
    said = data.get("resolution")
    match = _PAIR.fullmatch(said if isinstance(said, str) else json.dumps(said)[:40])
    if match:
        return int(match[2]), int(match[1])
    height, width = whole(data.get("height")), whole(data.get("width"))
    return (height, width) if height and width else (0, 0)
