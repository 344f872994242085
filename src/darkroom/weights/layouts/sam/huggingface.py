"""The names and the config.json of transformers' SamModel."""

from collections.abc import Iterator
from typing import Any

from darkroom.errors import ConfigError
from darkroom.models.sam.config import (
    SAM_B,
    SAM_H,
    SAM_L,
    DecoderConfig,
    SamConfig,
    TinyVitConfig,
    VitConfig,
)
from darkroom.models.sam.layers import NORM_EPS
from darkroom.models.sam.network import DEVIATION, MEAN, Sam
from darkroom.weights.configs import Fields, Json
from darkroom.weights.layout import Entry, Layout, Table, under, unused
from darkroom.weights.layouts.annotators.dpt_configs import GENERIC
from darkroom.weights.layouts.sam.original import (
    BLOCK,
    DECODER,
    ENCODER,
    PROMPTS,
    TWO_WAY,
    bare,
    relative,
    transformer,
)

VISION = "vision_encoder"
RENAMED: Table = {f"norm{n}": f"layer_norm{n}" for n in (1, 2, 3, 4)}
CONVOLUTIONS: Table = {
    **{f"conv{n}": f"conv{n}" for n in (1, 2, 3)},
    **{f"layer_norm{n}": f"norm{n}" for n in (1, 2)},
}
TOKENS: Table = {
    "point_embed.0": "outside",
    "point_embed.1": "inside",
    "point_embed.2": "first_corner",
    "point_embed.3": "last_corner",
    "not_a_point_embed": "no_point",
    "no_mask_embed": "no_mask",
}


def huggingface(config: SamConfig) -> Iterator[Entry]:
    """All names; the encoder is a plain vision transformer."""
    assert isinstance(config.encoder, VitConfig)
    yield Entry(f"{VISION}.patch_embed.projection", f"{ENCODER}.patches")
    yield Entry(f"{VISION}.pos_embed", f"{ENCODER}.position", bare=True)
    for n in range(config.encoder.layers):
        theirs, ours = f"{VISION}.layers.{n}", f"{ENCODER}.blocks.{n}"
        yield from under(theirs, ours, _renamed(BLOCK))
        yield from relative(theirs, ours)
    yield from under(f"{VISION}.neck", f"{ENCODER}.neck", CONVOLUTIONS)
    matrix = "shared_image_embedding.positional_embedding"
    yield Entry(matrix, f"{PROMPTS}.position.frequencies", bare=True)
    yield from unused(f"{PROMPTS}.shared_embedding")  # the same again, in some files
    yield from bare(PROMPTS, TOKENS)
    yield from under(f"{PROMPTS}.mask_embed", f"{PROMPTS}.mask", CONVOLUTIONS)
    yield from bare(DECODER, {"iou_token": "iou_token", "mask_tokens": "mask_tokens"})
    yield from transformer(config.decoder, _renamed(TWO_WAY), "layer_norm_final_attn")
    for theirs, ours in (("conv1", "up1"), ("layer_norm", "up_norm"), ("conv2", "up2")):
        yield Entry(f"{DECODER}.upscale_{theirs}", f"{DECODER}.{ours}")
    for n in range(config.decoder.candidates + 1):
        head = f"{DECODER}.output_hypernetworks_mlps.{n}"
        yield from under(head, f"{DECODER}.mask_heads.{n}", _layers(3))
    head = f"{DECODER}.iou_prediction_head"
    yield from under(head, f"{DECODER}.iou_head", _layers(config.decoder.iou_layers))


def _renamed(table: Table) -> Table:
    return {RENAMED.get(theirs, theirs): ours for theirs, ours in table.items()}


def _layers(count: int) -> Table:
    """First, last, and those between, of a chain of linear layers."""
    between = {f"layers.{n}": f"layers.{n + 1}" for n in range(count - 2)}
    return {"proj_in": "layers.0", **between, "proj_out": f"layers.{count - 1}"}


HUGGINGFACE = Layout(
    "transformers-sam",
    "shared_image_embedding.",
    huggingface,
    Sam,
    {"sam-vit-base": SAM_B, "sam-vit-large": SAM_L, "sam-vit-huge": SAM_H},
)

IGNORED = GENERIC | {
    "attention_dropout", "dropout",  # of training
    "image_embedding_size", "num_pos_feats", "scale",  # follow from others
    "projection_dim",
}  # fmt: skip
VISION_FIXED: Json = {
    "hidden_act": "gelu",
    "num_channels": 3,
    "qkv_bias": True,
    "use_abs_pos": True,
    "use_rel_pos": True,
}
PROMPT_FIXED: Json = {"hidden_act": "gelu", "layer_norm_eps": NORM_EPS, "num_point_embeddings": 4}
DECODER_FIXED: Json = {"hidden_act": "relu"}


