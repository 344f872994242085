"""InvokeAI's pictures: ``invokeai_metadata`` (from version 3 on), ``sd-metadata`` and ``Dream``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.errors import ConfigError
from darkroom.generation.metadata.chunks import (
    described,
    mapping,
    number,
    shown,
    stem,
    text_in,
    unsaid,
    whole,
)
from darkroom.generation.metadata.methods import Method, of_dream, of_invoke
from darkroom.generation.metadata.params import (
    Origin,
    Params,
    SourceImage,
    UsedControl,
    UsedRefiner,
)
from darkroom.generation.metadata.programs.wording import is_weighted
from darkroom.generation.metadata.programs.wording import of_invoke as worded

PROGRAM = "InvokeAI"
CHUNKS = ("invokeai_metadata", "sd-metadata", "Dream")
_DREAM = re.compile(r'\s*+"((?:[^"\\]++|\\.)*+)"(.*+)', re.DOTALL)
_SWITCH = re.compile(r"(?:^|\s)-(\w)\s*+([^\s-][^\s]*+)?")
_NEGATIVE = re.compile(r"\[([^\[\]]*+)\]")  # in the prompt itself, before version 3
PLAIN = ("txt2img", "sdxl_txt2img", "sd_txt2img", "")
FROM_IMAGE = ("img2img", "sdxl_img2img", "sd_img2img")
# Fields of the flat form that change nothing here, or that are read.
SILENT = frozenset((
    "app_version", "controlnets", "t2iAdapters", "generation_mode", "created_by",
    "positive_prompt", "negative_prompt", "width",
    "height", "seed", "rand_device", "cfg_scale", "cfg_rescale_multiplier", "steps", "scheduler",
    "clip_skip", "model", "loras", "strength", "init_image", "refiner_model", "refiner_start",
    "positive_style_prompt", "negative_style_prompt", "canvas_v2_metadata", "workflow",
    "refiner_cfg_scale", "refiner_steps", "refiner_scheduler", "imageName",
))  # fmt: skip


def read(texts: Mapping[str, str]) -> Params | None:
    """The parameters in InvokeAI's chunks; None when there are none.

    Raises:
        ConfigError: they are of a kind that Darkroom cannot draw again.
    """
    if data := mapping(texts.get("invokeai_metadata", "")):
        return _flat(data, texts)
    if data := mapping(texts.get("sd-metadata", "")):
        image = data.get("image")
        if isinstance(image, dict):
            return _older(image, text_in(data, "model_weights"))
    if match := _DREAM.fullmatch(texts.get("Dream", "")):
        return _dream(match[1], match[2])
    if any(name in texts for name in CHUNKS):
        raise _refused("its metadata says neither prompt nor steps", texts)
    return None


def _flat(data: Mapping[str, Any], texts: Mapping[str, str]) -> Params:
    mode = text_in(data, "generation_mode")
    if mode not in (*PLAIN, *FROM_IMAGE):
        raise _refused(f"it was made by {shown(mode, 40)!r}", texts)
    name = text_in(data, "scheduler")
    if "positive_prompt" not in data or not name:
        raise _refused("it names no prompt and scheduler", texts)
    if any(data.get(name) for name in ("ipAdapters", "ref_images")):
        raise _refused("it follows other pictures by an IP-Adapter", texts)
    missing = [*_changes(data)]
    tags = []
    for lora in _list(data.get("loras")):
        called = stem(_name(lora.get("model") or lora.get("lora")))
        if not called or set(called) & set("<>:"):
            raise _refused(f"the name of the LoRA {shown(called)!r} has one of < > :", texts)
        tags.append(f"<lora:{called}:{_or(lora.get('weight'), 0.75):g}>")
    refiner = _name(data.get("refiner_model"))
    start = _or(data.get("refiner_start"), 0.8)
    strength = number(data.get("strength")) if mode in FROM_IMAGE else None
    if str(data.get("rand_device", "cpu")) != "cpu":
        missing.append(f"the noise of {shown(data['rand_device'], 20)}")
    return _params(
        (text_in(data, "positive_prompt"), text_in(data, "negative_prompt")),
        of_invoke(name),
        data,
        missing,
        "".join(tags),
        size=_size(data),
        rescale=_or(data.get("cfg_rescale_multiplier"), 0.0),
        clip_skip=whole(data.get("clip_skip")) or 0,
        controls=tuple(
            map(_control, (*_list(data.get("controlnets")), *_list(data.get("t2iAdapters"))))
        ),
        image=SourceImage(sha256="", strength=min(strength, 1.0)) if strength else None,
        refiner=UsedRefiner(name=refiner, start=start) if refiner and 0 < start < 1 else None,
        model=stem(_name(data.get("model"))),
    )


def _control(used: Mapping[str, Any]) -> UsedControl:
    weight = used.get("control_weight", used.get("weight"))
    return UsedControl(
        net=stem(_name(used.get("control_model") or used.get("t2i_adapter_model"))),
        weight=_or(weight, 1.0),
        start=_or(used.get("begin_step_percent"), 0.0),
        end=_or(used.get("end_step_percent"), 1.0),
        guess=used.get("control_mode") in ("more_control", "unbalanced"),
    )


def _changes(data: Mapping[str, Any]) -> Iterator[str]:
    """What the flat form says that is not read: one word for each field that does something."""
    for name, value in data.items():
        idle = value in (None, False, "", [], {}, 0) or name in SILENT
        if not idle and not (name == "vae" and isinstance(value, str) and value == "default"):
            known = _name(value) if isinstance(value, dict) else value
            listed = isinstance(value, list | dict) and not (isinstance(value, dict) and known)
            yield shown(name, 40) + ("" if listed or value is True else f": {shown(known, 40)}")
    for side in ("positive", "negative"):
        style = text_in(data, f"{side}_style_prompt")
        if style not in ("", text_in(data, f"{side}_prompt")):
            yield f"{side}_style_prompt"


def _older(image: Mapping[str, Any], model: str) -> Params:
    prompt = image.get("prompt")
    parts = prompt if isinstance(prompt, list) else [{"prompt": prompt}]
    texts = [text_in(part, "prompt") for part in parts if isinstance(part, dict)]
    weighted = len(texts) > 1
    fields = ("variations", "postprocessing", "seamless", "hires_fix", "perlin", "threshold",
              "facetool_strength", "upscale")  # fmt: skip
    missing = [name for name in fields if image.get(name) not in (None, False, 0, [], "", {})]
    missing += ["the weights of its several prompts"] if weighted else []
    strength = number(image.get("strength")) if image.get("type") == "img2img" else None
    method = of_dream(text_in(image, "sampler"), whole(image.get("steps")) or 0)
    return _params(
        _parted(", ".join(texts)),
        method,
        image,
        missing,
        size=_size(image),
        image=SourceImage(sha256="", strength=min(strength, 1.0)) if strength else None,
        model=model,
    )


def _dream(prompt: str, switches: str) -> Params:
    said = {match[1]: match[2] or "" for match in _SWITCH.finditer(switches)}
    names = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "cfg_scale"}
    data = {name: said[letter] for letter, name in names.items() if letter in said}
    missing = [f"-{letter} {shown(value, 40)}".strip() for letter, value in said.items()
               if letter not in (*names, "A", "f", "I", "n", "b", "g")]  # fmt: skip
    strength = number(said.get("f")) if "I" in said else None
    return _params(
        _parted(re.sub(r"\\(.)", r"\1", prompt)),
        of_dream(said.get("A", "k_lms"), whole(data.get("steps")) or 0),
        data,
        missing,
        size=_size(data),
        image=SourceImage(sha256="", strength=min(strength, 1.0)) if strength else None,
    )


def _parted(text: str) -> tuple[str, str]:
    """What stands in square brackets is the negative prompt."""
    negative = ", ".join(part.strip() for part in _NEGATIVE.findall(text) if part.strip())
    return " ".join(_NEGATIVE.sub(" ", text).split()), negative


def _params(
    texts: tuple[str, str],
    method: Method,
    data: Mapping[str, Any],
    missing: list[str],
    tags: str = "",
    **more: Any,
) -> Params:
    prompt, negative = (worded(text) for text in texts)
    questions = dict(method.questions)
    if prompt is None or negative is None:
        questions["prompt"] = "its prompt blends, joins or swaps prompts in a way of its own"
    if is_weighted(prompt, negative):
        missing = [*missing, "its way of weighting words"]
    steps, seed = whole(data.get("steps")) or None, whole(data.get("seed"))
    scale = number(data.get("cfg_scale"))
    questions |= unsaid(
        steps=steps,
        seed=seed,
        guidance=scale,
        model=more.get("model") or None,
        size=more["size"] if all(more["size"]) or more.get("image") else None,
    )
    return Params(
        prompt=(texts[0] if prompt is None else prompt) + tags,
        negative=negative or None,
        seeds=(seed or 0,),
        steps=steps or 0,
        sampler=method.sampler,
        spacing=method.spacing,
        options=method.options,
        guidance=1.0 if scale is None else scale,
        origin=Origin(program=PROGRAM, missing=tuple(missing), questions=questions),
        **more,
    )


def _size(data: Mapping[str, Any]) -> tuple[int, int]:
    height, width = whole(data.get("height")), whole(data.get("width"))
    return (height, width) if height and width else (0, 0)


def _name(model: Any) -> str:
    """Of a model, which is a text, or has its name in one of several fields, or one level down."""
    for _ in range(2):
        if isinstance(model, str):
            return model
        if not isinstance(model, dict):
            return ""
        if found := text_in(model, "name", "model_name"):
            return found
        model = model.get("model")
    return ""


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _or(value: Any, otherwise: float) -> float:
    found = number(value)
    return otherwise if found is None else found


def _refused(why: str, texts: Mapping[str, str]) -> ConfigError:
    own = {name: texts[name] for name in CHUNKS if name in texts}
    return ConfigError(
        f"{PROGRAM} drew the picture, and Darkroom cannot draw it again: {why}; it holds "
        f"{described(own)}; give a PROMPT and flags instead"
    )
