"""config.json of diffusers and transformers <-> our configs. Strict in both directions.

Every key is read, or has to have the one value our networks implement, or is known not to
matter when a trained network is used; anything else is an error that names it.
"""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from darkroom.errors import CheckpointError, ConfigError
from darkroom.models.autoencoder import AutoencoderConfig
from darkroom.models.clip_text import TextConfig
from darkroom.models.unet import UNetConfig
from darkroom.names import did_you_mean

Json = Mapping[str, Any]
MOST = 1 << 20  # of any size or number of layers in a config
LONGEST_LIST = 64
SHORT = reprlib.Repr()  # of a value in a message, however large it is
SHORT.maxstring = SHORT.maxother = 80


class Fields:
    """Reads a config key by key and complains about what was not read.

    Args:
        fixed: values that a key must have where it is present; a tuple lists alternatives.
        ignored: keys that do not change what a trained network computes.
    """

    def __init__(self, data: Json, where: str, fixed: Json, ignored: frozenset[str]) -> None:
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{where}: expected an object, found {SHORT.repr(data)}")
        self.data, self.where, self.ignored = data, where, ignored
        self.read = {"_class_name", "_diffusers_version", "_name_or_path"}
        for name, allowed in fixed.items():
            self.read.add(name)
            allowed = allowed if isinstance(allowed, tuple) else (allowed,)
            if name in data and not any(_same(data[name], value) for value in allowed):
                choices = " or ".join(repr(value) for value in allowed)
                raise self.error(name, f"is not supported, expected {choices}")

    def take(self, name: str, default: Any, *, least: int = 1, also: tuple[type, ...] = ()) -> Any:
        """The value of a key, or diffusers' default for it.

        Args:
            default: the value has its type: a whole number from ``least`` to a million, a number,
                a text, true or false, an object; or a list of such. None: the caller checks.
            least: of whole numbers; and 0 lets a list be empty.
            also: other types that the value may have; a list then is one of such values.

        Raises:
            CheckpointError: it is of another type, or out of range.
        """
        self.read.add(name)
        if name not in self.data or default is None:
            return self.data.get(name, default)
        value, samples = self.data[name], default if isinstance(default, tuple) else (default,)
        sample = next((item for item in samples if isinstance(item, float)), samples[0])
        several = isinstance(value, list) and (list in also or isinstance(default, tuple))
        if several and (least == 0 or value) and len(value) <= LONGEST_LIST:
            if all(_fits(item, sample, least) for item in value):
                return value
        elif type(value) in also and type(value) is not list:
            if type(value) is not int or _fits(value, 1, least):
                return value
        elif not isinstance(default, tuple) and _fits(value, default, least):
            return value
        raise self.error(name, f"is not supported, expected {_expected(sample, least, default)}")

    def part(self, name: str) -> Json:
        """An object inside of this one; empty where there is none."""
        self.read.add(name)
        value = self.data.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(name, "must be an object")
        return value or {}

    def error(self, name: str, problem: str) -> CheckpointError:
        """An error about one key, with its value."""
        value = SHORT.repr(self.data.get(name))
        return CheckpointError(f"{self.where}: {name[:60]} = {value} {problem}")

    def finish(self) -> None:
        """Refuse keys that nobody read.

        Raises:
            CheckpointError: naming the first one and the nearest known one.
        """
        for name in self.data:
            if name not in self.read and name not in self.ignored:
                known = (*self.read, *self.ignored)
                raise self.error(name, f"is not known{did_you_mean(name, known)}")


def _fits(value: Any, sample: Any, least: int) -> bool:
    """Whether a value is of the sample's type and within what any model has."""
    if isinstance(sample, float):
        return type(value) in (int, float) and abs(value) <= MOST
    if type(sample) is int:
        return type(value) is int and least <= value <= MOST
    return isinstance(value, Mapping if isinstance(sample, Mapping) else type(sample))


def _expected(sample: Any, least: int, default: Any) -> str:
    words = {bool: "true or false", float: "a number", str: "a text", dict: "an object"}
    word = words.get(type(sample), f"a whole number from {least} to {MOST:,}")
    return f"a list of which each is {word}" if isinstance(default, tuple) else word


