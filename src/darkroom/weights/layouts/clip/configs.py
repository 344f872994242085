"""How transformers' and open_clip's config files describe CLIP, and the pictures it is shown."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from darkroom.errors import CheckpointError, ConfigError
from darkroom.models.clip.modified_resnet import AttentionResNetConfig
from darkroom.models.clip.network import ClipConfig
from darkroom.models.clip.presets import HEAD
from darkroom.models.clip.view import View
from darkroom.models.clip.vision_transformer import VisionConfig
from darkroom.models.clip_text import TextConfig
from darkroom.weights.configs import (
    MOST,
    TEXT_FIXED,
    TEXT_IGNORED,
    Fields,
    Json,
    architectures_of,
    text_config,
    text_json,
)

GELUS = ("quick_gelu", "gelu")


def check_activation(name: str) -> str:
    """Return ``name`` if it is one of ``GELUS``.

    Raises:
        ConfigError: with the valid names.
    """
    if name not in GELUS:
        raise ConfigError(f"activation {name!r} is unknown; one of {', '.join(GELUS)}")
    return name


WHOLE_FIXED: Json = {"model_type": "clip"}
WHOLE_IGNORED = TEXT_IGNORED | {
    "initializer_factor", "logit_scale_init_value",  # of training
    *TEXT_FIXED, "eos_token_id",
}  # fmt: skip
VISION_FIXED: Json = {
    **TEXT_FIXED,
    "hidden_act": GELUS,
    "model_type": ("clip_vision_model", "clip"),
    "num_channels": 3,
}
VISION_IGNORED = TEXT_IGNORED | {"eos_token_id", "projection_dim"}


def clip_config(data: Json, where: str = "config.json", view: View | None = None) -> ClipConfig:
    """Read the config of transformers' CLIPModel.

    Args:
        view: what the file beside it says; see ``huggingface_view``.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(_public(data), where, WHOLE_FIXED, WHOLE_IGNORED)
    projection = fields.take("projection_dim", 512)
    towers: dict[str, dict[str, Any]] = {}
    for name in ("text_config", "vision_config"):
        given = fields.part(name)
        over = fields.part(f"{name}_dict")  # old files: it has the last word
        towers[name] = _public({**given, **over})
    fields.finish()
    text = text_config(towers["text_config"], f"{where}: text_config")
    image = vision_config(towers["vision_config"], f"{where}: vision_config", projection)
    return _whole(image, replace(text, projection=projection), view, where)


def vision_config(
    data: Json, where: str = "config.json", projection: int | None = None
) -> VisionConfig:
    """Read the config of a CLIPVisionModel, or of a CLIPVisionModelWithProjection.

    Args:
        projection: of a part of a whole CLIP, which says it elsewhere.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(_public(data), where, VISION_FIXED, VISION_IGNORED)
    if projection is None:
        projected = "CLIPVisionModelWithProjection" in architectures_of(data)
        projection = int(fields.take("projection_dim", 512)) if projected else 0
    size = fields.take("image_size", 224, also=(list,))
    patch = fields.take("patch_size", 32, also=(list,))
    config = VisionConfig(
        size=_whole_number(fields, "image_size", size),
        patch=_whole_number(fields, "patch_size", patch),
        channels=fields.take("hidden_size", 768),
        layers=fields.take("num_hidden_layers", 12),
        heads=fields.take("num_attention_heads", 12),
        hidden=fields.take("intermediate_size", 3072),
        quick_gelu=fields.take("hidden_act", "quick_gelu") == "quick_gelu",
        projection=projection,
        eps=float(fields.take("layer_norm_eps", 1e-5)),
    )
    fields.finish()
    return config


def clip_json(config: ClipConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the same CLIP.

    Raises:
        ConfigError: transformers has no such model.
    """
    if not isinstance(config.image, VisionConfig):
        raise ConfigError("transformers has no CLIP with a ResNet")
    return {
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": config.image.projection,
        "text_config": _part(text_json(config.text)),
        "vision_config": _part(vision_json(config.image)),
    }


