"""Where the book's "CLIP from scratch" keeps its towers: a Trainer's checkpoint, or best.pt."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from darkroom.errors import ConfigError
from darkroom.models.dual_encoder import BOOK_CLIP, DualEncoder, DualEncoderConfig
from darkroom.weights.layout import Entry, Layout, Table, under
from darkroom.weights.layouts import distilbert, resnet

IMAGE, TEXT = "image_encoder.model.", "text_encoder.model."
PROJECTION: Table = {"projection": "linear1", "fc": "linear2", "layer_norm": "norm"}


def book(config: DualEncoderConfig) -> Iterator[Entry]:
    """The names of the book's class: timm's and transformers' inside."""
    yield from resnet.torchvision(config.image, IMAGE, "image.")
    yield from distilbert.transformers(config.text, TEXT, "text.")
    for name in ("image_projection", "text_projection"):
        yield from under(name, name, PROJECTION)


BOOK = Layout("clip-from-scratch", IMAGE, book, DualEncoder, {"book": BOOK_CLIP})


def dual_encoder_sizes(state: Mapping[str, Tensor]) -> DualEncoderConfig:
    """The config of such a file, by its names and shapes."""
    return DualEncoderConfig(
        image=resnet.resnet_sizes(state, IMAGE),
        text=distilbert.distilbert_sizes(state, TEXT),
        projection=state["image_projection.projection.weight"].shape[0],
    )


def dual_encoder_json(config: DualEncoderConfig) -> dict[str, Any]:
    """There is no library with such a config.json: it is written in our own words.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"no library describes {config}")
