"""ComfyUI's pictures: the graph that ran, in the chunk ``prompt``, and its editor's ``workflow``.

A plain graph is followed from its sampler upwards: loader, LoRAs, texts, an empty latent. What is
not plain is refused with the name of the node.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.errors import ConfigError
from darkroom.generation.metadata.chunks import listed, mapping, number, shown, stem, whole
from darkroom.generation.metadata.methods import Method, of_k
from darkroom.generation.metadata.params import Origin, Params, SourceImage, UsedSizes
from darkroom.generation.metadata.programs.wording import is_weighted, of_comfyui
from darkroom.sampling.table import TABLE

PROGRAM = "ComfyUI"
SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
SAVERS = ("SaveImage", "PreviewImage", "SaveImageWebsocket", "Image Save", "SaveAnimatedWEBP")
DECODERS = ("VAEDecode", "VAEDecodeTiled")
DEEPEST = 200  # nodes in a row


def read(texts: Mapping[str, str]) -> Params | None:
    """The parameters in ComfyUI's chunks; None when there are none.

    Raises:
        ConfigError: the graph is no plain one, or only its editor's form is there.
    """
    data = mapping(texts.get("prompt", ""))
    nodes = {
        str(name): Node(str(name), node["class_type"], node["inputs"])
        for name, node in data.items()
        if isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    }
    if nodes:
        return Graph(nodes).params()
    editor = mapping(texts.get("workflow", "")).get("nodes")
    if isinstance(editor, list):
        kinds = [node["type"] for node in editor if isinstance(node, dict) and "type" in node]
        raise ConfigError(
            f"{PROGRAM} drew the picture; its chunk 'workflow' holds its editor's {_counted(kinds)}"
            ", but not the graph that ran (chunk 'prompt'): give a PROMPT and flags instead"
        )
    return None


@dataclass(frozen=True)
class Node:
    """One node of a graph. An input is a value, or a link: a node's name and a number."""

    name: str
    kind: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    """What hangs on a loader: the checkpoint, its LoRAs by node, and changes of the model."""

    checkpoint: str
    loras: Mapping[str, tuple[str, float]] = field(default_factory=dict)  # name, weight
    clip_skip: int = 0
    rescale: float = 0.0