def vision_json(config: VisionConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the same image tower."""
    projected = "CLIPVisionModelWithProjection" if config.projection else "CLIPVisionModel"
    return {
        "architectures": [projected],
        "attention_dropout": 0.0,
        "hidden_act": "quick_gelu" if config.quick_gelu else "gelu",
        "hidden_size": config.channels,
        "image_size": config.size,
        "intermediate_size": config.hidden,
        "layer_norm_eps": config.eps,
        "model_type": "clip_vision_model",
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.layers,
        "patch_size": config.patch,
        "projection_dim": config.projection or config.channels,
    }


def _public(data: Json) -> dict[str, Any]:
    """Without what transformers notes for itself, such as _commit_hash."""
    return {key: value for key, value in data.items() if not key.startswith("_")}


def _part(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "architectures"}


OPEN_CLIP_FIXED: Json = {
    "custom_text": (None, False),
    "force_custom_text": (None, False),
    "init_logit_bias": None,
    "multimodal_cfg": None,
    "nonscalar_logit_scale": (None, False),
    "output_dict": (None, False),
}
OPEN_CLIP_IGNORED = frozenset(
    {"cast_dtype", "init_logit_scale"}  # a precision; of training
)
BLOCKS_FIXED: Json = {
    "act_kwargs": None,
    "block_type": (None, "default"),
    "final_ln_after_pool": False,
    "ls_init_value": None,
    "norm_kwargs": None,
    "output_tokens": False,
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn"), False
    ),
    "scale_fc": False,
}
IMAGE_FIXED: Json = {
    **BLOCKS_FIXED,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pool_type": "tok",
    "pos_embed_type": "learnable",
    "timm_model_name": None,
}
IMAGE_IGNORED = frozenset(
    {
        "attn_pooler_heads", "attn_pooler_queries", "patch_dropout",
        "timm_drop", "timm_drop_path", "timm_model_pretrained", "timm_pool", "timm_proj",
        "timm_proj_bias",
    }
)  # fmt: skip
WORDS_FIXED: Json = {
    **BLOCKS_FIXED,
    "embed_cls": False,
    "hf_model_name": None,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
}
WORDS_IGNORED = frozenset(
    {
        "eos_id", "hf_model_pretrained", "hf_pooler_type", "hf_proj_type", "hf_tokenizer_name",
        "pad_id", "tokenizer_kwargs", "tokenizer_mode",
    }
)  # fmt: skip


def open_clip_config(data: Json, where: str = "open_clip_config.json") -> ClipConfig:
    """Read open_clip's own config: the sizes, which GELU, and how pictures are brought to it.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    whole = Fields(data, where, {}, frozenset({"version"}))
    model, view = whole.part("model_cfg"), whole.part("preprocess_cfg")
    if not model:
        raise whole.error("model_cfg", "must be an object with the model's sizes")
    whole.finish()
    fields = Fields(model, f"{where}: model_cfg", OPEN_CLIP_FIXED, OPEN_CLIP_IGNORED)
    quick, projection = bool(fields.take("quick_gelu", False)), fields.take("embed_dim", None)
    images, words = fields.part("vision_cfg"), fields.part("text_cfg")
    fields.finish()
    if type(projection) is not int or not 1 <= projection <= MOST:
        raise fields.error("embed_dim", "must be a whole number")
    image = _open_clip_image(images, f"{where}: vision_cfg", quick, projection)
    text = _open_clip_text(words, f"{where}: text_cfg", quick, projection)
    described = open_clip_view(view, f"{where}: preprocess_cfg", image.size)
    return _whole(image, text, described, where)


def _open_clip_image(
    data: Json, where: str, quick_gelu: bool, projection: int
) -> VisionConfig | AttentionResNetConfig:
    fields = Fields(data, where, IMAGE_FIXED, IMAGE_IGNORED)
    size = _whole_number(fields, "image_size", fields.take("image_size", 224, also=(list,)))
    layers, width = fields.take("layers", 12, also=(list,)), fields.take("width", 768)
    patch = fields.take("patch_size", 16, also=(list, type(None)))
    head = fields.take("head_width", HEAD)
    hidden = int(width * fields.take("mlp_ratio", 4.0))
    fields.finish()
    if isinstance(layers, list):
        return AttentionResNetConfig(
            size=size,
            channels=width,
            blocks=tuple(layers),
            heads=width * 32 // head,
            projection=projection,
        )
    return VisionConfig(
        size=size,
        patch=_whole_number(fields, "patch_size", patch),
        channels=width,
        layers=layers,
        heads=width // head,
        hidden=hidden,
        quick_gelu=quick_gelu,
        projection=projection,
    )


def _open_clip_text(data: Json, where: str, quick_gelu: bool, projection: int) -> TextConfig:
    fields = Fields(data, where, WORDS_FIXED, WORDS_IGNORED)
    width, vocabulary = fields.take("width", 512), fields.take("vocab_size", 49_408)
    config = TextConfig(
        vocabulary=vocabulary,
        positions=fields.take("context_length", 77),
        channels=width,
        layers=fields.take("layers", 12),
        heads=fields.take("heads", 8),
        hidden=int(width * fields.take("mlp_ratio", 4.0)),
        quick_gelu=quick_gelu,
        projection=projection,
        end=vocabulary - 1,
    )
    fields.finish()
    return config


FITS = {"shortest": "crop", "squash": "squash"}


def open_clip_view(data: Json, where: str, size: int) -> View:
    """Read open_clip's preprocess_cfg; what it leaves out is as OpenAI has it.

    Raises:
        CheckpointError: naming the key and the value that is not supported.
    """
    fixed: Json = {"mode": "RGB", "fill_color": 0, "resize_mode": tuple(FITS)}
    fields = Fields(data, where, {**fixed, "interpolation": ("bicubic", "bilinear")}, frozenset())
    usual = View()
    view = View(
        size=_whole_number(fields, "size", fields.take("size", size, also=(list,))),
        fit=FITS[fields.take("resize_mode", "shortest")],  # pyright: ignore[reportArgumentType]
        resample=fields.take("interpolation", "bicubic"),
        mean=_colours(fields, "mean", usual.mean),
        deviation=_colours(fields, "std", usual.deviation),
    )
    fields.finish()
    return view


VIEW_FIXED: Json = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": ("CLIPFeatureExtractor", "CLIPImageProcessor"),
    "image_processor_type": (
        "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil",
        "CLIPFeatureExtractor",
    ),
    "rescale_factor": 1 / 255,
}  # fmt: skip
VIEW_IGNORED = frozenset(
    {
        "_valid_processor_keys", "data_format", "default_to_square", "device", "disable_grouping",
        "do_convert_rgb", "do_pad", "input_data_format", "pad_size", "processor_class",
        "return_tensors", "use_square_size",
    }
)  # fmt: skip
OWN = "_darkroom"
RESAMPLE = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))


