"""Folders as diffusers and transformers write them: a pipeline of parts, or one model alone."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from darkroom import foreign
from darkroom.config import check, from_dict
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.errors import CheckpointError, ConfigError, LayoutError
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.presets import with_gelu
from darkroom.models.clip.view import View as ClipView
from darkroom.models.clip.vision_transformer import VisionConfig, VisionTransformer
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.contrastive import ContrastiveConfig, ContrastiveModel
from darkroom.models.control.controlnet import ControlNet, ControlNetConfig
from darkroom.models.control.t2i_adapter import T2IAdapter, T2IAdapterConfig
from darkroom.models.distilbert import DistilBert, DistilBertConfig
from darkroom.models.dpt.network import DPT, DPTConfig
from darkroom.models.dpt.view import View
from darkroom.models.dual_encoder import DualEncoder, DualEncoderConfig
from darkroom.models.fastsam.network import FastSAM, FastSAMConfig
from darkroom.models.resnet import ResNet, ResNetConfig
from darkroom.models.sam.config import SamConfig
from darkroom.models.sam.network import Sam
from darkroom.models.segmentation.unet import SegmentationUNet, SegmentationUNetConfig
from darkroom.models.segmentation.unet_resnet import (
    SegmentationUNetResNet,
    SegmentationUNetResNetConfig,
)
from darkroom.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from darkroom.models.unconditional_unet import UnconditionalUNet, UnconditionalUNetConfig
from darkroom.models.unet import UNet, UNetConfig
from darkroom.text.tokenizer import Tokenizer
from darkroom.weights import configs, families
from darkroom.weights.assemble import assemble, release
from darkroom.weights.catalog import Known
from darkroom.weights.files import read_sharded, read_tensors
from darkroom.weights.inspect.unopened import kind_of_class, refusal
from darkroom.weights.layout import Layout, convert
from darkroom.weights.layouts import (
    autoencoder,
    clip_text,
    contrastive,
    distilbert,
    dual_encoder,
    resnet,
    segmentation,
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
from darkroom.weights.locate import WEIGHTS, best_set, parts_elsewhere
from darkroom.weights.readers.faults import printable
from darkroom.weights.readers.quantized import UNQUANTISED

log = logging.getLogger(__name__)
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
ASIDE = {
    "safety_checker": "the safety checker is left aside: pictures are not censored",
    "feature_extractor": "",  # belongs to the safety checker, or is read with the depth estimator
    "image_encoder": "the image encoder is left aside: prompts are text",
}
CONFIGS: Mapping[type[nn.Module], type] = {
    Autoencoder: AutoencoderConfig,
    Clip: ClipConfig,
    ClipTextModel: TextConfig,
    ContrastiveModel: ContrastiveConfig,
    ControlNet: ControlNetConfig,
    DistilBert: DistilBertConfig,
    DPT: DPTConfig,
    DualEncoder: DualEncoderConfig,
    FastSAM: FastSAMConfig,
    ResNet: ResNetConfig,
    Sam: SamConfig,
    SegmentationUNet: SegmentationUNetConfig,
    SegmentationUNetResNet: SegmentationUNetResNetConfig,
    T2IAdapter: T2IAdapterConfig,
    TinyAutoencoder: TinyAutoencoderConfig,
    UNet: UNetConfig,
    UnconditionalUNet: UnconditionalUNetConfig,
    VisionTransformer: VisionConfig,
}
PARTS = frozenset(
    {
        "unet",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
        "depth_estimator",
    }
)
PIPELINE_VALUES = frozenset(
    {
        "force_zeros_for_empty_prompt",
        "requires_safety_checker",
        "requires_aesthetics_score",  # of the refiner
        "add_watermarker",
    }
)
TEXT_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")


Json = Mapping[str, Any]
M = TypeVar("M", bound=nn.Module)


def _as_read(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return tensors


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a model is to become, whatever it is read from."""

    dtype: torch.dtype | None  # None = as stored
    device: torch.device
    prediction: str | None = None  # the user's word: over the file and the catalogue
    activation: str | None = None  # of a CLIP: the user's word, likewise
    variant: str | None = None  # of the weights' files; None = the one that fits the dtype
    ema: bool = True  # of single files that hold both: the averaged weights
    known: Known | None = None  # the catalogue's row
    source: str = ""
    strict: bool = False  # keys that touch no part are an error, not a warning
    wrap: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = _as_read  # around each file

    @property
    def preferred(self) -> str:
        """The variant to take where several are there."""
        half = {torch.float16: "fp16", torch.bfloat16: "bf16", None: ""}
        return half.get(self.dtype, "") if self.variant is None else self.variant

    def leave(self, keys: Sequence[str], where: Path) -> None:
        """Say which keys of a file touch no part of what is built from it.

        Raises:
            CheckpointError: there are some, and ``strict`` forbids them.
        """
        if not keys:
            return
        few = ", ".join(printable(key) for key in keys[:5])
        verb, be = ("key touches", "is") if len(keys) == 1 else ("keys touch", "are")
        what = f"{len(keys)} {verb} no part of the model"
        if self.strict:
            raise CheckpointError(f"{where}: {what}: {few}; without strict they are left aside")
        log.warning("%s: %s and %s left aside: %s", where.name, what, be, few)


