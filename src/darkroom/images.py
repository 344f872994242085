"""Pictures in and out: files to PIL images, PIL images to tensors, and back.

Tensors are (B, 3, H, W) in [-1, 1]. Only PNG, JPEG and WebP are opened, after a look at their size.
torch and numpy are imported by the functions that need them, so looking at a picture stays quick.
"""

import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from darkroom import arrays, foreign
from darkroom.arguments import shown
from darkroom.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP")
DESCRIBED = (*FORMATS, "AVIF")  # of which the metadata are read, too
MAX_PIXELS = 50_000_000
MAX_BYTES = 256 << 20
KINDS = "expected a path, the bytes of a file, a picture of PIL, an array or a tensor"
STRIP = 256  # rows
MAX_RATIO = 1000  # pixels to a byte of a JPEG: its least is a bit for each block of 8x8, 512


class Readable(Protocol):
    """A file that is open."""

    def read(self, size: int = ..., /) -> bytes: ...


ImageLike = Image.Image | str | os.PathLike[str] | bytes | Readable | arrays.Array | arrays.Drawable

__all__ = [
    "ImageError",
    "ImageLike",
    "grid",
    "held",
    "labelled_grid",
    "listed",
    "open_depth",
    "open_image",
    "peek",
    "sheet",
    "titled",
    "to_pictures",
    "to_rgb",
    "to_square",
    "to_tensor",
    "undecoded",
]


def peek(source: ImageLike, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The picture with its size and metadata; pixels are not decoded yet.

    Args:
        source: a picture of PIL or of our own, a file by its path, its bytes or opened, an array
            or a tensor: see ``arrays``.
        formats: what a file may be.

    Raises:
        ImageError: for a file that is missing, no PNG, JPEG or WebP, or above 50 million pixels;
            for anything that is no picture.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, str | os.PathLike | bytes):
        if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            raise ImageError(f"{_printable(source)}: is a web address; download the picture first")
        return undecoded(source, formats)
    return _made(source)


def listed(images: Any, name: str = "the pictures") -> Iterable[Any]:
    """One picture or several: several as they are, an array (N, ...) one by one, one as a list.

    Raises:
        ImageError: it is neither.
    """
    if isinstance(images, str | bytes | os.PathLike | Image.Image | arrays.Drawable):
        return [images]
    if arrays.is_array(images):
        return arrays.batch(images) or [images]
    if hasattr(images, "read"):
        return [images]
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise ImageError(f"{name}: {shown(images)} is none; {KINDS}")
    return images


def held(source: Any) -> Any:
    """What can be read more than once: of an opened file its bytes, all else as it is.

    Raises:
        ImageError: the file gives no bytes, or too many.
    """
    if not hasattr(source, "read") or isinstance(source, os.PathLike | Image.Image):
        return source
    try:
        data = source.read(MAX_BYTES + 1)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ImageError(f"the picture: an opened file cannot be read: {error}") from None
    if not isinstance(data, bytes):
        raise ImageError("the picture: an opened file gives no bytes; open it with mode 'rb'")
    if len(data) > MAX_BYTES:
        raise ImageError(f"the picture: more than {MAX_BYTES:,} bytes, too large for a picture")
    return data


def titled(source: ImageLike) -> str:
    """What messages call a picture: the name of its file, or "the picture"."""
    if isinstance(source, str | os.PathLike):
        return _printable(Path(source).name)
    return "the picture"


def _made(source: Any) -> Image.Image:
    """The picture that something else than a file is."""
    if isinstance(source, bytearray | memoryview):
        return undecoded(bytes(source))
    if isinstance(source, arrays.Drawable) and not isinstance(source, type):
        return source.to_image()
    if arrays.is_array(source):
        made = arrays.to_picture(source)
        _check_size("the picture", made.size)
        return made
    if hasattr(source, "read"):
        return undecoded(held(source))
    many = f"; {len(source)} of them: give one" if isinstance(source, list | tuple) else ""
    raise ImageError(f"the picture: {shown(source)} is none{many}; {KINDS}")


