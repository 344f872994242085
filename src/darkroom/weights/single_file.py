"""Single files of the LDM and SGM families: Stable Diffusion 1.x, 2.x, XL with all their parts."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from darkroom import foreign
from darkroom.config import from_dict
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import CheckpointError, ConfigError, LayoutError
from darkroom.models.autoencoder import SDXL_AUTOENCODER, Autoencoder
from darkroom.models.clip.network import Clip
from darkroom.models.clip_text import ClipTextModel
from darkroom.models.control.change import ControlNetChange
from darkroom.models.control.controlnet import ControlNet
from darkroom.models.control.t2i_adapter import T2IAdapter
from darkroom.models.dpt.network import DPT
from darkroom.models.fastsam.network import FastSAM
from darkroom.models.sam.network import Sam
from darkroom.models.unet import UNet
from darkroom.text.tokenizer import Tokenizer
from darkroom.weights import families
from darkroom.weights.assemble import assemble, release
from darkroom.weights.catalog import by_file
from darkroom.weights.configs import is_convolutional
from darkroom.weights.files import Header, read_header, read_tensors
from darkroom.weights.folder import CONFIGS, Target
from darkroom.weights.inspect import kind_of, report_of
from darkroom.weights.inspect.unopened import refusal
from darkroom.weights.layout import Layout, identify
from darkroom.weights.layouts import alone, autoencoder
from darkroom.weights.layouts import single_file as layouts
from darkroom.weights.layouts.annotators import dpt
from darkroom.weights.layouts.clip.files import load_clip
from darkroom.weights.layouts.clip.names import OPENAI_LAYOUT
from darkroom.weights.layouts.control import controlnet, t2i_adapter
from darkroom.weights.layouts.fastsam import original as fastsam
from darkroom.weights.layouts.sam import original as sam
from darkroom.weights.trained import Trained

log = logging.getLogger(__name__)
OWN = "darkroom"  # the metadata that our own files have: what the tensors do not say
UNET = "model.diffusion_model."
AVERAGED = "model_ema."
PART_MODELS = {
    "unet": UNet,
    "autoencoder": Autoencoder,
    "text": ClipTextModel,
    "text2": ClipTextModel,
    "depth": DPT,
}
PADS = {"sd1": ("<|endoftext|>",), "sd2": ("!",), "sdxl": ("<|endoftext|>", "!")}


def load_single_file(path: Path, target: Target) -> LatentDiffusion | nn.Module:
    """Read one file that holds a U-Net, an autoencoder and text towers, or an autoencoder alone.

    Raises:
        CheckpointError: the file is something else, has no family we know, or does not say what
            its network predicts.
    """
    header = read_header(path)
    if said_no := refusal(kind_of(header)):
        raise CheckpointError(f"{path}: {said_no}")
    tensors = target.wrap(read_tensors(path))
    names = list(tensors)
    try:
        if any(name.startswith(controlnet.PREFIX) for name in names):
            return _not_a_checkpoint(path, header, target)  # whatever lies beside it
        family = layouts.family_of(dict.fromkeys(names))
    except LayoutError:
        return _not_a_checkpoint(path, header, target)
    own = _own(header.metadata, path)
    family = _with_own_sizes(family, own, path)
    notes: list[str] = []
    state = dict(averaged(tensors, target.ema, notes))
    try:
        parts = layouts.read(state, family)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    missing = [p.name for p in family.parts if not p.optional and p.name not in parts]
    if missing:
        raise CheckpointError(
            f"{path}: a file of {family.name} without {' and '.join(missing)}; use a full one"
        )
    target.leave(layouts.foreign(names, family), path)
    known = target.known or by_file(path.stem)
    said = Trained(path, family.name, state, header.metadata, own, known)
    sampling = said.sampling(parts["unet"][0], target.prediction)
    tokenizers = _tokenizers(own, family.name)

    config, converted = parts["autoencoder"]
    parts["autoencoder"] = said.autoencoder(config), converted
    networks = {
        name: assemble(
            PART_MODELS[name], config, converted, target.dtype, target.device, release(tensors)
        )
        for name, (config, converted) in parts.items()
    }
    unet, vae = networks.pop("unet"), networks.pop("autoencoder")
    depth = networks.pop("depth", None)
    assert isinstance(unet, UNet)
    assert isinstance(vae, Autoencoder)
    text_encoder = families.prompt_encoder(
        family.name,
        unet.config,
        [model for model in networks.values() if isinstance(model, ClipTextModel)],
        tokenizers,
        zero_unconditional=own.get("zero_unconditional", family.name == "sdxl"),
        where=str(path),
    )
    return families.latent_diffusion(
        unet=unet,
        autoencoder=vae,
        text_encoder=text_encoder,
        sampling=sampling,
        family=own.get("family", family.name),
        name=own.get("name") or path.stem,
        settings=said.settings(sampling),
        notes=notes,
        source=target.source or str(path),
        depth=depth,
    )


WHAT_TO_DO = {
    "LoRA": "load the checkpoint it was made for, and put <lora:NAME:1> into the prompt (--lora)",
    "textual inversion": "load a checkpoint, and write the embedding's name into the prompt",
    "hypernetwork": "load the checkpoint it was made for first",
    "SAM": "it does not say its sizes; load its folder, with config.json",
    "U-Net": "it lacks the autoencoder and the text tower; use a full checkpoint",
}


def _not_a_checkpoint(path: Path, header: Header, target: Target) -> nn.Module:
    """One network alone; anything else is an error that says what the file is.

    Raises:
        CheckpointError: naming the kind, the base, and what to do with such a file.
    """
    report = report_of(header)
    own = _own(header.metadata, path)
    if "class" in own:
        return _own_network(path, own, target)
    if report.kind == "autoencoder":
        tensors = target.wrap(read_tensors(path))
        state = {name.removeprefix("first_stage_model."): tensors[name] for name in tensors}
        layout, preset = identify(state, autoencoder.LAYOUTS, alone=True)
        config, aside = layout.presets[preset], list[str]()
        if target.known is None and "xl" in path.stem.lower():
            config = SDXL_AUTOENCODER  # of the same shapes, at another scale
        converted = layout.convert(state, config, aside)
        target.leave(aside, path)
        return assemble(
            Autoencoder, config, converted, target.dtype, target.device, release(tensors)
        )
    if report.kind in CHANGES:
        return _change(path, target)
    if report.kind == "CLIP":
        return load_clip(path, target)
    row = alone.row_of(report.kind, report.layout)
    if row is not None:
        if report.licence in COPYLEFT:
            log.warning("%s: %s", path.name, COPYLEFT[report.licence])
        entry = "model" if header.root == "ema" and not target.ema else None
        tensors = target.wrap(read_tensors(path, entry=entry))
        aside = []
        try:
            config, converted = alone.read(tensors, row, aside)
            target.leave(aside, path)
            return assemble(
                row.layout.model,
                config,
                converted,
                target.dtype,
                target.device,
                release(tensors),
            )
        except LayoutError as error:
            raise LayoutError(f"{path}: {error}") from None
    base = f" for {report.base}" if report.base else ""
    advice = WHAT_TO_DO.get(report.kind, "a checkpoint holds U-Net, autoencoder and text tower")
    kind = "file of no known kind" if report.kind == "unknown" else report.kind
    raise CheckpointError(f"{path}: a {kind}{base}, not a checkpoint; {advice}")


@dataclass(frozen=True)
class Alone:
    """How one network is written into a file of its own."""

    layout: Callable[[Any], Layout[Any]]
    prefix: str = ""


ALONE: Mapping[type[nn.Module], Alone] = {
    Autoencoder: Alone(lambda _: autoencoder.LDM),
    Clip: Alone(lambda _: OPENAI_LAYOUT),
    ControlNet: Alone(
        lambda config: controlnet.LDM_SD1 if is_convolutional(config.unet) else controlnet.LDM,
        controlnet.PREFIX,
    ),
    DPT: Alone(lambda _: dpt.MIDAS),
    Sam: Alone(lambda _: sam.ORIGINAL),
    FastSAM: Alone(lambda _: fastsam.ORIGINAL),
    T2IAdapter: Alone(lambda _: t2i_adapter.ORIGINAL),
}


def _own_network(path: Path, own: Mapping[str, Any], target: Target) -> nn.Module:
    """A network that Darkroom wrote, which says its sizes.

    Raises:
        CheckpointError: they are none, or of a network that comes in no file.
    """
    known = {model.__name__: model for model in ALONE}
    model = known.get(str(own["class"]))
    if model is None:
        raise CheckpointError(
            f"{path}: holds a {own['class']!r:.40}; expected one of {', '.join(known)}"
        )
    row, tensors = ALONE[model], target.wrap(read_tensors(path))
    try:
        config = from_dict(CONFIGS[model], own.get("config", {}), f"{path}: config")
        state = {name.removeprefix(row.prefix): tensors[name] for name in tensors}
        aside: list[str] = []
        converted = row.layout(config).convert(state, config, aside)
        target.leave(aside, path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    return assemble(model, config, converted, target.dtype, target.device, release(tensors))


COPYLEFT = {  # licences of weights that bind those who use them; said when they are loaded
    "AGPL-3.0": "these weights are licensed AGPL-3.0 (Darkroom is not); mind its terms where you "
    "pass them on, or serve what uses them"
}
CHANGES = ("Control-LoRA", "ControlNet difference")


def _change(path: Path, target: Target) -> ControlNetChange:
    """A control network that waits for its base.

    Raises:
        LayoutError: the file has other tensors than such a network.
    """
    tensors = read_tensors(path)
    try:
        config, converted = controlnet.change(tensors)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    except (KeyError, IndexError, ValueError) as error:
        raise LayoutError(f"{path}: no control network: {error}") from None
    added = controlnet.is_difference(tensors)
    net = ControlNetChange(config, converted, added)
    return net.to(target.device, target.dtype).eval()


def averaged(tensors: Mapping[str, Tensor], wanted: bool, notes: list[str]) -> Mapping[str, Tensor]:
    """The tensors, the U-Net's replaced by their moving averages where they are there and wanted.

    LDM keeps the average of ``diffusion_model.a.b`` as ``model_ema.diffusion_modelab``.
    """
    averages = {
        name: AVERAGED + name.removeprefix("model.").replace(".", "")
        for name in tensors
        if name.startswith(UNET)
    }
    found = {name: other for name, other in averages.items() if other in tensors}
    if not found:
        return {name: tensors[name] for name in tensors}
    if not wanted:
        notes.append("the file's averaged weights (EMA) are left aside, as asked")
        return {name: tensors[name] for name in tensors}
    notes.append("the averaged weights (EMA) are used; ema=False takes the others")
    return {name: tensors[found.get(name, name)] for name in tensors}


def _own(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if OWN not in metadata:
        return {}
    own = foreign.parse_json(metadata[OWN], f"{path}: its {OWN!r} metadata", CheckpointError)
    if not isinstance(own, dict):
        raise CheckpointError(f"{path}: its {OWN!r} metadata is damaged; download it again")
    return dict(families.check_own(own, f"{path}: its {OWN!r} metadata"))


def _with_own_sizes(family: layouts.Family, own: Mapping[str, Any], path: Path) -> layouts.Family:
    """The family, its parts of the sizes that the file's metadata tells."""
    sizes = own.get("configs", {})

    def sized(part: layouts.Part) -> layouts.Part:
        if part.name not in sizes:
            return part
        kind = CONFIGS[PART_MODELS[part.name]]
        config = from_dict(kind, sizes[part.name], f"{path}: {part.name}")
        own = tuple(replace(layout, presets={"own": config}) for layout in part.layouts)
        return replace(part, layouts=own)

    try:
        return replace(family, parts=tuple(sized(part) for part in family.parts))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _tokenizers(own: Mapping[str, Any], family: str) -> list[Tokenizer]:
    if "tokenizers" in own:
        try:
            return [_tokenizer(data) for data in own["tokenizers"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the tokenizers in its metadata are damaged: {error}") from None
    return [Tokenizer.built_in(pad) for pad in PADS.get(family, ("!",))]


def _tokenizer(data: Mapping[str, Any]) -> Tokenizer:
    if "vocab" not in data:
        return Tokenizer.built_in(data["pad"])
    return Tokenizer(
        data["vocab"],
        [f"{a} {b}" for a, b in data["merges"]],
        bos=data["bos"],
        eos=data["eos"],
        pad=data["pad"],
        max_length=data["max_length"],
    )