def architectures_of(data: Json) -> list[Any]:
    """The classes that transformers wrote into a config."""
    names = data.get("architectures")
    return names if isinstance(names, list) else []


def _same(value: Any, allowed: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_same(item, allowed) for item in value)
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _per_level(value: Any, levels: int, fields: Fields, name: str) -> tuple[int, ...]:
    values = value if isinstance(value, Sequence) else [value] * levels
    if len(values) != levels:
        raise fields.error(name, f"must be a whole number, or {levels} of them")
    return tuple(values)


UNET_FIXED: Json = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "only_cross_attention": False,
    "mid_block_only_cross_attention": (None, False),
    "downsample_padding": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "num_class_embeds": None,
    "addition_embed_type": (None, "text_time"),
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "cross_attention_norm": None,
}
UNET_IGNORED = frozenset(
    {
        "addition_embed_type_num_heads",  # of other addition_embed_types
        "addition_time_embed_dim",  # the text encoder makes the whole vector
        "dropout",
        "sample_size",  # a default size, not a limit
        "upcast_attention",  # our attention sums in float32
        "use_linear_projection",  # how the file stores it: see weights.layouts.unet
        "decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step",
        "use_ema_warmup",  # left by diffusers' EMA training
    }
)  # fmt: skip
DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}  # whether it attends to the text
UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


def unet_config(data: Json, where: str = "unet/config.json") -> UNetConfig:
    """Read the config of a UNet2DConditionModel.

    Raises:
        CheckpointError: naming the key and the value that our U-Net does not implement.
    """
    fields = Fields(data, where, UNET_FIXED, UNET_IGNORED)
    channels = tuple(fields.take("block_out_channels", (320, 640, 1280, 1280)))
    levels = len(channels)
    down = fields.take("down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",))
    up = fields.take("up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    for name, kinds, valid in (("down_block_types", down, DOWN), ("up_block_types", up, UP)):
        if len(kinds) != levels or not all(kind in valid for kind in kinds):
            raise fields.error(name, f"must be {levels} of {', '.join(valid)}")
    attends = [DOWN[kind] for kind in down]
    if attends != [UP[kind] for kind in reversed(up)]:
        raise fields.error("up_block_types", "must mirror down_block_types")
    depth = _per_level(
        fields.take("transformer_layers_per_block", 1, also=(list,)),
        levels,
        fields,
        "transformer_layers_per_block",
    )
    blocks = _per_level(
        fields.take("layers_per_block", 2, also=(list,)), levels, fields, "layers_per_block"
    )
    if len(set(blocks)) > 1:
        raise fields.error("layers_per_block", "must be the same at every level")
    # a misnomer of diffusers: the number of heads
    heads = fields.take("attention_head_dim", 8, also=(list,))
    vector = fields.take("projection_class_embeddings_input_dim", None)
    guidance = fields.take("time_cond_proj_dim", None)
    if guidance is not None and not _fits(guidance, 1, 1):
        raise fields.error("time_cond_proj_dim", "must be a whole number")
    if vector is not None and not _fits(vector, 1, 1):
        raise fields.error("projection_class_embeddings_input_dim", "must be a whole number")
    if (vector is not None) != (data.get("addition_embed_type") == "text_time"):
        raise fields.error(
            "projection_class_embeddings_input_dim", "goes with addition_embed_type text_time"
        )
    config = UNetConfig(
        in_channels=fields.take("in_channels", 4),
        out_channels=fields.take("out_channels", 4),
        channels=channels,
        heads=_per_level(heads, levels, fields, "attention_head_dim"),
        depth=tuple(n if there else 0 for n, there in zip(depth, attends, strict=True)),
        middle_depth=depth[-1],
        blocks=blocks[0],
        text_channels=fields.take("cross_attention_dim", 1280),
        vector_channels=vector or 0,
        guidance_channels=guidance or 0,
        groups=fields.take("norm_num_groups", 32),
    )
    fields.finish()
    return config


def is_convolutional(config: UNetConfig) -> bool:
    """Whether files of such a U-Net project by 1x1 convolutions, as SD 1.x alone does."""
    return len(set(config.heads)) == 1 and not config.vector_channels


def unet_json(config: UNetConfig, sample_size: int = 64) -> dict[str, Any]:
    """The config.json with which diffusers builds the same U-Net."""
    heads: Any = list(config.heads)
    xl = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": config.vector_channels,
    }
    depth = [n or 1 for n in config.depth]
    if config.depth[-1] and config.depth[-1] != config.middle_depth:
        raise ConfigError(
            f"middle_depth {config.middle_depth} is not the last depth of {config.depth}: "
            "diffusers has no such U-Net"
        )
    depth[-1] = config.middle_depth
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
        "block_out_channels": list(config.channels),
        "center_input_sample": False,
        "cross_attention_dim": config.text_channels,
        "down_block_types": [
            "CrossAttnDownBlock2D" if n else "DownBlock2D" for n in config.depth
        ],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": config.in_channels,
        "layers_per_block": config.blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": config.groups,
        "out_channels": config.out_channels,
        "sample_size": sample_size,
        "time_cond_proj_dim": config.guidance_channels or None,
        "transformer_layers_per_block": depth[0] if len(set(depth)) == 1 else depth,
        "up_block_types": [
            "CrossAttnUpBlock2D" if n else "UpBlock2D" for n in reversed(config.depth)
        ],
        "use_linear_projection": not is_convolutional(config),
        **(xl if config.vector_channels else {}),
    }  # fmt: skip