@dataclass(frozen=True)
class Single:
    """How to read one class of model."""

    model: type[nn.Module]
    read: Callable[[Json, str], Any]
    layout: Layout[Any]


SINGLE: Mapping[str, Single] = {
    "UNet2DModel": Single(
        UnconditionalUNet,
        unconditional_unet.unconditional_unet_config,
        unconditional_unet.DIFFUSERS,
    ),
    "UNet2DConditionModel": Single(UNet, configs.unet_config, unet.DIFFUSERS),
    "AutoencoderKL": Single(Autoencoder, configs.autoencoder_config, autoencoder.DIFFUSERS),
    "AutoencoderTiny": Single(
        TinyAutoencoder, tiny_autoencoder.tiny_autoencoder_config, tiny_autoencoder.DIFFUSERS
    ),
    "ControlNetModel": Single(ControlNet, controlnet.controlnet_config, controlnet.DIFFUSERS),
    "T2IAdapter": Single(T2IAdapter, t2i_adapter.t2i_adapter_config, t2i_adapter.DIFFUSERS),
    "CLIPTextModel": Single(ClipTextModel, configs.text_config, clip_text.HUGGINGFACE),
    "CLIPTextModelWithProjection": Single(
        ClipTextModel, configs.text_config, clip_text.HUGGINGFACE
    ),
    "CLIPModel": Single(Clip, clip_configs.clip_config, clip.HUGGINGFACE),
    **dict.fromkeys(
        ("CLIPVisionModel", "CLIPVisionModelWithProjection"),
        Single(VisionTransformer, clip_configs.vision_config, clip.HUGGINGFACE_VISION_LAYOUT),
    ),
    **dict.fromkeys(
        ("DistilBertModel", "DistilBertForMaskedLM"),
        Single(DistilBert, distilbert.distilbert_config, distilbert.TRANSFORMERS),
    ),
    "SamModel": Single(Sam, sam.sam_config, sam.HUGGINGFACE),
    "DPTForDepthEstimation": Single(DPT, dpt_configs.dpt_config, dpt.TRANSFORMERS),
    **dict.fromkeys(
        resnet.PRESETS, Single(ResNet, resnet.resnet_config, resnet.TORCHVISION)
    ),  # timm's names of architectures
}
OURS = {f"darkroom.{row.model.__name__}": row for row in SINGLE.values()} | {
    "darkroom.ContrastiveModel": Single(
        ContrastiveModel, partial(from_dict, ContrastiveConfig), contrastive.OWN
    ),
    "darkroom.SegmentationUNet": Single(
        SegmentationUNet, partial(from_dict, SegmentationUNetConfig), segmentation.UNET
    ),
    "darkroom.SegmentationUNetResNet": Single(
        SegmentationUNetResNet,
        partial(from_dict, SegmentationUNetResNetConfig),
        segmentation.UNET_RESNET,
    ),
    "darkroom.DualEncoder": Single(
        DualEncoder, partial(from_dict, DualEncoderConfig), dual_encoder.BOOK
    ),
    "darkroom.FastSAM": Single(FastSAM, partial(from_dict, FastSAMConfig), fastsam.ORIGINAL),
}


