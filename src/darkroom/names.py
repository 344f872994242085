"""Names that people type, known without importing torch, and the nearest one to a mistyped one."""

import difflib
from collections.abc import Iterable

from darkroom.sampling.table import TABLE, meant

SAMPLER_NAMES = tuple(TABLE)
SPACING_NAMES = (
    "leading",
    "trailing",
    "linspace",
    "karras",
    "exponential",
    "beta",
    "sgm_uniform",
)
DTYPE_NAMES = ("float32", "float16", "bfloat16")
ANNOTATOR_NAMES = ("canny", "depth", "normal", "scribble", "hed", "mlsd", "seg", "openpose")
EXPORT_NAMES = (  # of masks; the plain name first, then its other form
    "coco",
    "coco-polygons",
    "yolo",
    "labelstudio",
    "labelstudio-brush",
    "png",
    "labelmap",
    "rle",
    "csv",
)
DEVICE_NAMES = ("cpu", "cuda", "mps")
DEFAULT_MODEL = "emoji"  # built in
EDIT_MODEL = "emoji-inpaint"  # of ``darkroom edit``; built in
ENCODER_MODEL = "emoji-clip"  # of pictures and words; built in
SEGMENT_MODEL = "emoji-sam"  # built in


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like ``name``, or None when none is like it.

    A sampler is found by what other programs call it, too.
    """
    lowered = {known.lower(): known for known in names}
    if (sampler := meant(name)) in lowered:
        return sampler
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'heun'?"`` for the end of a message, or an empty string."""
    close = nearest(name, names)
    return f"; did you mean {close!r}?" if close else ""