AUTOENCODER_FIXED: Json = {"act_fn": "silu"}
AUTOENCODER_IGNORED = frozenset(
    {
        "force_upcast",  # a decode that is not finite is redone in float32
        "sample_size",
        "norm_type", "block_size",  # left by old versions, never used
    }
)  # fmt: skip


def autoencoder_config(data: Json, where: str = "vae/config.json") -> AutoencoderConfig:
    """Read the config of an AutoencoderKL.

    Raises:
        CheckpointError: naming the key and the value that our autoencoder does not implement.
    """
    fields = Fields(data, where, AUTOENCODER_FIXED, AUTOENCODER_IGNORED)
    channels = tuple(fields.take("block_out_channels", (64,)))
    for name, kind in (
        ("down_block_types", "DownEncoderBlock2D"),
        ("up_block_types", "UpDecoderBlock2D"),
    ):
        if list(fields.take(name, (kind,))) != [kind] * len(channels):
            raise fields.error(name, f"must be {len(channels)} times {kind}")
    quantize = fields.take("use_quant_conv", True)
    if fields.take("use_post_quant_conv", True) != quantize:
        raise fields.error("use_post_quant_conv", f"must be as use_quant_conv, {quantize}")
    images = fields.take("in_channels", 3)
    if fields.take("out_channels", 3) != images:
        raise fields.error("out_channels", f"must be as in_channels, {images}")
    latent = fields.take("latent_channels", 4)
    mean, deviation = (_of_latents(fields, f"latents_{name}", latent) for name in ("mean", "std"))
    if bool(mean) != bool(deviation):
        raise fields.error("latents_mean", "goes with latents_std, and that with it")
    if not all(value > 0 for value in deviation):
        raise fields.error("latents_std", "must be above 0")
    config = AutoencoderConfig(
        in_channels=images,
        latent_channels=latent,
        channels=channels,
        blocks=fields.take("layers_per_block", 1),
        groups=fields.take("norm_num_groups", 32),
        scale=float(fields.take("scaling_factor", 0.18215)),
        shift=float(fields.take("shift_factor", 0.0, also=(type(None),)) or 0.0),
        mean=mean,
        deviation=deviation,
        quantize=quantize,
        middle_attention=fields.take("mid_block_add_attention", True),
    )
    fields.finish()
    return config