def undecoded(
    source: str | os.PathLike[str] | bytes, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """A file's picture before its pixels are decoded; every file of pictures is opened here.

    Raises:
        ImageError: as ``peek``.
    """
    name = "the picture" if isinstance(source, bytes) else _printable(Path(source).name)
    data = source if isinstance(source, bytes) else _read(Path(source), name)
    _check_size(name, _webp_size(data))  # libwebp allocates its canvas when it opens the file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is checked just below; damage raises
            picture = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        known = "PNG, JPEG or WebP" if formats is FORMATS else ", ".join(formats)
        raise ImageError(f"{name}: not a {known} picture; convert it") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name}: more than {MAX_PIXELS // 10**6} million pixels; shrink it"
        ) from None
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise _damaged(name, error) from error
    _check_size(name, picture.size)
    pixels = picture.width * picture.height
    # WebP packs one colour into nothing; what is small is small in memory, too
    packed = picture.format == "JPEG" or (picture.format == "WEBP" and pixels > MAX_PIXELS // 4)
    if packed and pixels > MAX_RATIO * len(data):
        size = f"{picture.width}x{picture.height} pixels in {len(data):,} bytes"
        raise ImageError(f"{name}: {size}: it is cut short, or made to fill the memory")
    return picture


def open_image(source: ImageLike, *, alpha: bool = False) -> Image.Image:
    """An upright RGB picture, its pixels decoded; transparency lies on white.

    Args:
        alpha: leave an RGBA or LA picture as it is.

    Raises:
        ImageError: as ``peek``, or when the picture is damaged, cut short or an animation.
    """
    picture = peek(source)
    name = titled(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            moves = picture.format in ("PNG", "WEBP") and getattr(picture, "is_animated", False)
            if moves and not isinstance(source, Image.Image):
                raise ImageError(f"{name}: is an animation; save one of its frames as a picture")
            if alpha and picture.mode in ("RGBA", "LA"):
                return ImageOps.exif_transpose(picture)
            return to_rgb(picture, own=picture is not source)
    except ImageError:
        raise
    except Exception as error:
        raise _damaged(name, error) from error


def open_depth(source: ImageLike) -> "np.ndarray":
    """The numbers (H, W), float32, of a grey picture of 8 or 16 bits, upright; alpha is left out.

    Raises:
        ImageError: as ``open_image``, or when the picture is in colour.
    """
    import numpy as np

    picture = peek(source)
    name = titled(source)
    try:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")) or picture.mode == "L":
            return np.array(picture, np.float32)
        colours = np.asarray(picture.convert("RGB")).astype(np.float32)
    except Exception as error:
        raise _damaged(name, error) from error
    if (colours.max(-1) - colours.min(-1)).max(initial=0) > 8:  # JPEG leaves a little
        raise ImageError(f"{name}: in colour; give a depth map in grey, brighter is nearer")
    return colours.mean(-1)


def to_rgb(picture: Image.Image, own: bool = False) -> Image.Image:
    """Upright, 8 bits, three colours; transparency lies on white. Raises whatever Pillow does.

    Args:
        own: nobody else has the picture: it may be returned as it is. Large ones count.
    """
    turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
    upright = ImageOps.exif_transpose(picture) if turned else picture
    upright.load()
    if upright.has_transparency_data:
        return _on_white(upright)
    if upright.mode.startswith(("I", "F")):
        upright = _to_8_bits(upright)
    if upright.mode == "RGB" and (own or upright is not picture):
        return upright
    return upright.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    """In strips: three whole pictures of four bytes a pixel would be there otherwise."""
    result = Image.new("RGB", picture.size)
    for top in range(0, picture.height, STRIP):
        box = (0, top, picture.width, min(top + STRIP, picture.height))
        strip = picture.crop(box).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), box)
    return result


def to_tensor(picture: Image.Image, size: tuple[int, int] | None = None) -> "Tensor":
    """(1, 3, H, W) float32 in [-1, 1]; resized first to ``size`` (height, width), with Lanczos.

    The numbers are those of diffusers' ``VaeImageProcessor.preprocess``.
    """
    import numpy as np
    import torch

    if size is not None and size != (picture.height, picture.width):
        picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].to(torch.float32, copy=True).div_(255).mul_(2).sub_(1)


