"""A picture together with how it was drawn."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from darkroom.atomic import atomic_write
from darkroom.errors import ConfigError
from darkroom.generation.metadata import Params, files

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


SHOWN = 1024  # pixels of a side, in a notebook


@dataclass(frozen=True)
class Picture:
    """What ``develop`` returns, one per seed.

    ``np.asarray(picture)`` and ``torch.as_tensor(picture)`` are its pixels (H, W, 3), uint8.
    """

    image: Image.Image
    params: Params

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        mark: bool = True,
        describe: bool = True,
        quality: int = 95,
    ) -> Path:
        """Write a PNG, JPEG or WebP file, whole or not at all; the ending decides which.

        Args:
            mark: note that a machine made the picture (IPTC digital source type, Software).
            describe: write the parameters, from which the picture can be drawn again.
            quality: of JPEG and WebP, 1 to 100; WebP at 100 is lossless.

        Raises:
            ConfigError: on another ending, or when the parameters do not fit into the file.
        """
        path = Path(path)
        format = _FORMATS.get(path.suffix.lower())
        if format is None:
            raise ConfigError(f"{path}: expected a name that ends in {', '.join(_FORMATS)}")
        data = self.to_bytes(format, mark=mark, describe=describe, quality=quality)
        with atomic_write(path) as file:
            file.write(data)
        return path

    def to_bytes(
        self, format: str = "PNG", *, mark: bool = True, describe: bool = True, quality: int = 95
    ) -> bytes:
        """The file's bytes; arguments as for ``save``. ``format`` is PNG, JPEG or WEBP."""
        format = format.upper().replace("JPG", "JPEG")
        if format not in _FORMATS.values():
            raise ConfigError(f"format {format!r}: expected PNG, JPEG or WEBP")
        if not 1 <= quality <= 100:
            raise ConfigError(f"quality {quality}: expected 1 to 100")
        options = files.options(self.params, format, mark=mark, describe=describe)
        if format == "JPEG":
            options |= {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
        if format == "WEBP":
            options |= {"quality": quality, "lossless": quality == 100, "method": 4}
        buffer = io.BytesIO()
        self.image.save(buffer, format, **options)
        return buffer.getvalue()

    def to_image(self) -> Image.Image:
        """As ``image``: a picture of ours can stand where one of PIL can."""
        return self.image

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """(H, W, 3) of uint8, in memory of its own."""
        if copy is False:
            raise ValueError("a picture gives its pixels in a copy; leave copy=False out")
        return np.array(self.image.convert("RGB"), dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """For ``torch.as_tensor`` and the like, as ``__array__``."""
        return self.__array__().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU

    def _repr_png_(self) -> bytes:
        """How a notebook shows it: at most ``SHOWN`` pixels a side."""
        shown, file = self.image.copy(), io.BytesIO()
        shown.thumbnail((SHOWN, SHOWN))
        shown.save(file, "PNG")
        return file.getvalue()
