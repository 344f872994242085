"""``save``: a model to a folder that diffusers opens, or to a single LDM / SGM file."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from darkroom.atomic import atomic_write, sync_folder
from darkroom.config import to_dict
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.errors import CheckpointError, ConfigError, LayoutError
from darkroom.models.autoencoder import Autoencoder
from darkroom.models.clip.network import Clip
from darkroom.models.clip.vision_transformer import VisionTransformer
from darkroom.models.clip_text import ClipTextModel
from darkroom.models.contrastive import ContrastiveModel
from darkroom.models.control.controlnet import ControlNet
from darkroom.models.control.t2i_adapter import T2IAdapter
from darkroom.models.distilbert import DistilBert
from darkroom.models.dpt.network import DPT
from darkroom.models.dual_encoder import DualEncoder
from darkroom.models.fastsam.network import FastSAM
from darkroom.models.resnet import ResNet
from darkroom.models.sam.config import VitConfig
from darkroom.models.sam.network import Sam
from darkroom.models.segmentation.unet import SegmentationUNet
from darkroom.models.segmentation.unet_resnet import SegmentationUNetResNet
from darkroom.models.tiny_autoencoder import TinyAutoencoder
from darkroom.models.unconditional_unet import UnconditionalUNet
from darkroom.models.unet import UNet
from darkroom.text.encoder import PromptEncoder, Tower
from darkroom.text.tokenizer import Tokenizer
from darkroom.weights import configs
from darkroom.weights.families import family_of
from darkroom.weights.folder import class_of
from darkroom.weights.layout import Layout
from darkroom.weights.layouts import (
    autoencoder,
    clip_text,
    contrastive,
    distilbert,
    dual_encoder,
    resnet,
    segmentation,
    single_file,
    tiny_autoencoder,
    unconditional_unet,
    unet,
)
from darkroom.weights.layouts.annotators import dpt, dpt_configs
from darkroom.weights.layouts.clip import configs as clip_configs
from darkroom.weights.layouts.clip import names as clip
from darkroom.weights.layouts.control import controlnet, t2i_adapter
from darkroom.weights.layouts.fastsam import original as fastsam
from darkroom.weights.layouts.sam import huggingface as sam
from darkroom.weights.single_file import ALONE, OWN
from darkroom.weights.trained import marks


def save(model: LatentDiffusion | PixelDiffusion | nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write a model: to a folder as diffusers writes it, or to a ``.safetensors`` single file.

    The weights keep their dtype. What is there under that name is replaced once the new one is
    complete. A part that diffusers cannot describe is written in our own format, which ``load``
    reads as well.

    Args:
        model: a ``LatentDiffusion``, or a ``PixelDiffusion`` or one network (to a folder).
        path: a folder, or a file ending with ``.safetensors``.

    Returns:
        The path.

    Raises:
        CheckpointError: the model does not fit the format, or the place is no model's folder.
        ValueError: ``model`` is nothing that can be saved.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        for file in files_of(model, path):
            write_tensors(file.path, file.tensors, file.metadata)
        return path
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(f"{path}: pickles are not written; give a name ending .safetensors")
    if not isinstance(model, LatentDiffusion | PixelDiffusion | nn.Module):
        raise ValueError(f"save takes a LatentDiffusion or a network, got {type(model).__name__}")
    with _fresh_folder(path) as folder:
        for file in files_of(model, folder):
            write_tensors(file.path, file.tensors, file.metadata)
    return path


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that is to be written."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def files_of(
    model: LatentDiffusion | PixelDiffusion | nn.Module, path: Path, *, plain: bool = False
) -> Iterator[TensorFile]:
    """The files of weights that ``save`` writes; everything else is written by and by.

    Args:
        path: a ``.safetensors`` file, or a folder that is there and empty.
        plain: of a folder: in Darkroom's own names and format.

    Raises:
        CheckpointError: the model does not fit the format.
        ValueError: it is nothing that can be saved so.
    """
    if path.suffix == ".safetensors":
        yield _file_of(model, path)
    elif isinstance(model, LatentDiffusion):
        yield from _write_pipeline(model, path, plain)
    elif isinstance(model, PixelDiffusion):
        height, width = model.settings.get("size", (None, None))
        sample = height if height == width else [height, width]
        yield from _write_network(model.unet, path, {"sample_size": sample}, plain)
        write_json(path / "scheduler_config.json", model.sampling.to_diffusers())
    else:
        yield from _write_network(model, path, None, plain)
        if isinstance(model, DPT):
            _write_view(model, path)
        elif isinstance(model, Sam) and isinstance(model.config.encoder, VitConfig):
            write_json(path / "preprocessor_config.json", sam.view_json(model.config))
        elif isinstance(model, Clip):
            write_json(path / "preprocessor_config.json", clip_configs.view_json(model.config.view))


def _write_pipeline(model: LatentDiffusion, folder: Path, plain: bool) -> Iterator[TensorFile]:
    towers = _towers(model)
    size = model.settings.get("size")
    sample = size[0] // model.autoencoder.factor if size else None
    index: dict[str, Any] = {
        "_class_name": _pipeline(model),
        "_diffusers_version": "0.36.0",
        "_darkroom": _own_words(model),
        "feature_extractor": [None, None],
        "scheduler": ["diffusers", model.sampling.to_diffusers()["_class_name"]],
    }
    encoder = _encoder(model)
    if encoder.size_channels:
        zero = encoder.zero_unconditional
        index |= {"force_zeros_for_empty_prompt": zero, "image_encoder": [None, None]}
        index |= {"requires_aesthetics_score": True} if encoder.scored else {}
        index |= {part: [None, None] for part in ("text_encoder", "tokenizer")}
    elif model.depth is None:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    extra = {"sample_size": sample} if sample else {}
    extra["addition_time_embed_dim"] = encoder.size_channels
    index["unet"] = yield from _write_network(model.unet, folder / "unet", extra, plain)
    index["vae"] = yield from _write_network(
        model.autoencoder, folder / "vae", {"sample_size": size[0]} if size else {}, plain
    )
    for number, tower in enumerate(towers, start=encoder.scored):
        ending = f"_{number + 1}" if number else ""
        index[f"text_encoder{ending}"] = yield from _write_network(
            tower.model, folder / f"text_encoder{ending}", None, plain
        )
        index[f"tokenizer{ending}"] = ["transformers", "CLIPTokenizer"]
        tower.tokenizer.save(folder / f"tokenizer{ending}")
    if isinstance(model.depth, DPT):
        index["depth_estimator"] = yield from _write_network(
            model.depth, folder / "depth_estimator", None, plain
        )
        index["feature_extractor"] = ["transformers", "DPTImageProcessor"]
        _write_view(model.depth, folder / "feature_extractor")
    write_json(folder / "scheduler" / "scheduler_config.json", model.sampling.to_diffusers())
    write_json(folder / "model_index.json", dict(sorted(index.items())))


def _write_view(network: DPT, folder: Path) -> None:
    """Write how pictures are brought to a depth network, for transformers."""
    write_json(folder / "preprocessor_config.json", dpt_configs.view_json(network.config.view))


def _pipeline(model: LatentDiffusion) -> str:
    encoder = _encoder(model)
    if encoder.scored:
        return "StableDiffusionXLImg2ImgPipeline"
    xl = "XL" if encoder.size_channels else ""
    task, latent = "", model.autoencoder.channels
    if isinstance(model.unet, UNet):  # by what it takes beside the latents: a mask, a picture, ...
        tasks = {latent + 1: "Inpaint", 1: "Depth2Img", latent: "InstructPix2Pix"}
        task = tasks.get(model.unet.config.in_channels - latent, "")
    return f"StableDiffusion{xl}{task}Pipeline"


def _own_words(model: LatentDiffusion) -> dict[str, Any]:
    settings = {k: v for k, v in model.settings.items() if k != "notes"}
    return {"family": model.family, "name": model.name, "settings": settings}


def _encoder(model: LatentDiffusion) -> PromptEncoder:
    encoder = model.text_encoder
    if not isinstance(encoder, PromptEncoder):
        raise ValueError(f"the text encoder is a {type(encoder).__name__}: only ours can be saved")
    return encoder


def _towers(model: LatentDiffusion) -> list[Tower]:
    return [tower for tower in _encoder(model).towers if isinstance(tower, Tower)]


def _write_network(
    network: nn.Module | Any, folder: Path, extra: Mapping[str, Any] | None, plain: bool
) -> Generator[TensorFile, None, list[str]]:
    """Write config.json, yield the weights; returns library and class, for model_index.json.

    Args:
        extra: keys over those of the config, where diffusers knows the class.
    """
    kind = type(network)
    if kind not in WRITERS:
        known = ", ".join(known.__name__ for known in WRITERS)
        raise ValueError(f"a {kind.__name__} cannot be saved; one of {known} can")
    writer, config = WRITERS[kind], network.config
    state = network.state_dict()
    try:
        if plain:
            raise ConfigError("asked for in our own form")
        described = writer.describe(config)
        reverted = writer.layout(config).revert(state, config)
        known = {key: value for key, value in (extra or {}).items() if key in described}
        entry = [writer.library, class_of(described)]
        description: dict[str, Any] = {**described, **known}
    except (ConfigError, LayoutError):
        entry = ["darkroom", f"darkroom.{kind.__name__}"]
        description = {"_class_name": entry[1], **to_dict(config)}
        reverted = state
    write_json(folder / "config.json", dict(sorted(description.items())))
    yield TensorFile(folder / writer.file, reverted, {"format": "pt"})
    return entry


@dataclass(frozen=True)
class Writer:
    """How one kind of network is written."""

    library: str
    file: str
    describe: Callable[[Any], dict[str, Any]]
    layout: Callable[[Any], Layout[Any]]


WEIGHTS = "diffusion_pytorch_model.safetensors"
WRITERS: Mapping[type, Writer] = {
    UNet: Writer(
        "diffusers",
        WEIGHTS,
        configs.unet_json,
        lambda config: unet.DIFFUSERS_SD1 if configs.is_convolutional(config) else unet.DIFFUSERS,
    ),
    Autoencoder: Writer(
        "diffusers", WEIGHTS, configs.autoencoder_json, lambda _: autoencoder.DIFFUSERS
    ),
    ClipTextModel: Writer(
        "transformers", "model.safetensors", configs.text_json, lambda _: clip_text.HUGGINGFACE
    ),
    Clip: Writer(
        "transformers", "model.safetensors", clip_configs.clip_json, lambda _: clip.HUGGINGFACE
    ),
    VisionTransformer: Writer(
        "transformers",
        "model.safetensors",
        clip_configs.vision_json,
        lambda _: clip.HUGGINGFACE_VISION_LAYOUT,
    ),
    TinyAutoencoder: Writer(
        "diffusers",
        WEIGHTS,
        tiny_autoencoder.tiny_autoencoder_json,
        lambda _: tiny_autoencoder.DIFFUSERS,
    ),
    UnconditionalUNet: Writer(
        "diffusers",
        WEIGHTS,
        unconditional_unet.unconditional_unet_json,
        lambda _: unconditional_unet.DIFFUSERS,
    ),
    ControlNet: Writer("diffusers", WEIGHTS, controlnet.controlnet_json, controlnet.layout_of),
    T2IAdapter: Writer(
        "diffusers", WEIGHTS, t2i_adapter.t2i_adapter_json, lambda _: t2i_adapter.DIFFUSERS
    ),
    Sam: Writer("transformers", "model.safetensors", sam.sam_json, lambda _: sam.HUGGINGFACE),
    ResNet: Writer("timm", "model.safetensors", resnet.resnet_json, lambda _: resnet.TORCHVISION),
    DPT: Writer(
        "transformers", "model.safetensors", dpt_configs.dpt_json, lambda _: dpt.TRANSFORMERS
    ),
    DistilBert: Writer(
        "transformers",
        "model.safetensors",
        distilbert.distilbert_json,
        lambda _: distilbert.TRANSFORMERS,
    ),
    ContrastiveModel: Writer(
        "darkroom", "model.safetensors", contrastive.contrastive_json, lambda _: contrastive.OWN
    ),
    SegmentationUNet: Writer(
        "darkroom",
        "model.safetensors",
        segmentation.segmentation_json,
        lambda _: segmentation.UNET,
    ),
    SegmentationUNetResNet: Writer(
        "darkroom",
        "model.safetensors",
        segmentation.segmentation_json,
        lambda _: segmentation.UNET_RESNET,
    ),
    DualEncoder: Writer(
        "darkroom", "model.safetensors", dual_encoder.dual_encoder_json, lambda _: dual_encoder.BOOK
    ),
    FastSAM: Writer(
        "darkroom", "model.safetensors", fastsam.fastsam_json, lambda _: fastsam.ORIGINAL
    ),
}


def _file_of(model: object, path: Path) -> TensorFile:
    if type(model) in ALONE:
        return _network_file(model, path)
    if not isinstance(model, LatentDiffusion):
        known = ", ".join(kind.__name__ for kind in ALONE)
        raise ValueError(
            f"a single file holds a whole model, or one of {known}; not a {type(model).__name__}"
        )
    towers = _towers(model)
    kinds = [tower.model.config for tower in towers]
    network, vae = model.unet, model.autoencoder
    if not isinstance(network, UNet) or not isinstance(vae, Autoencoder):
        raise ValueError("only Darkroom's own U-Net and autoencoder can be saved")
    family = single_file.FAMILIES[family_of(network.config, kinds)]
    networks: dict[str, Any] = {"unet": network, "autoencoder": vae}
    networks |= {} if model.depth is None else {"depth": model.depth}
    names = ("text2",) if _encoder(model).scored else ("text", "text2")
    networks |= dict(zip(names, (tower.model for tower in towers), strict=False))
    try:
        state = single_file.join(
            {name: (part.config, part.state_dict()) for name, part in networks.items()}, family
        )
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    state |= marks(model.sampling, vae.config, family.name)
    sampling = model.sampling.to_diffusers()
    own = {
        **_own_words(model),
        "configs": {name: to_dict(part.config) for name, part in networks.items()},
        "scheduler": sampling,
        "tokenizers": [_vocabulary(tower.tokenizer) for tower in towers],
        "zero_unconditional": _encoder(model).zero_unconditional,
    }
    velocity = sampling.get("prediction_type") == "v_prediction"
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[family.name],
        "modelspec.title": model.name,
        "modelspec.prediction_type": "v" if velocity else "epsilon",
        OWN: json.dumps(own),
    }
    if "merged" in model.settings:
        metadata["sd_merge_recipe"] = json.dumps(model.settings["merged"])
    return TensorFile(path, state, metadata)


def _network_file(network: Any, path: Path) -> TensorFile:
    row, config = ALONE[type(network)], network.config
    try:
        state = row.layout(config).revert(network.state_dict(), config)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from None
    own = {"class": type(network).__name__, "config": to_dict(config)}
    state = {f"{row.prefix}{name}": tensor for name, tensor in state.items()}
    return TensorFile(path, state, {"format": "pt", OWN: json.dumps(own)})


ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2",
    "sdxl": "stable-diffusion-xl-v1-base",
    "sdxl-refiner": "stable-diffusion-xl-v1-refiner",
}


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    """CLIP's own vocabulary is known by its size; another one is written out."""
    markers = {name: tokenizer.token(getattr(tokenizer, name)) for name in ("bos", "eos", "pad")}
    if tokenizer.vocab == Tokenizer.built_in().vocab:
        return markers
    return {
        **markers,
        "vocab": tokenizer.vocab,
        "merges": [merge.split(" ") for merge in tokenizer.merges],
        "max_length": tokenizer.max_length,
    }


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file as diffusers does, atomically; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    whole: Callable[[Tensor], Tensor] = Tensor.detach,
) -> None:
    """Write a safetensors file tensor by tensor, atomically: no second copy of it in memory.

    Format: a little-endian 64-bit length, a JSON header padded to 8 bytes, the tensors.

    Args:
        whole: called with each tensor in the order of ``writing_order``, before it is written.
    """
    with atomic_write(path) as file:
        for _ in writing(file, path, tensors, metadata, whole):
            pass


