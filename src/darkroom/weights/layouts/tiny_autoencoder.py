"""Where diffusers and the original files keep the tiny autoencoder, and its config.json."""

from collections.abc import Iterator
from typing import Any

from darkroom.models.tiny_autoencoder import (
    TAESD,
    TAESD3,
    TinyAutoencoder,
    TinyAutoencoderConfig,
)
from darkroom.weights.configs import Fields, Json
from darkroom.weights.layout import Entry, Layout, under

BLOCK = {"conv.0": "conv1", "conv.2": "conv2", "conv.4": "conv3"}


def diffusers(config: TinyAutoencoderConfig) -> Iterator[Entry]:
    """The names of diffusers' AutoencoderTiny."""
    yield from _half("encoder.layers.", 0, "encoder", config.encoder_blocks)
    yield from _half("decoder.layers.", 0, "decoder", config.decoder_blocks)


def original(config: TinyAutoencoderConfig) -> Iterator[Entry]:
    """The names in taesd_encoder and taesd_decoder, with ``encoder.`` and ``decoder.`` in front.

    The decoder's layers count from its clamp, so each is one further than in diffusers.
    """
    yield from _half("encoder.", 0, "encoder", config.encoder_blocks)
    yield from _half("decoder.", 1, "decoder", config.decoder_blocks)


def _half(theirs: str, shift: int, ours: str, blocks: tuple[int, ...]) -> Iterator[Entry]:
    layers = sum(blocks) + (len(blocks) + 1 if ours == "encoder" else 2 * len(blocks) + 1)
    for index in range(layers):
        path = f"{theirs}{index + shift}"
        yield Entry(path, f"{ours}.{index}")
        yield from under(path, f"{ours}.{index}", BLOCK)


PRESETS = {"taesd": TAESD, "taesd3": TAESD3}
DIFFUSERS = Layout("diffusers-tiny", "encoder.layers.", diffusers, TinyAutoencoder, PRESETS)
ORIGINAL = Layout("taesd", "encoder.0.", original, TinyAutoencoder, PRESETS)
LAYOUTS = (DIFFUSERS, ORIGINAL)

FIXED: Json = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "upsampling_scaling_factor": 2,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}
IGNORED = frozenset(
    {"block_out_channels", "force_upcast"}  # written by diffusers, read by nobody
    | {"latent_magnitude", "latent_shift"}  # of storing latents as 8-bit pictures
)


def tiny_autoencoder_config(data: Json, where: str = "config.json") -> TinyAutoencoderConfig:
    """Read the config of a diffusers AutoencoderTiny.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, FIXED, IGNORED)
    encoder = tuple(fields.take("num_encoder_blocks", (1, 3, 3, 3)))
    decoder = tuple(fields.take("num_decoder_blocks", (3, 3, 3, 1)))
    if len(decoder) != len(encoder):
        raise fields.error("num_decoder_blocks", f"must have {len(encoder)} levels")
    widths = set()
    for name in ("encoder_block_out_channels", "decoder_block_out_channels"):
        channels = fields.take(name, (64, 64, 64, 64))
        widths |= set(channels)
        if len(channels) != len(encoder) or len(widths) != 1:
            raise fields.error(name, f"must be one width, {len(encoder)} times")
    images = fields.take("in_channels", 3)
    if fields.take("out_channels", 3) != images:
        raise fields.error("out_channels", f"must be as in_channels, {images}")
    config = TinyAutoencoderConfig(
        in_channels=images,
        latent_channels=fields.take("latent_channels", 4),
        channels=widths.pop(),
        encoder_blocks=encoder,
        decoder_blocks=decoder,
    )
    fields.finish()
    return config


def tiny_autoencoder_json(config: TinyAutoencoderConfig) -> dict[str, Any]:
    """The config.json with which diffusers builds the same autoencoder."""
    return {
        "_class_name": "AutoencoderTiny",
        "act_fn": "relu",
        "decoder_block_out_channels": [config.channels] * len(config.decoder_blocks),
        "encoder_block_out_channels": [config.channels] * len(config.encoder_blocks),
        "force_upcast": False,
        "in_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "latent_magnitude": 3,
        "latent_shift": 0.5,
        "num_decoder_blocks": list(config.decoder_blocks),
        "num_encoder_blocks": list(config.encoder_blocks),
        "out_channels": config.in_channels,
        "scaling_factor": 1.0,
        "upsampling_scaling_factor": 2,
    }
