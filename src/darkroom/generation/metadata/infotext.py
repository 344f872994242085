"""The ``parameters`` text of AUTOMATIC1111's web UI, which most programs read.

The grammar: the prompt; a line that starts with ``Negative prompt:``; a line of ``Key: value``
pairs, at least three, that starts with ``Steps:``; extensions add lines after it.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

from darkroom.errors import ConfigError
from darkroom.generation.metadata.chunks import number, parsed, shown, stem, unsaid, whole
from darkroom.generation.metadata.controlnet import controls, plain, unit
from darkroom.generation.metadata.methods import SPACINGS, WRITTEN, of_a1111
from darkroom.generation.metadata.pairs import pairs, quote
from darkroom.generation.metadata.params import (
    Origin,
    Params,
    SourceImage,
    UsedInpaint,
    UsedNoise,
    UsedRefiner,
)
from darkroom.sampling.table import TABLE

_NEGATIVE = "Negative prompt:"
_STEPS = re.compile(r"\s*+Steps:\s*+\d++\s*+(?:,|\Z)", re.IGNORECASE)
_TEMPLATE = re.compile(r"^(?:Negative )?Template:", re.MULTILINE)  # of dynamic prompts
_SIZE = re.compile(r"(\d{1,6})\s?[x\u00d7]\s?(\d{1,6})", re.ASCII)
_MODEL_END = re.compile(r"(?:\.(?:safetensors|ckpt))?(?: \[[0-9a-fA-F]{6,64}\])?\Z")
_HASH = re.compile(r"\([0-9a-fA-F]{4,64}\)\Z")  # of an old hypernetwork's name
MAIN = frozenset(  # keys that a line of parameters has, whatever it starts with
    ("steps", "sampler", "cfg scale", "seed", "size", "model", "model hash", "schedule type")
)
# Keys that change nothing in the picture, or name what is named elsewhere.
SILENT = frozenset((
    "model hash", "lora hashes", "ti hashes", "hashes", "version", "user", "batch size",
    "batch pos", "vae hash", "app", "backend", "created date", "civitai metadata",
    "template", "negative template", "init image hash", "parser", "pipeline",
    "software", "hypernet hash", "time taken", "steps", "seed", "size", "model", "sampler",
    "cfg scale", "schedule type", "scheduler", "clip skip", "original prompt",
    "original negative prompt", "raw prompt", "raw negative prompt", "styles", "performance",
    "refiner hash", "lora weights",
))  # fmt: skip
# Values that a key has where it does nothing.
IDLE: Mapping[str, tuple[str, ...]] = {
    "rng": ("cpu",),
    "vae": ("automatic",),
    "emphasis": ("original",),
    "mask mode": ("inpaint masked",),
    "masked content": ("original",),
    "conditional mask weight": ("1", "1.0"),
    "noise multiplier": ("1", "1.0"),
    "image cfg scale": ("1.5",),
    "eta ddim": ("0", "0.0"),
    "noise schedule": ("default",),
    "operations": ("txt2img",),
}


def write(params: Params) -> str:
    """The text for ``params``."""
    height, width = params.size
    inpaint = params.inpaint
    source = params.image or inpaint or params.depth
    fields: dict[str, Any] = {
        "Steps": params.steps,
        "Sampler": WRITTEN.get(params.sampler, params.sampler),
        "Schedule type": _schedule(params.spacing),
        "Timesteps": ", ".join(map(str, params.timesteps)) or None,
        "CFG scale": plain(params.guidance),
        "Seed": params.seed,
        "Size": f"{width}x{height}",
        "Model": params.model or None,
        "Denoising strength": plain(source.strength) if source and source.strength else None,
        "Mask blur": inpaint.feather if inpaint else None,
        "Inpaint area": "Only masked" if inpaint and inpaint.only_masked else None,
        "Masked area padding": inpaint.padding if inpaint and inpaint.only_masked else None,
        "CFG Rescale": plain(params.rescale) if params.rescale else None,
        "Clip skip": params.clip_skip + 1 if params.clip_skip else None,  # 1 is the last layer
        "Emphasis": {"no_norm": "No norm", "none": "None"}.get(params.weighting),
        "Refiner": params.refiner.name if params.refiner else None,
        "Refiner switch at": plain(params.refiner.start) if params.refiner else None,
        "TI hashes": ", ".join(f"{e.name}: {e.sha256[:12]}" for e in params.embeddings if e.sha256)
        or None,
        **{f"ControlNet {i}": unit(used) for i, used in enumerate(params.controls)},
        **_noise(params.noise),
        "Batch size": len(params.seeds) if len(params.seeds) > 1 else None,
        "Batch pos": params.index if len(params.seeds) > 1 else None,
        "Version": f"darkroom {params.darkroom}",
    }
    pairs = ", ".join(
        f"{key}: {quote(value)}" for key, value in fields.items() if value is not None
    )
    negative = f"\n{_NEGATIVE} {params.negative}" if params.negative else ""
    return f"{params.prompt}{negative}\n{pairs}".strip()


def read(text: str) -> Params:
    """The parameters in a text written by Darkroom, the web UI or a program like it.

    Raises:
        ConfigError: when the text has no line of parameters.
    """
    head, tail = _parted(text.replace("\r\n", "\n").strip())
    prompt, negative = _prompts(head)
    named: dict[str, str] = {}  # keys as they are written
    fields: dict[str, str] = {}
    for key, value in pairs(tail):
        if key.lower() not in fields:
            named[key.lower()] = key
            fields[key.lower()] = value
    return _Reading(named, fields).params(prompt, negative)


class _Reading:
    """From the pairs of one text to parameters; ``used`` are the keys that were understood."""

    def __init__(self, named: Mapping[str, str], fields: Mapping[str, str]) -> None:
        self.named, self.fields = named, fields
        self.used: set[str] = set(SILENT)
        self.hires = any(key.startswith(("hires", "first pass size")) for key in fields)

    def params(self, prompt: str, negative: str | None) -> Params:
        fields, questions = self.fields, dict[str, str]()
        program = _program(fields)
        ours = program == "Darkroom"
        method = of_a1111(
            fields.get("sampler", ""), fields.get("schedule type") or fields.get("scheduler", "")
        )
        steps, seed = whole(fields.get("steps")) or None, whole(fields.get("seed"))
        scale, size = number(fields.get("cfg scale")), _size(fields.get("size", ""))
        strength = 0.0 if self.hires else number(self._taken("denoising strength")) or 0.0
        inpaint = self._inpaint(strength)
        found = controls(fields)
        self.used |= found.keys()
        if program != "SD.Next" and not ours and scale is not None and scale < 1:
            questions["guidance"] = (
                f"its CFG scale {scale:g} follows the negative prompt, which Darkroom does not do"
            )
        if not ours:
            questions |= unsaid(
                steps=steps,
                seed=seed,
                guidance=scale,
                size=size if any(size) or strength else None,
                model=fields.get("model") or None,
            )
        options = dict(method.options)
        self._options(method.sampler, options)
        rescale = number(self._taken("cfg rescale")) or 0.0
        refiner, noise = self._refiner(), self._noise()
        return Params(
            prompt=prompt + self._tags(),
            negative=negative,
            seeds=(seed or 0,),
            steps=steps or 0,
            sampler=method.sampler,
            spacing=method.spacing,
            timesteps=_timesteps(self._taken("timesteps") or "", steps or 0),
            options={} if ours else options,
            size=size,
            guidance=1.0 if scale is None else scale,
            rescale=rescale,
            clip_skip=max((whole(fields.get("clip skip")) or 0) - 1, 0),
            weighting=self._weighting(),
            image=SourceImage(sha256="", strength=strength) if strength and not inpaint else None,
            inpaint=inpaint,
            controls=tuple(control for control in found.values() if control),
            refiner=refiner,
            noise=noise,
            model=fields.get("model", ""),
            origin=None
            if ours and not method.questions
            else Origin(
                program=program,
                missing=() if ours else tuple(self._missing(method.sampler)),
                questions={**method.questions, **questions},
            ),
        )

    def _taken(self, key: str) -> str | None:
        self.used.add(key)
        return self.fields.get(key)

    def _inpaint(self, strength: float) -> UsedInpaint | None:
        if "mask blur" not in self.fields or self.hires:
            return None
        return UsedInpaint(
            strength=min(strength or 1.0, 1.0),
            feather=min(whole(self._taken("mask blur")) or 0, 256),
            only_masked=self._taken("inpaint area") == "Only masked",
            padding=whole(self._taken("masked area padding")) or 0,
        )

    def _refiner(self) -> UsedRefiner | None:
        name = self._taken("refiner") or "None"
        start = number(self._taken("refiner switch at"))
        start = 0.8 if start is None else start
        if name == "None" or not 0 < start < 1:
            return None
        return UsedRefiner(name=_MODEL_END.sub("", name), start=start)

    def _weighting(self) -> str:
        """How words in brackets weigh; A1111 names its own way "Original"."""
        found = {"no norm": "no_norm", "none": "none"}.get(self.fields.get("emphasis", "").lower())
        self.used.add("emphasis" if found else "")
        return found or "a1111"

    def _noise(self) -> UsedNoise | None:
        """Whose noise. A1111 draws it on the GPU unless it says otherwise, NVIDIA's most often."""
        source = {"cpu": "cpu", "gpu": "cuda", "nv": "cuda"}.get(self._rng().lower())
        variation = whole(self.fields.get("variation seed"))
        strength = number(self.fields.get("variation seed strength"))
        later = whole(self.fields.get("ensd"))
        self.used.add("rng" if source else "")
        if variation is not None and strength is not None and 0 <= strength <= 1:
            self.used |= {"variation seed", "variation seed strength"}
        else:
            variation, strength = None, 0.0
        self.used.add("ensd" if later is not None else "")
        used = UsedNoise(
            source=source or "cpu",
            variation=variation if strength else None,
            strength=strength,
            later=later or 0,
        )
        return None if used == UsedNoise() else used

    def _rng(self) -> str:
        return self.fields.get("rng") or "GPU"

    def _options(self, sampler: str, options: dict[str, Any]) -> None:
        """What the samplers of both take."""
        order = whole(self.fields.get("unipc order"))
        if sampler == "unipc" and order and order <= 3:
            options["order"] = order
            self.used.add("unipc order")
        variant = self.fields.get("unipc variant")
        if sampler == "unipc" and variant in ("bh1", "bh2"):
            options["scale"] = variant
            self.used.add("unipc variant")
        keys = ("eta ddim", "eta") if sampler == "ddim" else ("eta",)
        found = [eta for key in keys if (eta := number(self.fields.get(key))) is not None]
        if sampler and TABLE[sampler].eta and found and 0 <= found[0] <= 1:
            options["eta"] = found[0]
            self.used |= {"eta", "eta ddim"}

    def _missing(self, sampler: str) -> Iterator[str]:
        """What is left: said as the text says it, many settings of one kind in one word."""
        left = [key for key in self.fields if key not in self.used and not self._is_idle(key)]
        kinds: dict[str, int] = {}
        if (resources := self._resources()) is not None:
            left = [key for key in left if key != "civitai resources"]
            yield from resources
        for key in left:
            kinds[_kind(key)] = kinds.get(_kind(key), 0) + 1
        told = set[str]()
        for key in left:
            kind = _kind(key)
            if kinds[kind] < 4 or kind == "hires":
                value = self.fields[key]
                said = "" if value.lower() == "true" else f": {shown(value, 40)}"
                yield shown(self.named[key], 40) + said
            elif kind not in told:
                told.add(kind)
                yield f"{shown(re.split('[ _]', self.named[key])[0], 40)} ({kinds[kind]} settings)"
        if sampler.endswith("_sde"):
            yield "the Brownian noise of its sampler"

    def _resources(self) -> list[str] | None:
        """What Civitai's generator loads by number, beside the checkpoint; None = not readable."""
        found = parsed(self.fields.get("civitai resources", "[]"))
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            return None
        return [
            f"Civitai's {shown(one.get('type'), 20)} {shown(one.get('modelVersionId'), 20)}"
            for one in found
            if one.get("type") != "checkpoint"
        ]

    def _tags(self) -> str:
        """LoRAs that Fooocus, and hypernetworks that old versions, name beside the prompt."""
        hypernet = _HASH.sub("", self._taken("hypernet") or "")
        strength = number(self._taken("hypernet strength") or "1")
        said = (part.rpartition(":") for part in self.fields.get("lora weights", "").split(","))
        named = [(stem(name.strip()), number(weight)) for name, _, weight in said]
        tags = [
            f"<lora:{name}:{weight:g}>"
            for name, weight in named
            if weight is not None and not set(name) & set("<>:")
        ]
        if hypernet not in ("", "None") and strength is not None and not set(hypernet) & set("<>:"):
            tags.append(f"<hypernet:{hypernet}:{strength:g}>")
        return "".join(tags)

    def _is_idle(self, key: str) -> bool:
        value = self.fields[key].strip().lower()
        return value in ("", "none", "false") or value in IDLE.get(key, ())