def to_pictures(images: "Tensor") -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1], clipped and rounded to 8 bits, one picture for each.

    The numbers are those of diffusers' ``VaeImageProcessor.postprocess``.

    Raises:
        ValueError: for another shape.
    """
    import torch

    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images of shape (B, 3, H, W) expected, got {tuple(images.shape)}")
    pixels = images.detach().float().mul(0.5).add(0.5).clamp(0, 1).mul(255).round()
    pixels = pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()
    return [Image.fromarray(p) for p in pixels]


def to_square(image: Image.Image, size: int, crop: bool = True) -> Image.Image:
    """``size`` x ``size`` pixels, bicubic.

    Args:
        crop: the shorter side is scaled to ``size`` and the middle of the longer one is taken;
            else both sides are scaled to ``size``.
    """
    width, height = image.size
    if crop:
        width = height = min(image.size)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    return image.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=3.0)


def sheet(images: "Tensor", columns: int, pad: int = 1) -> Image.Image:
    """(N, 1 or 3, H, W) in [-1, 1] in rows of ``columns``; grey lines of 2 ``pad`` between them."""
    import torch.nn.functional as F

    framed = F.pad(images.expand(-1, 3, -1, -1), (pad,) * 4, value=0.0)
    return grid(to_pictures(framed), columns)


def grid(pictures: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """The pictures in rows of ``columns`` (default: as near to a square as fits), in one picture.

    Smaller ones lie at the top left of their cell, on white.

    Raises:
        ValueError: no pictures, or columns below 1.
    """
    if not pictures or (columns is not None and columns < 1):
        raise ValueError("a grid needs at least one picture and one column")
    if columns is None:
        columns = next(n for n in range(1, len(pictures) + 1) if n * n >= len(pictures))
    columns = min(columns, len(pictures))
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture.convert("RGB"), (column * width, row * height))
    return sheet


def labelled_grid(
    pictures: Sequence[Image.Image],
    columns: int | None = None,
    *,
    titles: Sequence[str] = (),
    rows: Sequence[str] = (),
    scale: int = 1,
) -> Image.Image:
    """A grid with words: ``titles`` over the columns, or one over every picture; ``rows`` beside.

    Args:
        scale: how many times to enlarge each picture, in whole pixels.

    Raises:
        ValueError: no pictures, or another number of titles or rows than there is room for.
    """
    font, gap = ImageFont.load_default(), 4
    if not pictures or (columns is not None and columns < 1):
        raise ValueError("a grid needs at least one picture and one column")
    columns = columns or next(n for n in range(1, len(pictures) + 1) if n * n >= len(pictures))
    columns = min(columns, len(pictures))
    count = -(-len(pictures) // columns)
    each = len(titles) == len(pictures) and len(titles) != columns
    if len(titles) not in (0, columns, len(pictures)) or len(rows) not in (0, count):
        raise ValueError(
            f"{len(pictures)} pictures in {columns} columns and {count} rows: "
            f"got {len(titles)} titles and {len(rows)} rows"
        )
    height = max(picture.height for picture in pictures) * scale
    width = max(picture.width for picture in pictures) * scale
    width = max(width, *(round(font.getlength(title)) for title in (*titles, "")))
    line = 14  # pixels of a line of text
    left = max((round(font.getlength(row)) + 2 * gap for row in rows), default=0)
    above = line if titles and not each else 0  # once, at the top
    step = height + gap + (line if each else 0)
    sheet = Image.new("RGB", (left + columns * (width + gap), above + count * step), "white")
    pen = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x, y = left + column * (width + gap), above + row * step
        if titles and (each or row == 0):
            title = titles[index if each else column]
            pen.text((x + width / 2, y - above + line / 2), title, "black", font, anchor="mm")
        large = picture.convert("RGB").resize(
            (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
        )
        sheet.paste(large, (x + (width - large.width) // 2, y + (line if each else 0)))
        if rows and column == 0:
            pen.text((left - gap, y + height / 2), rows[row], "black", font, anchor="rm")
    return sheet


def _read(path: Path, name: str) -> bytes:
    try:
        with foreign.opened(path) as file:
            data = foreign.content(file, MAX_BYTES)
    except foreign.Unreadable as problem:
        raise ImageError(f"{name}: {problem}") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror}; check the path") from None
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: is more than {MAX_BYTES:,} bytes, too large for a picture")
    return data


def _check_size(name: str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} million pixels"
        raise ImageError(f"{name}: {size[0]}x{size[1]} is more than {limit}; shrink it")


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the header of a WebP file; (0, 0) for anything else.

    RFC 9649: VP8X at 24 and 27 (3 bytes each, minus one), VP8 at 26, VP8L at 21 (14 bits each).
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1
    if kind == b"VP8L":
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF


def _little(piece: bytes) -> int:
    return int.from_bytes(piece, "little")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """16-bit greyscale to 8 bits; Pillow's own ``convert`` would clip it instead."""
    import numpy as np

    values = np.asarray(picture)
    most = 255.0 if values.size == 0 or values.max() <= 255 else 65535.0
    made = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), STRIP):
        strip = values[top : top + STRIP].astype(np.float32) * (255 / most)
        made[top : top + STRIP] = strip.round().clip(0, 255)
    return Image.fromarray(made)


def _damaged(name: str, error: Exception) -> ImageError:
    reason = _printable(str(error) or type(error).__name__, 80)
    return ImageError(f"{name}: is damaged or cut short ({reason}); save or download it again")


def _printable(text: str, longest: int = 60) -> str:
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in text)