def writing(
    file: BinaryIO,
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    whole: Callable[[Tensor], Tensor] = Tensor.detach,
) -> Iterator[int]:
    """Write a safetensors file into an open one; yields the bytes of each tensor written.

    Args:
        path: for messages.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    ordered, start = writing_order(tensors), 0
    for name in ordered:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        if tensor.dtype not in DTYPES:
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, which safetensors lacks")
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in ordered:
        tensor = whole(tensors[name]).detach().cpu().contiguous().reshape(-1)
        file.write(tensor.view(torch.uint8).numpy().data)
        yield tensor.numel() * tensor.element_size()


def writing_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Of the names: by size of number, so that all are aligned, then by name."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


DTYPES = {
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@contextmanager
def _fresh_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that takes its place on success, and vanishes on failure.

    Raises:
        CheckpointError: ``path`` is a file, or a folder with something else than a model in it.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent))
    try:
        yield fresh
        umask = os.umask(0)
        os.umask(umask)
        fresh.chmod(0o777 & ~umask)  # mkdtemp makes 0700
        if path.exists():
            old = fresh.with_suffix(".old")
            path.rename(old)
            try:
                fresh.rename(path)
            except OSError:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            fresh.rename(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_folder(path.parent)


def check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise CheckpointError(f"{path}: a file of that name exists; choose another name")
    names = {entry.name for entry in path.iterdir()}
    if names and not names & {"model_index.json", "config.json"}:
        raise CheckpointError(
            f"{path}: a folder with something else than a model in it; choose another name"
        )