def _of_latents(fields: Fields, name: str, channels: int) -> tuple[float, ...]:
    """One number for each channel of the latents, or none at all."""
    values = fields.take(name, None)
    if values is None:
        return ()
    numbers = isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and abs(value) < 1e6 for value in values
    )
    if not numbers or len(values) != channels:
        raise fields.error(name, f"must be {channels} numbers, one for each channel of the latents")
    return tuple(float(value) for value in values)


def autoencoder_json(config: AutoencoderConfig, sample_size: int = 512) -> dict[str, Any]:
    """The config.json with which diffusers builds the same autoencoder."""
    if config.patch != 1:
        raise ConfigError(f"patch {config.patch}: diffusers' AutoencoderKL has no such thing")
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(config.channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(config.channels),
        "force_upcast": True,
        "in_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "latents_mean": list(config.mean) or None,
        "latents_std": list(config.deviation) or None,
        "layers_per_block": config.blocks,
        "mid_block_add_attention": config.middle_attention,
        "norm_num_groups": config.groups,
        "out_channels": config.in_channels,
        "sample_size": sample_size,
        "scaling_factor": config.scale,
        "shift_factor": config.shift or None,
        "up_block_types": ["UpDecoderBlock2D"] * len(config.channels),
        "use_post_quant_conv": config.quantize,
        "use_quant_conv": config.quantize,
    }


TEXT_FIXED: Json = {
    "model_type": ("clip_text_model", "clip"),
    "hidden_act": ("quick_gelu", "gelu"),
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": ({}, []),
    "tie_encoder_decoder": False,
}
TEXT_IGNORED = frozenset(
    {
        "architectures", "attention_dropout", "dropout", "dtype", "torch_dtype",
        "initializer_factor", "initializer_range", "transformers_version", "return_dict",
        "bos_token_id", "pad_token_id", "sep_token_id",  # the tokenizer's business
        # what transformers used to write into every config: text generation, classification
        "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
        "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample",
        "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
        "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
        "is_encoder_decoder", "label2id", "length_penalty", "max_length", "min_length",
        "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
        "output_attentions", "output_hidden_states", "output_scores", "prefix", "problem_type",
        "remove_invalid_values", "repetition_penalty", "return_dict_in_generate",
        "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
        "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torchscript", "typical_p",
        "use_bfloat16",
    }
)  # fmt: skip
LEGACY_END = 2  # what the published configs say; the end is the vocabulary's last token


def text_config(data: Json, where: str = "text_encoder/config.json") -> TextConfig:
    """Read the config of a CLIPTextModel, or of a CLIPTextModelWithProjection.

    Raises:
        CheckpointError: naming the key and the value that our text tower does not implement.
    """
    fields = Fields(data, where, TEXT_FIXED, TEXT_IGNORED)
    vocabulary = fields.take("vocab_size", 49_408)
    end = fields.take("eos_token_id", 49_407, least=0)
    projection = fields.take("projection_dim", 512, least=0)
    projected = "CLIPTextModelWithProjection" in architectures_of(data)
    config = TextConfig(
        vocabulary=vocabulary,
        positions=fields.take("max_position_embeddings", 77),
        channels=fields.take("hidden_size", 512),
        layers=fields.take("num_hidden_layers", 12),
        heads=fields.take("num_attention_heads", 8),
        hidden=fields.take("intermediate_size", 2048),
        quick_gelu=fields.take("hidden_act", "quick_gelu") == "quick_gelu",
        projection=projection if projected else 0,
        end=vocabulary - 1 if end == LEGACY_END else end,
        eps=fields.take("layer_norm_eps", 1e-5),
    )
    fields.finish()
    return config


def text_json(config: TextConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the same text tower."""
    projected = "CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"
    return {
        "architectures": [projected],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": LEGACY_END if config.end == config.vocabulary - 1 else config.end,
        "hidden_act": "quick_gelu" if config.quick_gelu else "gelu",
        "hidden_size": config.channels,
        "intermediate_size": config.hidden,
        "layer_norm_eps": config.eps,
        "max_position_embeddings": config.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "pad_token_id": 1,
        "projection_dim": config.projection or config.channels,
        "vocab_size": config.vocabulary,
    }