def sam_config(data: Json, where: str = "config.json") -> SamConfig:
    """Read the config of a SamModel.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, {}, IGNORED)
    vision, prompts, masks = (
        Fields(fields.part(name), f"{where}: {name}", fixed, IGNORED)
        for name, fixed in (
            ("vision_config", VISION_FIXED),
            ("prompt_encoder_config", PROMPT_FIXED),
            ("mask_decoder_config", DECODER_FIXED),
        )
    )
    size, patch = _square(vision, "image_size", 1024), _square(vision, "patch_size", 16)
    width = vision.take("hidden_size", 768)
    ratio = vision.take("mlp_ratio", 4.0)
    hidden = vision.take("mlp_dim", 0, also=(type(None),)) or None
    encoder = VitConfig(
        patch=patch,
        channels=width,
        layers=vision.take("num_hidden_layers", 12),
        heads=vision.take("num_attention_heads", 12),
        hidden=int(width * ratio) if hidden is None else hidden,
        window=vision.take("window_size", 14, least=0),
        global_layers=tuple(vision.take("global_attn_indexes", (2, 5, 8, 11), least=0)),
        eps=float(vision.take("layer_norm_eps", 1e-6)),
    )
    channels = vision.take("output_channels", 256)
    decoder = DecoderConfig(
        layers=masks.take("num_hidden_layers", 2),
        heads=masks.take("num_attention_heads", 8),
        hidden=masks.take("mlp_dim", 2048),
        narrowing=masks.take("attention_downsample_rate", 2),
        candidates=masks.take("num_multimask_outputs", 3),
        iou_hidden=masks.take("iou_head_hidden_dim", 256),
        iou_layers=masks.take("iou_head_depth", 3),
        eps=float(masks.take("layer_norm_eps", 1e-6)),
    )
    for part, name, value in (
        (prompts, "hidden_size", channels),
        (prompts, "image_size", size),
        (prompts, "patch_size", patch),
        (masks, "hidden_size", channels),
    ):
        if part.take(name, value, also=(list,)) not in (value, [value, value]):
            raise part.error(name, f"must be {value}, as in vision_config")
    mask_channels = prompts.take("mask_input_channels", 16)
    for part in (fields, vision, prompts, masks):
        part.finish()
    try:
        return SamConfig(
            size=size,
            channels=channels,
            mask_channels=mask_channels,
            encoder=encoder,
            decoder=decoder,
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _square(fields: Fields, name: str, default: int) -> int:
    sides = fields.take(name, default, also=(list,))
    sides = sides if isinstance(sides, list) else [sides]
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise fields.error(name, "must be one number, or the same twice")
    return sides[0]


def view_json(config: SamConfig) -> dict[str, Any]:
    """The preprocessor_config.json with which transformers makes the same pixels."""
    low = 4 * config.grid
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [value / 255 for value in MEAN],
        "image_processor_type": "SamImageProcessor",
        "image_std": [value / 255 for value in DEVIATION],
        "mask_pad_size": {"height": low, "width": low},
        "mask_size": {"longest_edge": low},
        "pad_size": {"height": config.size, "width": config.size},
        "processor_class": "SamProcessor",
        "resample": 2,  # Pillow's number of bilinear
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": config.size},
    }


def sam_json(config: SamConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the same network.

    Raises:
        ConfigError: transformers has no such network.
    """
    encoder, decoder = config.encoder, config.decoder
    if isinstance(encoder, TinyVitConfig):
        raise ConfigError("transformers has no SAM with TinyViT")
    if decoder.iou_layers < 2:
        raise ConfigError("transformers' IoU head has two layers at least")
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            "global_attn_indexes": list(encoder.global_layers),
            "hidden_act": "gelu",
            "hidden_size": encoder.channels,
            "image_size": config.size,
            "layer_norm_eps": encoder.eps,
            "mlp_dim": encoder.hidden,
            "mlp_ratio": encoder.hidden / encoder.channels,
            "model_type": "sam_vision_model",
            "num_attention_heads": encoder.heads,
            "num_channels": 3,
            "num_hidden_layers": encoder.layers,
            "num_pos_feats": config.channels // 2,
            "output_channels": config.channels,
            "patch_size": encoder.patch,
            "qkv_bias": True,
            "use_abs_pos": True,
            "use_rel_pos": True,
            "window_size": encoder.window,
        },
        "prompt_encoder_config": {
            "hidden_act": "gelu",
            "hidden_size": config.channels,
            "image_size": config.size,
            "layer_norm_eps": NORM_EPS,
            "mask_input_channels": config.mask_channels,
            "model_type": "sam_prompt_encoder",
            "num_point_embeddings": 4,
            "patch_size": encoder.patch,
        },
        "mask_decoder_config": {
            "attention_downsample_rate": decoder.narrowing,
            "hidden_act": "relu",
            "hidden_size": config.channels,
            "iou_head_depth": decoder.iou_layers,
            "iou_head_hidden_dim": decoder.iou_hidden,
            "layer_norm_eps": decoder.eps,
            "mlp_dim": decoder.hidden,
            "model_type": "sam_mask_decoder",
            "num_attention_heads": decoder.heads,
            "num_hidden_layers": decoder.layers,
            "num_multimask_outputs": decoder.candidates,
        },
    }
