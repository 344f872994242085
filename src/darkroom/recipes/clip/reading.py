"""What a dual encoder learns from and is measured on: in memory, or left on the disk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from darkroom.images import ImageLike
from darkroom.recipes.clip.retrieval import SHOWN
from darkroom.training.data import Pictures, captioned, open_data
from darkroom.training.data.flickr8k import flickr8k
from darkroom.training.data.labelled import Images
from darkroom.training.data.opening import flickr_files

if TYPE_CHECKING:
    from darkroom.recipes.clip import Config

MEASURED = 1000  # pictures, at most, of a set without lists of its own


@dataclass(frozen=True)
class Measured:
    """Pictures to measure on."""

    images: Images
    source: Callable[[int], ImageLike]  # number of an image -> itself, larger
    name: str


@dataclass(frozen=True)
class Learnt:
    """Pictures to train on: either ``pixels`` in memory, or ``streamed`` from the disk."""

    captions: tuple[tuple[str, ...], ...]  # of each
    measured: Callable[[int, bool], Measured]  # of a size; while training, or at its end
    remarks: tuple[str, ...] = ()
    pixels: Tensor | None = None  # (N, 3, side, side) uint8; of cut-outs (N, 4, size, size)
    streamed: Pictures | None = None
    rows: tuple[dict[str, Any], ...] = ()  # of cut-outs, all that is known of each


def read(config: "Config", side: int) -> Learnt:
    """Flickr8k as its lists split it; of any other set a fraction is kept aside.

    Raises:
        DataError: nothing is there, or nothing with words.
    """
    if (config.data / "captions.txt").is_file():
        return _flickr(config, side)
    found = captioned(open_data(config.data))
    rest, aside = map(found.of, found.pictures.split(config.held_out, config.fit.seed))
    chosen = aside if len(aside) else rest
    shown = chosen.of(chosen.pictures.spread(MEASURED))

    def measured(size: int, end: bool) -> Measured:
        pixels, kept = shown.pictures.hold(size)
        images = Images(pixels, captions=tuple(shown.captions[i] for i in kept))

        def source(i: int) -> Image.Image:
            large = shown.pictures.read([kept[i]], SHOWN)[0]
            return Image.fromarray(large.permute(1, 2, 0).numpy())

        return Measured(images, source, "kept aside" if len(aside) else "trained on")

    if config.stream or found.pictures.sharded:
        return Learnt(rest.captions, measured, found.remarks, streamed=rest.pictures)
    pixels, kept = rest.pictures.hold(side)
    remarks = (*found.remarks, *found.pictures.remarks())
    return Learnt(tuple(rest.captions[i] for i in kept), measured, remarks, pixels)


def _flickr(config: "Config", side: int) -> Learnt:
    def measured(size: int, end: bool) -> Measured:
        split = "test" if end else "dev"
        images = flickr8k(config.data, size, split)
        return Measured(images, lambda i: config.data / "Images" / images.names[i], split)

    if config.stream:
        files = flickr_files(config.data, "train")
        return Learnt(tuple(files.all_captions()), measured, streamed=files)
    images = flickr8k(config.data, side, "train")
    assert images.captions is not None
    return Learnt(images.captions, measured, images.remarks, images.pixels)