def _program(fields: Mapping[str, str]) -> str:
    version = fields.get("version", "").strip()
    if version.startswith("darkroom"):
        return "Darkroom"
    if "app" in fields:
        return shown(fields["app"], 40)
    if re.match(r"f\d|neo|classic", version):
        return "Forge"
    if version.startswith(("Fooocus", "ComfyUI", "Easy Diffusion")):
        return shown(version, 40)
    return "A1111"


def _parted(text: str) -> tuple[str, str]:
    """The prompts, and everything from the line of parameters on."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for i in reversed(range(len(lines))):
        if _STEPS.match(lines[i]) and len(list(islice(pairs(text, starts[i]), 3))) == 3:
            tail = text[starts[i] :]
            end = _TEMPLATE.search(tail)
            return text[: max(starts[i] - 1, 0)], tail[: end.start()] if end else tail
    for i in reversed(range(len(lines))):
        keys = {key.lower() for key, _ in pairs(lines[i])}
        if len(keys) >= 3 and len(keys & MAIN) >= 2:
            return text[: max(starts[i] - 1, 0)], text[starts[i] :]
    raise ConfigError(
        "no generation parameters: expected a line like 'Steps: 20, Sampler: Euler, Seed: 1, ...'"
    )


def _prompts(head: str) -> tuple[str, str | None]:
    prompt, negative = [], []
    current = prompt
    for line in map(str.strip, head.split("\n")):
        if line.startswith(_NEGATIVE):
            current, line = negative, line.removeprefix(_NEGATIVE).strip()
        current.append(line)
    return "\n".join(prompt), "\n".join(negative) or None


def _noise(used: UsedNoise | None) -> dict[str, Any]:
    used = used or UsedNoise()
    varied = used.variation is not None and used.strength > 0
    return {
        "RNG": "NV" if used.source == "cuda" else "CPU",
        "Variation seed": used.variation if varied else None,
        "Variation seed strength": plain(used.strength) if varied else None,
        "ENSD": used.later or None,
    }


def _kind(key: str) -> str:
    return re.split("[ _]", key)[0]


def _timesteps(text: str, steps: int) -> tuple[int, ...]:
    """As many as steps, decreasing; else none."""
    parts = text.replace(" ", "").split(",")
    if len(parts) != steps or not all(re.fullmatch(r"[0-9]{1,5}", part) for part in parts):
        return ()
    found = tuple(map(int, parts))
    return found if all(a > b for a, b in pairwise(found)) else ()


def _schedule(spacing: str) -> str:
    return SPACINGS[spacing][0] if spacing in SPACINGS else spacing or "Automatic"


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text.strip())
    return (int(match[2]), int(match[1])) if match else (0, 0)
