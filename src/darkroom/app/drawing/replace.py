"""Something in a picture replaced by something else: words choose a mask, a model paints there."""

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.arguments import whole
from darkroom.keywords import explained
from darkroom.names import EDIT_MODEL, ENCODER_MODEL, SEGMENT_MODEL

if TYPE_CHECKING:
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.metadata import UsedSelection
    from darkroom.generation.picture import Picture
    from darkroom.images import ImageLike
    from darkroom.masks import Mask
    from darkroom.vision.encoder import Encoder
    from darkroom.vision.select import Segmenter, Selection

GROW = 4  # pixels around what was chosen: its edge belongs to it


@dataclass(frozen=True)
class Replacement:
    """A picture with something replaced in it."""

    picture: "Picture"
    selection: "Selection"
    mask: "Mask"  # what was painted: what was chosen, without holes and grown


@explained
def replace(
    image: "ImageLike",
    what: str,
    prompt: str,
    *features: "Feature",
    model: "str | LatentDiffusion" = EDIT_MODEL,
    segmenter: "str | Segmenter" = SEGMENT_MODEL,
    encoder: "str | Encoder" = ENCODER_MODEL,
    threshold: float | None = None,
    against: Sequence[str] = (),
    every: bool = False,
    grow: int = GROW,
    padding: int | None = None,
    feather: int = 0,
    seed: int | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    sampler: str | None = None,
    spacing: str | None = None,
    timesteps: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    tile: bool | None = None,
    memory_limit: int | None = None,
) -> Replacement:
    """Find what ``what`` names in a picture, and paint ``prompt`` there; the rest stays as it was.

    The model draws the surroundings of the mask alone, at its full size.

    Args:
        what: a thing in the picture: "the dog".
        features: others than ``Inpaint``; without a ``Guidance`` the model's own scale is used.
        model, segmenter, encoder: names as ``load``, ``open_segmenter`` and ``open_encoder`` take
            them, or what those return.
        threshold, against, every: as of ``vision.select.select``.
        grow: pixels that the mask is made larger by, at least 0.
        padding: pixels around the mask that the model sees; None = an eighth of its longer side.
        feather: as of ``Inpaint``.
        seed: None draws one.
        steps, size, sampler, spacing, timesteps, options, tile, memory_limit: as of ``generate``.

    Raises:
        NotFoundError: nothing fits ``what`` well enough; its ``selection`` has the candidates.
        DarkroomError: as of ``load``, ``generate`` and ``Inpaint``.
        ValueError: no words, a threshold outside of [0, 1], or ``grow`` below 0.
    """
    from darkroom.generation.generate import develop
    from darkroom.generation.inpaint import Inpaint
    from darkroom.generation.metadata import UsedSelection
    from darkroom.images import open_image
    from darkroom.vision.select import NotFoundError

    grow = whole("grow of", grow, "0 pixels or more")
    picture = open_image(image)
    how = UsedSelection(
        text=what, threshold=threshold, against=tuple(against), every=every, grow=grow
    )
    selection, how = find(picture, how, segmenter, encoder)
    if selection.chosen is None:
        raise NotFoundError(selection)
    mask = selection.chosen.fill_holes().grow(grow)
    if isinstance(model, str):
        from darkroom.app.session import open_model

        model = open_model(model, None, None)
    if padding is None:
        padding = surroundings(mask)
    inpaint = Inpaint(
        picture, mask, only_masked=True, padding=padding, feather=feather, selected=how
    )
    seed = secrets.randbelow(2**32) if seed is None else seed
    (made,) = develop(
        model,
        prompt,
        inpaint,
        *features,
        seeds=[seed],
        steps=steps,
        size=size,
        sampler=sampler,
        spacing=spacing,
        timesteps=timesteps,
        options=options,
        tile=tile,
        memory_limit=memory_limit,
    )
    return Replacement(made, selection, mask)


def surroundings(mask: "Mask") -> int:
    """Pixels around a mask that a model is to see: an eighth of its longer side."""
    left, top, right, bottom = mask.box or (0, 0, 0, 0)
    return max(right - left, bottom - top) // 8


def find(
    image: "ImageLike",
    how: "UsedSelection",
    segmenter: "str | Segmenter" = "",
    encoder: "str | Encoder" = "",
    device: str | None = None,
) -> "tuple[Selection, UsedSelection]":
    """What ``how`` says of a picture, and ``how`` with the names and threshold that were used.

    Args:
        segmenter, encoder: "" = those that ``how`` names.
    """
    from darkroom.vision.encoder import open_encoder
    from darkroom.vision.segment import open_segmenter
    from darkroom.vision.select import select

    segmenter = segmenter or how.segmenter or SEGMENT_MODEL
    encoder = encoder or how.encoder or ENCODER_MODEL
    names = {
        name: given if isinstance(given, str) else given.name
        for name, given in (("segmenter", segmenter), ("encoder", encoder))
    }
    if isinstance(segmenter, str):
        segmenter = open_segmenter(segmenter, device)
    if isinstance(encoder, str):
        encoder = open_encoder(encoder, device)
    selection = select(
        segmenter,
        encoder,
        image,
        how.text,
        threshold=how.threshold,
        against=how.against,
        every=how.every,
    )
    return selection, dataclasses.replace(how, threshold=selection.threshold, **names)
