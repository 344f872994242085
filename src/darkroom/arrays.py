"""Arrays and tensors taken for pictures and masks; everything that takes either comes here.

A picture is uint8 of 0 to 255 or floats of 0 to 1: (H, W), (H, W, C) or (C, H, W), of 1, 3 or, with
the channels last, 4 (transparency); a batch dimension of 1 may stand before. A mask is (H, W), with
dimensions of 1 anywhere around: bool, floats of 0 to 1, uint8, or whole numbers 0 and 1. What could
mean two things is refused. numpy is imported when it is needed.
"""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from PIL import Image

from darkroom.errors import ArrayError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Array", "Drawable", "batch", "is_array", "mask_values", "numbers", "to_picture"]

HALF = 0.5 / 255  # what floats may lie outside of 0 to 1 by: it rounds to the same 8 bits
RANGE = "expected uint8 from 0 to 255 or floats from 0 to 1"


@runtime_checkable
class Array(Protocol):
    """What NumPy can read: its own arrays, tensors of PyTorch, JAX, ..."""

    def __array__(self, dtype: Any = ..., /) -> Any: ...


@runtime_checkable
class Drawable(Protocol):
    """What can show itself as a picture: our own pictures and masks."""

    def to_image(self) -> Image.Image: ...


def is_array(value: object) -> bool:
    """Whether ``value`` is an array or a tensor."""
    return isinstance(value, Array) and not isinstance(value, type)


def numbers(name: str, value: Any) -> "np.ndarray":
    """An array or tensor, on whatever device, as NumPy has it; half precision becomes float32.

    Raises:
        ArrayError: it holds no numbers, or none at all.
    """
    import numpy as np

    try:
        if hasattr(value, "detach"):  # a tensor; NumPy has no bfloat16 and knows no other device
            value = value.detach().cpu()
            if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
                value = value.float()
        found = np.asarray(value)
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise ArrayError(f"{name}: no array can be made of it ({reason}); {RANGE}") from None
    if found.dtype.kind not in "buif":
        raise ArrayError(f"{name}: an array of {found.dtype}; {RANGE}")
    if not found.size:
        raise ArrayError(f"{name}: an empty array, of shape {found.shape}; give one with pixels")
    return found


def to_picture(value: Any, name: str = "the picture") -> Image.Image:
    """An array or tensor as a picture in grey, RGB or RGBA, of 8 bits.

    Raises:
        ArrayError: its shape, type or values are none of a picture, or could mean two things.
    """
    import numpy as np

    pixels = _channels_last(name, numbers(name, value))
    if pixels.dtype.kind == "b":
        raise ArrayError(
            f"{name}: an array of bool is a mask, not a picture; give uint8, or dr.Mask(array)"
        )
    if pixels.dtype.kind == "f":
        least, most = _range(name, pixels)
        if least < -HALF:
            advice = "from -1 to 1, say x / 2 + 0.5" if least >= -1 - HALF else RANGE
            raise ArrayError(f"{name}: floats from {least:g} to {most:g}; {advice}")
        if most > 1 + HALF:
            advice = "say x / 255, or x.astype('uint8')" if most <= 255 else RANGE
            raise ArrayError(f"{name}: floats up to {most:g}; {advice}")
        pixels = (pixels.astype(np.float32) * 255).round().clip(0, 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        advice = "say (x / 257).astype('uint8')" if pixels.dtype == np.uint16 else RANGE
        raise ArrayError(f"{name}: an array of {pixels.dtype}; {advice}")
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(pixels))


def mask_values(value: Any, name: str = "the mask") -> "np.ndarray":
    """An array or tensor as (H, W), of bool, or of float32 in [0, 1].

    uint8 counts up to 255, unless it holds 0 and 1 alone; these are outside and inside in every
    type of whole numbers.

    Raises:
        ArrayError: its shape, type or values are none of a mask.
    """
    import numpy as np

    values = numbers(name, value)
    shape = values.shape
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2:
        raise ArrayError(
            f"{name}: an array of shape {shape}; expected (height, width): H, W of one mask"
        )
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind == "f":
        least, most = _range(name, values)
        if least < 0 or most > 1:
            raise ArrayError(
                f"{name}: floats from {least:g} to {most:g}; a soft mask lies in [0, 1]; use a "
                "threshold for logits: x > 0"
            )
        return values.astype(np.float32, copy=False)
    least, most = int(values.min()), int(values.max())
    if least >= 0 and most <= 1:
        return values == 1
    if values.dtype != np.uint8:
        raise ArrayError(
            f"{name}: {values.dtype} from {least} to {most}; a mask is bool or float, or whole "
            "numbers 0 and 1; of a map of classes say dr.Mask.from_classes(map, number)"
        )
    if np.isin(values, (0, 255)).all():
        return values > 0
    return values.astype(np.float32) / 255


def batch(value: Any) -> "list[Any] | None":
    """The pictures of an array (N, ...) of four dimensions, one by one; None for anything else."""
    if not is_array(value) or getattr(value, "ndim", 0) != 4:
        return None
    return list(value)


def _channels_last(name: str, pixels: "np.ndarray") -> "np.ndarray":
    """(H, W) or (H, W, C)."""
    shape, wanted = pixels.shape, "expected (H, W), (H, W, 3) or (3, H, W)"
    if pixels.ndim == 4:
        if shape[0] != 1:
            raise ArrayError(
                f"{name}: an array of shape {shape}, a batch of {shape[0]}; give one picture, x[0]"
            )
        pixels = pixels[0]
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3:
        raise ArrayError(f"{name}: an array of shape {shape}; {wanted}")
    first, last = pixels.shape[0] in (1, 3), pixels.shape[2] in (1, 3, 4)
    if first and last:
        raise ArrayError(
            f"{name}: an array of shape {shape}; its channels may be first or last: give a picture "
            "made of it, Image.fromarray(x)"
        )
    if first:
        return pixels.transpose(1, 2, 0)
    if not last:
        more = "; latents are no picture" if pixels.shape[0] == 4 else ""
        raise ArrayError(f"{name}: an array of shape {shape}; {wanted}{more}")
    return pixels


def _range(name: str, values: "np.ndarray") -> tuple[float, float]:
    import numpy as np

    if not np.isfinite(values).all():
        raise ArrayError(f"{name}: an array with NaN or infinity in it; {RANGE}")
    return float(values.min()), float(values.max())
