"""How transformers' config files describe DPT, and the pictures it is shown."""

from typing import Any, TypeGuard

from darkroom.errors import ConfigError
from darkroom.models.dpt.network import COARSEST, PATCH, DPTConfig
from darkroom.models.dpt.stem import StemConfig
from darkroom.models.dpt.view import View
from darkroom.weights.configs import MOST, TEXT_IGNORED, Fields, Json

GENERIC = TEXT_IGNORED | {
    "_commit_hash", "add_cross_attention", "backbone", "backbone_kwargs", "eos_token_id",
    "is_decoder", "model_type", "pruned_heads", "tie_encoder_decoder", "use_pretrained_backbone",
    "use_timm_backbone",
}  # fmt: skip
FIXED: Json = {
    "add_projection": False,
    "head_in_index": -1,
    "hidden_act": "gelu",
    "num_channels": 3,
    "patch_size": PATCH,
    "qkv_bias": True,
    "readout_type": "project",
    "use_batch_norm_in_fusion_residual": False,
    "use_bias_in_fusion_residual": (None, True),
}
IGNORED = GENERIC | {
    "attention_probs_dropout_prob", "hidden_dropout_prob",  # of training
    "auxiliary_loss_weight", "semantic_classifier_dropout", "semantic_loss_ignore_index",
    "use_auxiliary_head",  # of segmentation
    "backbone_featmap_shape", "neck_ignore_stages", "embedding_type",  # follow from is_hybrid
    "pooler_act", "pooler_output_size",  # of a pooler that depth does without
}  # fmt: skip
STEM_FIXED: Json = {
    "embedding_dynamic_padding": True,
    "global_padding": ("same", "SAME"),
    "hidden_act": "relu",
    "layer_type": "bottleneck",
    "num_channels": 3,
    "output_stride": 32,
    "width_factor": 1,
}
STEM_IGNORED = GENERIC | {"drop_path_rate", "out_features", "out_indices", "stage_names"}


def dpt_config(data: Json, where: str = "config.json", view: View | None = None) -> DPTConfig:
    """Read the config of a DPTForDepthEstimation.

    Args:
        view: what the file beside it says; see ``view_config``.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, FIXED, IGNORED)
    hybrid = fields.take("is_hybrid", data.get("embedding_type") == "hybrid")
    backbone = fields.part("backbone_config")
    if backbone and not hybrid:
        raise fields.error("backbone_config", "is not supported without is_hybrid")
    size = fields.take("image_size", 384, also=(list,))
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if isinstance(height, list) or height != width or height % PATCH:
        raise fields.error("image_size", f"must be a square of patches of {PATCH}")
    first = 2 if hybrid else 0  # what comes before is the stem's
    widths = tuple(fields.take("neck_hidden_sizes", (96, 192, 384, 768)))
    taps = tuple(fields.take("backbone_out_indices", (2, 5, 8, 11), least=0))
    scales = tuple(fields.take("reassemble_factors", (4, 2, 1, 0.5)))
    for name, values in (("backbone_out_indices", taps), ("reassemble_factors", scales)):
        if len(values) != len(widths):
            raise fields.error(name, f"must be {len(widths)}, as neck_hidden_sizes")
    config = DPTConfig(
        stem=_stem_config(backbone or {}, where) if hybrid else None,
        grid=height // PATCH,
        channels=fields.take("hidden_size", 768),
        layers=fields.take("num_hidden_layers", 12),
        heads=fields.take("num_attention_heads", 12),
        hidden=fields.take("intermediate_size", 3072),
        eps=float(fields.take("layer_norm_eps", 1e-12)),
        taps=taps[first:],
        scales=scales[first:],
        widths=widths,
        features=fields.take("fusion_hidden_size", 256),
        view=view or View(),
    )
    fields.finish()
    return config


def _stem_config(data: Json, where: str) -> StemConfig:
    fields = Fields(data, f"{where}: backbone_config", STEM_FIXED, STEM_IGNORED)
    blocks = tuple(fields.take("depths", (3, 4, 9)))
    config = StemConfig(
        channels=fields.take("embedding_size", 64),
        widths=tuple(fields.take("hidden_sizes", (256, 512, 1024, 2048)))[: len(blocks)],
        blocks=blocks,
        groups=fields.take("num_groups", 32),
    )
    fields.finish()
    return config


def dpt_json(config: DPTConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the same network.

    Raises:
        ConfigError: transformers has no such network.
    """
    stem, scales = config.stem, len(config.widths)
    if scales - len(config.taps) != (2 if stem else 0):
        raise ConfigError(f"transformers' DPT does not read {len(config.taps)} of {scales} scales")
    before = range(scales - len(config.taps))
    hybrid: dict[str, Any] = {}
    if stem:
        hybrid = {
            "backbone_config": {
                "depths": list(stem.blocks),
                "embedding_dynamic_padding": True,
                "embedding_size": stem.channels,
                "global_padding": "SAME",
                "hidden_act": "relu",
                "hidden_sizes": list(stem.widths),
                "layer_type": "bottleneck",
                "model_type": "bit",
                "num_channels": 3,
                "num_groups": stem.groups,
                "out_features": [f"stage{n + 1}" for n in range(len(stem.blocks))],
                "output_stride": 32,
            },
            "backbone_featmap_shape": [1, stem.widths[-1], config.grid, config.grid],
            "neck_ignore_stages": [*before],
        }
    return {
        "architectures": ["DPTForDepthEstimation"],
        "backbone_out_indices": [*before, *config.taps],
        "fusion_hidden_size": config.features,
        "head_in_index": -1,
        "hidden_act": "gelu",
        "hidden_size": config.channels,
        "image_size": config.grid * PATCH,
        "intermediate_size": config.hidden,
        "is_hybrid": stem is not None,
        "layer_norm_eps": config.eps,
        "model_type": "dpt",
        "neck_hidden_sizes": list(config.widths),
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.layers,
        "patch_size": PATCH,
        "qkv_bias": True,
        "readout_type": "project",
        "reassemble_factors": [*(1 for _ in before), *config.scales],
        "use_batch_norm_in_fusion_residual": False,
        **hybrid,
    }


