"""Pictures to hints: what a ControlNet wants to see of a photograph, drawn as its data was."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from darkroom.arguments import number, string
from darkroom.errors import ConfigError
from darkroom.images import ImageLike, open_image
from darkroom.names import did_you_mean
from darkroom.vision.annotators.canny import canny
from darkroom.vision.annotators.depth import depth, normals
from darkroom.vision.annotators.lines import mlsd
from darkroom.vision.annotators.poses import openpose
from darkroom.vision.annotators.scenes import seg
from darkroom.vision.annotators.soft_edges import hed, scribble

__all__ = ["KINDS", "Kind", "annotate"]


@dataclass(frozen=True)
class Kind:
    """One kind of hint."""

    draw: Callable[..., Image.Image]  # (image, **options), or (image, model, **options)
    files: tuple[str, ...] = ()  # public networks for it, as ``load`` takes them
    optional: bool = False  # the network may be left out

    @property
    def options(self) -> dict[str, Any]:
        """Each option's name and default."""
        parameters = inspect.signature(self.draw).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


ANNOTATORS = "hf:lllyasviel/Annotators"
DEPTH_FILES = ("dpt_hybrid-midas-501f0c75.pt", "Intel/dpt-hybrid-midas")
KINDS: Mapping[str, Kind] = {
    "canny": Kind(canny),
    "depth": Kind(depth, DEPTH_FILES),
    "normal": Kind(normals, DEPTH_FILES),
    "scribble": Kind(scribble, (f"{ANNOTATORS}:ControlNetHED.pth",), optional=True),
    "hed": Kind(hed, (f"{ANNOTATORS}:ControlNetHED.pth",)),
    "mlsd": Kind(mlsd, (f"{ANNOTATORS}:mlsd_large_512_fp32.pth",)),
    "seg": Kind(seg, (f"{ANNOTATORS}:upernet_global_small.pth",)),
    "openpose": Kind(openpose, (f"{ANNOTATORS}:body_pose_model.pth",)),
}


def annotate(kind: str, image: ImageLike, *, model: Any = None, **options: Any) -> Image.Image:
    """Draw the hint of a picture: RGB, of the picture's own size.

    A picture that is a hint already needs no call: give it to ``Control`` as it is.

    Args:
        kind: one of ``KINDS``.
        model: the network, as ``load`` opens it, for a kind that has one.
        options: the kind's own, as ``KINDS[kind].options`` lists them.

    Raises:
        ConfigError: the kind or an option is unknown or out of range, or the network is missing,
            unwanted or one for something else.
        ImageError: the picture cannot be read.
    """
    row = KINDS.get(string("hint", kind, f"one of {', '.join(KINDS)}"))
    if row is None:
        raise ConfigError(
            f"hint {kind!r} is unknown{did_you_mean(kind, KINDS)}; one of {', '.join(KINDS)}"
        )
    for name in options:
        if name not in row.options:
            known = ", ".join(row.options) or "no options"
            raise ConfigError(
                f"hint {kind!r}: option {name!r} is unknown{did_you_mean(name, row.options)}; "
                f"it has {known}"
            )
        if isinstance(row.options[name], int | float) and not isinstance(row.options[name], bool):
            number(f"hint {kind!r}: {name}", options[name])
    if model is not None and not row.files:
        raise ConfigError(f"hint {kind!r} needs no network; leave the model out")
    if model is None and row.files and not row.optional:
        raise ConfigError(f"hint {kind!r} needs a network; load {' or '.join(row.files)}")
    picture = open_image(image)
    return row.draw(picture, model, **options) if row.files else row.draw(picture, **options)