class Graph:
    """A graph that ran."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self.missing: list[str] = []

    def params(self) -> Params:
        """What the graph says, in our words.

        Raises:
            ConfigError: it is no plain graph.
        """
        sampler = self._sampler()
        said = self._settings(sampler)
        scale = self._number(said["cfg"], "cfg")
        positive, negative = self._node(said["positive"]), said["negative"]
        model = self._model(said["model"])
        prompt, sizes, clip = self._text(positive)
        questions = dict(said["method"].questions)
        against: str | None = None
        if scale != 1 and negative is not None:
            against, _, other = self._text(self._node(negative))
            if other != clip:
                raise self._refused("its two texts are read by different text encoders")
        if scale < 1:
            questions["guidance"] = (
                f"its cfg {scale:g} follows the negative prompt, which Darkroom does not do"
            )
        if clip.checkpoint != model.checkpoint:
            raise self._refused("the text encoder is another checkpoint's")
        prompt += _tags(model, clip)
        steps = self._whole(said["steps"], "steps")
        image, size, steps = self._latent(self._node(said["latent"]), steps, said["denoise"])
        method: Method = said["method"]
        timesteps = method.timesteps(steps)
        steps = len(timesteps) or steps
        self._output(sampler)
        if method.sampler and TABLE[method.sampler].stochastic:
            self.missing.append("the noise that its sampler adds at each step")
        if is_weighted(prompt, against):
            self.missing.append("its way of weighting words")
        return Params(
            prompt=prompt,
            negative=against,
            seeds=(self._whole(said["seed"], "seed"),),
            steps=steps,
            sampler=method.sampler,
            spacing=method.spacing,
            timesteps=timesteps,
            options=method.options,
            size=size,
            guidance=scale,
            rescale=model.rescale,
            clip_skip=clip.clip_skip,
            image=image,
            sizes=sizes,
            model=stem(model.checkpoint),
            origin=Origin(program=PROGRAM, missing=tuple(self.missing), questions=questions),
        )

    def _sampler(self) -> Node:
        found = [
            node
            for node in self.nodes.values()
            if node.kind in SAMPLERS
            or ("sampler" in node.kind.lower() and {"seed", "noise_seed"} & set(node.inputs))
        ]
        if len(found) != 1:
            many = f"it has {len(found)} samplers" if found else "it has no sampler"
            raise self._refused(many)
        if found[0].kind not in SAMPLERS:
            raise self._refused(f"the sampler {shown(found[0].kind)!r} is unknown")
        return found[0]

    def _settings(self, node: Node) -> dict[str, Any]:
        """What the four kinds of sampler say, under one name for each."""
        inputs = node.inputs
        said = {
            "model": inputs.get("model"),
            "positive": inputs.get("positive"),
            "negative": inputs.get("negative"),
            "cfg": inputs.get("cfg"),
            "latent": inputs.get("latent_image"),
            "seed": inputs.get("seed", inputs.get("noise_seed")),
            "steps": inputs.get("steps"),
            "denoise": inputs.get("denoise", 1),
        }
        if node.kind == "KSamplerAdvanced":
            last = whole(inputs.get("end_at_step", 10_000)) or 0
            partly = whole(inputs.get("start_at_step", 0)) or last < (whole(said["steps"]) or 0)
            if partly or str(inputs.get("return_with_leftover_noise", "disable")) != "disable":
                raise self._refused("its sampler takes a part of the steps alone")
        if str(inputs.get("add_noise", "enable")).lower() not in ("enable", "true"):
            raise self._refused("its sampler adds no noise")
        if node.kind.startswith("KSampler"):
            name = self._word(inputs.get("sampler_name"), "sampler_name")
            said["method"] = of_k(name, self._word(inputs.get("scheduler"), "scheduler"))
            return said
        if node.kind == "SamplerCustomAdvanced":
            guider = self._node(inputs.get("guider"), "CFGGuider", "BasicGuider")
            said["seed"] = self._node(inputs.get("noise"), "RandomNoise").inputs.get("noise_seed")
            said["model"] = guider.inputs.get("model")
            said["positive"] = guider.inputs.get("positive", guider.inputs.get("conditioning"))
            said["negative"] = guider.inputs.get("negative")
            said["cfg"] = guider.inputs.get("cfg", 1)
        chosen = self._node(inputs.get("sampler"), "KSamplerSelect")
        levels = self._node(
            inputs.get("sigmas"), "BasicScheduler", "KarrasScheduler", "SDTurboScheduler"
        )
        scheduler = levels.inputs.get("scheduler")
        if levels.kind == "KarrasScheduler":
            scheduler = "karras"
            self.missing.append("the limits of its Karras levels")
        if levels.kind == "SDTurboScheduler":
            scheduler = "turbo" if levels.inputs.get("steps") == 1 else levels.kind
        name = self._word(chosen.inputs.get("sampler_name"), "sampler_name")
        said["method"] = of_k(name, self._word(scheduler, "scheduler"))
        said["steps"] = levels.inputs.get("steps")
        said["denoise"] = levels.inputs.get("denoise", 1)
        return said

    def _text(self, node: Node) -> tuple[str, UsedSizes | None, Loaded]:
        """The prompt of a conditioning, what XL is told of sizes, and what reads it."""
        if node.kind == "CLIPTextEncode":
            text = self._word(node.inputs.get("text"), "text")
            return of_comfyui(text), None, self._clip(node.inputs.get("clip"))
        if node.kind != "CLIPTextEncodeSDXL":
            raise self._refused(f"the node {shown(node.kind)!r} lies before the sampler")
        first, second = (self._word(node.inputs.get(name), name) for name in ("text_l", "text_g"))
        if first != second:
            raise self._refused("its two text encoders of SDXL are told different texts")
        pairs = [
            (self._whole(node.inputs.get(a), a), self._whole(node.inputs.get(b), b))
            for a, b in (("height", "width"), ("crop_h", "crop_w"),
                         ("target_height", "target_width"))
        ]  # fmt: skip
        sizes = UsedSizes(original=pairs[0], crop=pairs[1], target=pairs[2])
        return of_comfyui(first), sizes, self._clip(node.inputs.get("clip"))

    def _clip(self, link: Any) -> Loaded:
        """The checkpoint, LoRAs and last layer of a text encoder."""
        loras: dict[str, tuple[str, float]] = {}
        skip: int | None = None
        for _ in range(DEEPEST):
            node = self._node(link)
            if node.kind == "CLIPSetLastLayer":
                layer = number(node.inputs.get("stop_at_clip_layer"))
                skip = int(-(layer or -1)) - 1 if skip is None else skip
            elif node.kind == "LoraLoader":
                loras[node.name] = self._lora(node, "strength_clip")
            else:
                return Loaded(self._checkpoint(node), loras, max(skip or 0, 0))
            link = node.inputs.get("clip")
        raise self._refused("its nodes lie in a circle")

    def _model(self, link: Any) -> Loaded:
        """The checkpoint, LoRAs and changes of a network."""
        loras: dict[str, tuple[str, float]] = {}
        rescale = 0.0
        for _ in range(DEEPEST):
            node = self._node(link)
            if node.kind in ("LoraLoader", "LoraLoaderModelOnly"):
                loras[node.name] = self._lora(node, "strength_model")
            elif node.kind == "RescaleCFG":
                rescale = self._number(node.inputs.get("multiplier"), "multiplier")
            elif node.kind == "ModelSamplingDiscrete" and (
                node.inputs.get("sampling") in ("eps", "lcm") and not node.inputs.get("zsnr")
            ):
                pass  # as it is
            else:
                return Loaded(self._checkpoint(node), loras, rescale=rescale)
            link = node.inputs.get("model")
        raise self._refused("its nodes lie in a circle")

    def _lora(self, node: Node, strength: str) -> tuple[str, float]:
        name = stem(self._word(node.inputs.get("lora_name"), "lora_name"))
        if set(name) & set("<>:"):
            raise self._refused(f"the name of the LoRA {shown(name)!r} has one of < > :")
        return name, self._number(node.inputs.get(strength), strength)

    def _checkpoint(self, node: Node) -> str:
        if node.kind not in ("CheckpointLoaderSimple", "CheckpointLoader"):
            raise self._refused(f"the node {shown(node.kind)!r} lies before the sampler")
        return self._word(node.inputs.get("ckpt_name"), "ckpt_name")

    def _latent(
        self, node: Node, steps: int, denoise: Any
    ) -> tuple[SourceImage | None, tuple[int, int], int]:
        """What the run starts from, its size, and our number of steps."""
        strength = self._number(denoise, "denoise")
        if node.kind == "EmptyLatentImage" and strength >= 1:
            batch = self._whole(node.inputs.get("batch_size", 1), "batch_size")
            if batch > 1:
                self.missing.append(f"which picture of a batch of {batch} this is")
            sides = (self._whole(node.inputs.get(name), name) for name in ("height", "width"))
            height, width = sides
            return None, (height, width), steps
        if node.kind == "VAEEncode" and strength > 0:
            self._node(node.inputs.get("pixels"), "LoadImage")
            # it takes ``steps`` of steps / denoise; we are told the whole, and how much of it
            total = max(int(steps / strength), steps) if strength > 1e-4 else steps
            part = min((steps + 0.5) / total, 1.0)
            return SourceImage(sha256="", strength=round(part, 6)), (0, 0), total
        if node.kind in ("EmptyLatentImage", "VAEEncode"):
            raise self._refused(f"its sampler starts with denoise {strength:g}")
        raise self._refused(f"its sampler starts from the node {shown(node.kind)!r}")

    def _output(self, sampler: Node) -> None:
        """Look at what follows the sampler: it must be decoded and saved, no more."""
        later: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for value in node.inputs.values():
                if _is_link(value):
                    later.setdefault(str(value[0]), []).append(node)
        reached, names = [sampler], {sampler.name}
        while reached:
            for node in later.get(reached.pop().name, ()):
                if node.name in names:
                    continue
                if node.kind not in (*DECODERS, *SAVERS):
                    raise self._refused(f"the node {shown(node.kind)!r} follows the sampler")
                if node.kind in DECODERS:
                    vae = self._node(node.inputs.get("vae"))
                    if vae.kind == "VAELoader":
                        self.missing.append(f"VAE: {shown(vae.inputs.get('vae_name'), 40)}")
                names.add(node.name)
                reached.append(node)

    def _node(self, link: Any, *kinds: str) -> Node:
        """The node that an input is linked with, of one of these kinds; reroutes are passed."""
        for _ in range(DEEPEST):
            node = self.nodes.get(str(link[0])) if _is_link(link) else None
            if node is None:
                raise self._refused("an input of it leads nowhere")
            if "reroute" not in node.kind.lower():
                if kinds and node.kind not in kinds:
                    raise self._refused(f"the node {shown(node.kind)!r} lies before the sampler")
                return node
            link = next((v for v in node.inputs.values() if _is_link(v)), None)
        raise self._refused("its nodes lie in a circle")

    def _value(self, value: Any, what: str) -> Any:
        """A value that an input holds, or that a node with nothing else in it hands it."""
        for _ in range(DEEPEST):
            if not _is_link(value):
                return value
            node = self._node(value)
            inputs = [v for v in node.inputs.values() if isinstance(v, str | int | float | list)]
            if len(inputs) != 1:
                raise self._refused(f"{what} comes from the node {shown(node.kind)!r}")
            value = inputs[0]
        raise self._refused("its nodes lie in a circle")

    def _word(self, value: Any, what: str) -> str:
        found = self._value(value, what)
        if not isinstance(found, str):
            raise self._refused(f"its {what} is no text")
        return found

    def _number(self, value: Any, what: str) -> float:
        found = number(self._value(value, what))
        if found is None:
            raise self._refused(f"its {what} is no number")
        return found

    def _whole(self, value: Any, what: str) -> int:
        found = whole(self._value(value, what))
        if found is None:
            raise self._refused(f"its {what} is no whole number")
        return found

    def _refused(self, why: str) -> ConfigError:
        kinds = _counted([node.kind for node in self.nodes.values()])
        return ConfigError(
            f"{PROGRAM} drew the picture with a graph that Darkroom cannot follow: {why}; its "
            f"chunk 'prompt' holds {kinds}; give a PROMPT and flags instead"
        )


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str | int)
        and isinstance(value[1], int)
    )


def _tags(model: Loaded, clip: Loaded) -> str:
    """The LoRAs as the prompt asks for them, in the order from the checkpoint on."""
    names = dict.fromkeys(
        reversed([*model.loras, *(n for n in clip.loras if n not in model.loras)])
    )
    tags = []
    for node in names:
        name, unet = model.loras.get(node, (clip.loras.get(node, ("", 0.0))[0], 0.0))
        tags.append(f"<lora:{name}:{clip.loras.get(node, ('', 0.0))[1]:g}:{unet:g}>")
    return "".join(tags)


def _counted(kinds: list[Any]) -> str:
    counts = Counter(shown(kind, 40) for kind in kinds).most_common()
    words = (f"{kind} x{count}" if count > 1 else kind for kind, count in counts)
    return f"{len(kinds)} nodes ({listed(words)})"