@dataclass
class Reading:
    """A folder while it is being read, and the remarks it deserves."""

    folder: Path
    target: Target
    notes: list[str] = field(default_factory=list)
    elsewhere: Mapping[str, Path] = field(default_factory=dict)  # parts that another model has

    def network(
        self,
        part: str,
        model: type[M],
        classes: tuple[str, ...],
        read: Callable[[Json, str], Any],
        layout: Layout[Any],
    ) -> M:
        """Build one part from its config.json and its weights.

        Args:
            part: its folder; "" for a model alone.
            classes: what the config may call itself, besides our own ``darkroom.<model>``.
        """
        folder = self.elsewhere.get(part, self.folder / part)
        where = str(folder / "config.json")
        data = read_json(folder / "config.json")
        name = class_of(data)
        _refuse_quantised(data, where)
        tensors = self.tensors(folder)
        try:
            if name == f"darkroom.{model.__name__}":
                values = {k: v for k, v in data.items() if not k.startswith("_")}
                config = from_dict(CONFIGS[model], values, where)
                converted: Mapping[str, Tensor] = tensors
            elif name in classes or not name:
                config = check(read(data, where), where)
                aside: list[str] = []
                converted = convert(tensors, layout.entries(config), aside)
                self.target.leave(aside, folder)
            else:
                raise CheckpointError(f"{where}: class {name!r}; expected {' or '.join(classes)}")
            target = self.target
            return assemble(model, config, converted, target.dtype, target.device, release(tensors))
        except LayoutError as error:
            raise LayoutError(f"{folder}: {error}") from None
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        except ValueError as error:  # sizes that contradict each other
            raise CheckpointError(f"{where}: {error}") from None

    def tensors(self, folder: Path) -> Mapping[str, Tensor]:
        """The weights of one part: the variant that fits, all shards.

        Raises:
            CheckpointError: there are none.
        """
        files = weight_files(folder)
        chosen = best_set(files, self.target.preferred)
        if not chosen:
            raise CheckpointError(
                f"{folder}: no weights; expected one of "
                + ", ".join(f"{STEMS[0]}{suffix}" for suffix in WEIGHTS[:2])
                + ", or the like"
            )
        if self.target.variant and f".{self.target.variant}" not in chosen[0]:
            self.notes.append(f"{folder.name}: no variant {self.target.variant}, took {chosen[0]}")
        if len(chosen) == 1 and "-of-" not in chosen[0]:
            return self.target.wrap(read_tensors(folder / chosen[0]))
        return self.target.wrap(read_sharded(index_of(folder, chosen)))

    def tokenizer(self, part: str) -> Tokenizer:
        """The folder's own vocabulary, or CLIP's where it has none."""
        folder = self.elsewhere.get(part, self.folder / part)
        if folder.is_dir():
            return Tokenizer.from_folder(folder)
        self.notes.append(f"{part} is missing: CLIP's own vocabulary is used")
        return Tokenizer.built_in("<|endoftext|>" if part == "tokenizer" else "!")

    def depth(self, part: str, beside: str) -> DPT:
        """A depth network; the folder ``beside`` says how pictures are brought to it."""
        path = self.folder / beside / "preprocessor_config.json"
        view = View()
        if path.is_file():
            view = dpt_configs.view_config(read_json(path), str(path))
        else:
            self.notes.append(f"{path.name} is missing: depth is told from {view.size[0]} pixels")
        row = SINGLE["DPTForDepthEstimation"]
        read = partial(dpt_configs.dpt_config, view=view)
        return self.network(part, DPT, ("DPTForDepthEstimation",), read, row.layout)

    def clip(self) -> Clip:
        """A CLIP; the file beside it says how pictures are brought to it."""
        row, gelu = SINGLE["CLIPModel"], self.target.activation
        view = clip_view(self.folder)

        def read(data: Json, where: str) -> ClipConfig:
            config = clip_configs.clip_config(data, where, view)
            return with_gelu(config, gelu == "quick_gelu") if gelu else config

        return self.network("", Clip, ("CLIPModel",), read, row.layout)

    def sampling(self, folder: Path) -> SamplingConfig:
        """What scheduler_config.json says, the user's and the catalogue's word on top."""
        path = folder / "scheduler_config.json"
        data = read_json(path)
        try:
            sampling = SamplingConfig.from_diffusers(data)
            prediction = self.target.prediction
            if prediction is None and "prediction_type" not in data and self.target.known:
                prediction = self.target.known.prediction
            return families.predicting(sampling, prediction)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None