VIEW_FIXED: Json = {
    "do_center_crop": (None, False),
    "do_normalize": True,
    "do_pad": (None, False),
    "do_reduce_labels": (None, False),
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": ("DPTFeatureExtractor", "DPTImageProcessor"),
    "rescale_factor": 1 / 255,
}
VIEW_IGNORED = frozenset(
    {
        "_valid_processor_keys", "crop_size", "data_format", "default_to_square", "device",
        "disable_grouping", "do_convert_rgb", "image_processor_type", "input_data_format",
        "pad_size", "processor_class", "return_tensors", "size_divisor",
    }
)  # fmt: skip
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def view_config(data: Json, where: str = "preprocessor_config.json") -> View:
    """Read the config of a DPTImageProcessor, or of the DPTFeatureExtractor that it once was.

    Raises:
        CheckpointError: naming the key and the value that is not supported.
    """
    fields = Fields(data, where, VIEW_FIXED, VIEW_IGNORED)
    size = fields.take("size", 384, also=(dict,))
    height, width = (
        (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    )
    resample = fields.take("resample", 3)
    if resample not in RESAMPLE:
        raise fields.error("resample", "is not supported, expected 2 or 3")
    keep_aspect = bool(fields.take("keep_aspect_ratio", False))
    multiple = fields.take("ensure_multiple_of", 1)
    if not _is_side(height) or not _is_side(width):
        raise fields.error("size", "must be a number, or height and width")
    if not keep_aspect and any(round(n / multiple) * multiple % COARSEST for n in (height, width)):
        raise fields.error("size", f"must be of multiples of {COARSEST}")
    if keep_aspect and multiple % COARSEST:
        raise fields.error("ensure_multiple_of", f"must be a multiple of {COARSEST}")
    view = View(
        size=(height, width),
        keep_aspect=keep_aspect,
        multiple=multiple,
        resample="bilinear" if resample == 2 else "bicubic",
        mean=_three(fields, "image_mean"),
        deviation=_three(fields, "image_std"),
    )
    fields.finish()
    return view


def _is_side(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= MOST


def _three(fields: Fields, name: str) -> tuple[float, float, float]:
    values = fields.take(name, (0.5, 0.5, 0.5))
    if len(values) != 3:
        raise fields.error(name, "must be three numbers")
    return float(values[0]), float(values[1]), float(values[2])


def view_json(view: View) -> dict[str, Any]:
    """The preprocessor_config.json with which transformers makes the same pixels."""
    numbers = {name: number for number, name in RESAMPLE.items()}
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "ensure_multiple_of": view.multiple,
        "image_mean": list(view.mean),
        "image_processor_type": "DPTImageProcessor",
        "image_std": list(view.deviation),
        "keep_aspect_ratio": view.keep_aspect,
        "resample": numbers[view.resample],
        "rescale_factor": 1 / 255,
        "size": {"height": view.size[0], "width": view.size[1]},
    }
