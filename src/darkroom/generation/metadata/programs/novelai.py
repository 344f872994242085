"""NovelAI's pictures: JSON in the chunk ``Comment``, beside ``Software`` and ``Description``.

Its models are not public, so another one must be named, and the picture is another one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from darkroom.errors import ConfigError
from darkroom.generation.metadata.chunks import (
    described,
    mapping,
    number,
    shown,
    text_in,
    unsaid,
    whole,
)
from darkroom.generation.metadata.methods import of_novelai
from darkroom.generation.metadata.params import Origin, Params, SourceImage
from darkroom.generation.metadata.programs.wording import of_novelai as worded

PROGRAM = "NovelAI"
PLAIN = ("PromptGenerateRequest", "NativeGenerate", "Img2ImgRequest", "")
CHANGES = (  # fields that change the picture, and are not read
    "sm", "sm_dyn", "dynamic_thresholding", "cfg_rescale_schedule", "skip_cfg_above_sigma",
    "lora_unet_weights", "lora_clip_weights", "reference_strength", "controlnet_model",
    "reference_strength_multiple", "extra_noise_seed", "noise", "prefer_brownian",
    "skip_cfg_below_sigma",
)  # fmt: skip


def read(texts: Mapping[str, str]) -> Params | None:
    """The parameters in NovelAI's chunks; None when there are none.

    Raises:
        ConfigError: the picture was made from a part of another one.
    """
    data = mapping(texts.get("Comment", ""))
    if texts.get("Software") != PROGRAM and not ("uc" in data and "sampler" in data):
        return None
    request = text_in(data, "request_type")
    if request not in PLAIN or not text_in(data, "sampler"):
        what = f"a request {shown(request, 40)!r}" if request else "none that is read"
        raise ConfigError(
            f"{PROGRAM} drew the picture, and Darkroom cannot draw it again: {what}; it holds "
            f"{described(texts)}; give a PROMPT and flags instead"
        )
    method = of_novelai(text_in(data, "sampler"), text_in(data, "noise_schedule"))
    questions = {**method.questions, "model": "its model is NovelAI's own"}
    steps, seed = whole(data.get("steps")) or None, whole(data.get("seed"))
    scale = number(data.get("scale"))
    height, width = whole(data.get("height")) or 0, whole(data.get("width")) or 0
    questions |= unsaid(
        steps=steps, seed=seed, guidance=scale, size=True if height and width else None
    )
    strength = number(data.get("strength")) if request == "Img2ImgRequest" else None
    negative = worded(text_in(data, "uc"))
    return Params(
        prompt=worded(text_in(data, "prompt") or texts.get("Description", "")),
        negative=negative or None,
        seeds=(seed or 0,),
        steps=steps or 0,
        sampler=method.sampler,
        spacing=method.spacing,
        options=method.options,
        size=(height, width),
        guidance=1.0 if scale is None else scale,
        rescale=number(data.get("cfg_rescale")) or 0.0,
        image=SourceImage(sha256="", strength=min(strength, 1.0)) if strength else None,
        origin=Origin(program=PROGRAM, missing=tuple(_missing(data, texts)), questions=questions),
    )


def _missing(data: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    yield f"its model ({shown(texts.get('Source', 'not said'), 40)})"
    yield "the noise of its GPU"
    for name in CHANGES:
        value = data.get(name)
        if value not in (None, False, 0, 0.0, "", [], {}):
            yield (
                name if value is True or isinstance(value, list) else f"{name}: {shown(value, 40)}"
            )
    if number(data.get("uncond_scale")) not in (None, 1.0):
        yield f"uncond_scale: {shown(data['uncond_scale'], 40)}"
    captions = data.get("v4_prompt")
    caption = captions.get("caption") if isinstance(captions, dict) else None
    if isinstance(caption, dict) and caption.get("char_captions"):
        yield "the prompts of its characters"