def load_pipeline(folder: Path, target: Target) -> LatentDiffusion | PixelDiffusion | nn.Module:
    """Read a folder with a model_index.json.

    Raises:
        CheckpointError: a part is missing, damaged, or of a class that is not supported.
    """
    index = read_json(folder / "model_index.json")
    pipeline = str(index.get("_class_name", ""))
    if said_no := refusal(kind_of_class((pipeline,))):
        raise CheckpointError(f"{folder}: {printable(pipeline)}: {said_no}")
    parts = parts_of(index, folder)
    if parts.keys() == {"unet", "scheduler"}:  # DDPMPipeline and the like; parts may be at the root
        return load_single_model(folder, target, "unet", "scheduler")
    reading = Reading(folder, target, elsewhere=parts_elsewhere(index, folder))
    reading.notes += [ASIDE[name] for name in parts if ASIDE.get(name)]
    reading.notes += [
        f"model_index.json: {name[:40]} = {value!r:.40} is not known and has no effect"
        for name, value in index.items()
        if not name.startswith("_") and not isinstance(value, list) and name not in PIPELINE_VALUES
    ]
    missing = [name for name in ("unet", "vae", "scheduler") if name not in parts]
    towers = [name for name in ("text_encoder", "text_encoder_2") if name in parts]
    if missing or not towers:
        raise CheckpointError(
            f"{folder}: a pipeline without {', '.join(missing) or 'a text encoder'}; "
            "expected unet, vae, text_encoder, tokenizer and scheduler"
        )
    network = reading.network(
        "unet", UNet, ("UNet2DConditionModel",), configs.unet_config, unet.DIFFUSERS
    )
    vae = reading.network(
        "vae", Autoencoder, ("AutoencoderKL",), configs.autoencoder_config, autoencoder.DIFFUSERS
    )
    models = [
        reading.network(
            name, ClipTextModel, TEXT_CLASSES, configs.text_config, clip_text.HUGGINGFACE
        )
        for name in towers
    ]
    tokenizers = [reading.tokenizer(name.replace("text_encoder", "tokenizer")) for name in towers]
    depth = None
    if "depth_estimator" in parts:
        depth = reading.depth("depth_estimator", "feature_extractor")
    own = families.check_own(index.get("_darkroom") or {}, f"{folder}: model_index.json: _darkroom")
    family = own.get("family") or families.family_of(
        network.config, [model.config for model in models]
    )
    text_encoder = families.prompt_encoder(
        family,
        network.config,
        models,
        tokenizers,
        zero_unconditional=bool(index.get("force_zeros_for_empty_prompt", family == "sdxl")),
        where=str(folder),
    )
    sample = read_json(folder / "unet" / "config.json").get("sample_size")
    sampling = reading.sampling(folder / "scheduler")
    if not network.config.vector_channels:  # XL's pipelines read the file as it is
        sampling = sampling.for_stable_diffusion()
    return families.latent_diffusion(
        unet=network,
        autoencoder=vae,
        text_encoder=text_encoder,
        sampling=sampling,
        family=family,
        name=target.known.name if target.known else own.get("name") or folder.name,
        settings={
            **families.sized(sample, vae.factor),
            **(target.known.settings if target.known else {}),
            **{name: _tuples(value) for name, value in (own.get("settings") or {}).items()},
        },
        notes=reading.notes,
        source=target.source or str(folder),
        depth=depth,
    )