def huggingface_view(data: Json, where: str = "preprocessor_config.json") -> View:
    """Read the config of a CLIPImageProcessor, alone or in a processor_config.json.

    Raises:
        CheckpointError: naming the key and the value that is not supported.
    """
    inner = data.get("image_processor")
    data = inner if isinstance(inner, Mapping) else data
    fields = Fields(data, where, VIEW_FIXED, VIEW_IGNORED)
    usual = View()
    size = fields.take("size", {"shortest_edge": 224}, also=(int,))
    crop = fields.take("crop_size", None)
    cut = fields.take("do_center_crop", True)
    shortest = size if isinstance(size, int) else size.get("shortest_edge")
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    wanted = _side(crop) if crop is not None else shortest
    squash = shortest is None and sides[0] is not None and sides[0] == sides[1]
    if squash:
        shortest = sides[0]
    wrong = (cut and wanted != shortest) or not (cut or squash)
    if wrong or type(shortest) is not int or not 1 <= shortest <= MOST:
        raise fields.error("size", f"with a crop of {crop} is not supported, expected a square")
    resample = fields.take("resample", 3, least=0)
    if resample not in RESAMPLE:
        raise fields.error("resample", f"is not supported, expected one of {[*RESAMPLE]}")
    view = View(
        size=shortest,
        fit="squash" if squash else "crop",
        resample=RESAMPLE[resample],  # pyright: ignore[reportArgumentType]
        half=_half(fields),
        mean=_colours(fields, "image_mean", usual.mean),
        deviation=_colours(fields, "image_std", usual.deviation),
    )
    fields.finish()
    return view


def view_json(view: View) -> dict[str, Any]:
    """The preprocessor_config.json with which transformers does the same to a picture.

    Where a middle lies between two pixels it takes the first; of another choice we tell ourselves.
    """
    side = {"height": view.size, "width": view.size}
    return {
        **({} if view.half == "down" else {OWN: {"half": view.half}}),
        "crop_size": side,
        "do_center_crop": view.fit == "crop",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(view.mean),
        "image_processor_type": "CLIPImageProcessor",
        "image_std": list(view.deviation),
        "resample": next(n for n, name in RESAMPLE.items() if name == view.resample),
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": view.size} if view.fit == "crop" else side,
    }


def _half(fields: Fields) -> Literal["even", "down"]:
    own = fields.take(OWN, None)
    return "even" if isinstance(own, Mapping) and own.get("half") == "even" else "down"


def _side(size: Any) -> Any:
    if not isinstance(size, Mapping):
        return size
    return size.get("height") if size.get("height") == size.get("width") else None


def _colours(
    fields: Fields, name: str, usual: tuple[float, float, float]
) -> tuple[float, float, float]:
    value = fields.take(name, None) or usual
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
        raise fields.error(name, "must be three numbers")
    return (float(value[0]), float(value[1]), float(value[2]))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MOST


def _whole_number(fields: Fields, name: str, value: Any) -> int:
    """One number, or two equal ones: pictures and patches are square here."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if type(value) is not int or not 1 <= value <= MOST:
        raise fields.error(name, "must be one whole number")
    return value


def _whole(
    image: VisionConfig | AttentionResNetConfig, text: TextConfig, view: View | None, where: str
) -> ClipConfig:
    try:
        return ClipConfig(image=image, text=text, view=view or View(size=image.size))
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None