def load_single_model(
    folder: Path, target: Target, part: str = "", scheduler: str = ""
) -> PixelDiffusion | nn.Module:
    """Read a folder that holds one model, and perhaps its scheduler.

    Args:
        part: the model's folder, if it is there; else config.json and weights are at the root.
        scheduler: the scheduler's folder, likewise.

    Raises:
        CheckpointError: the model is of a class that is not supported.
    """
    inner = folder / part if (folder / part).is_dir() else folder
    data = read_json(inner / "config.json")
    name = class_of(data)
    _refuse_quantised(data, str(inner / "config.json"))
    row = SINGLE.get(name) or OURS.get(name)
    if row is None:
        if said_no := refusal(kind_of_class((name,))):
            raise CheckpointError(f"{inner / 'config.json'}: {name}: {said_no}")
        raise CheckpointError(
            f"{inner / 'config.json'}: a {name or 'model without a class'} is not supported; "
            f"expected one of {', '.join(SINGLE)}"
        )
    reading = Reading(inner, target)
    if name == "DPTForDepthEstimation":
        return reading.depth("", "")
    if name == "CLIPModel":
        return reading.clip()
    network = reading.network("", row.model, (name,), row.read, row.layout)
    beside = folder / scheduler if (folder / scheduler).is_dir() else folder
    if not (beside / "scheduler_config.json").is_file():
        return network
    sampling = reading.sampling(beside)
    known = target.known
    return PixelDiffusion(
        unet=network,
        schedule=sampling.schedule(),
        prediction=sampling.prediction(),
        sampling=sampling,
        name=known.name if known else folder.name,
        settings={**families.sized(data.get("sample_size"), 1), "notes": tuple(reading.notes)},
        source=target.source or str(folder),
    )


def _refuse_quantised(config: Json, where: str) -> None:
    """Refuse weights that a config.json says are packed.

    Raises:
        CheckpointError: they are; by which program.
    """
    said = config.get("quantization_config")
    if said:
        method = str(said.get("quant_method", "")) if isinstance(said, dict) else ""
        by = printable(method) or "a program that it does not name"
        raise CheckpointError(f"{where}: weights quantised by {by}; {UNQUANTISED}")


def is_supported(folder: Path) -> bool:
    """Whether its config.json is of a class that ``load_single_model`` reads."""
    name = class_of(read_json(folder / "config.json"))
    return name in SINGLE or name in OURS


def clip_view(folder: Path) -> ClipView | None:
    """How transformers brings pictures to the CLIP in a folder; None where the folder is silent.

    Raises:
        CheckpointError: it says something that is not supported.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            return clip_configs.huggingface_view(read_json(folder / name), str(folder / name))
    return None


def parts_of(index: Json, folder: Path) -> dict[str, str]:
    """The class of each part that is there; null ones are not.

    Raises:
        CheckpointError: a part that Darkroom does not know; it is never imported.
    """
    parts = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        kind = entry[1] if len(entry) == 2 else None
        if kind is None:
            continue
        if not isinstance(kind, str):
            raise CheckpointError(f"{folder}: {name[:40]!r} is of a class that is no text")
        if name not in PARTS and name not in ASIDE:
            pipeline = index.get("_class_name", "a pipeline")
            if said_no := refusal(kind_of_class((str(kind),))):
                raise CheckpointError(
                    f"{folder}: {pipeline} has a part {name!r} ({kind}): {said_no}"
                )
            raise CheckpointError(
                f"{folder}: {pipeline} has a part {name!r} ({kind}) that is not supported"
            )
        if str(kind).startswith(("Flax", "Onnx")):
            raise CheckpointError(f"{folder}: {name} is {kind}; get the PyTorch version")
        parts[name] = str(kind)
    return parts


def class_of(config: Json) -> str:
    """The class (timm: the architecture) that a config.json says it is of, or nothing."""
    names = config.get("_class_name") or config.get("architectures") or config.get("architecture")
    return str(names[0] if isinstance(names, list) else names or "")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: it is missing, or no JSON object.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: missing; download the folder again")
    return foreign.read_object(path, CheckpointError)


def weight_files(folder: Path) -> list[str]:
    """Names of the files in ``folder`` that may hold the weights of its model."""
    if not folder.is_dir():
        return []
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in WEIGHTS and path.name.startswith(STEMS)
    )


def index_of(folder: Path, shards: list[str]) -> Path:
    """The index of a set of shards.

    Raises:
        CheckpointError: there is none that names them.
    """
    for path in sorted(folder.glob("*.index*.json")):
        named = read_json(path).get("weight_map")
        if isinstance(named, dict) and any(shard in named.values() for shard in shards):
            return path
    raise CheckpointError(f"{folder}: {shards[0]} is a part; its .index.json is missing")


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
