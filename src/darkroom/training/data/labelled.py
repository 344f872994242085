"""Small data sets of equal-sized images with a class each, in memory."""

import gzip
import io
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.errors import DataError
from darkroom.images import MAX_PIXELS, to_rgb, to_square
from darkroom.training.data.reading import DamagedError, read_many

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")


@dataclass(frozen=True)
class Images:
    """Images of one size, with what is known of each."""

    pixels: Tensor  # (N, C, H, W) uint8
    labels: Tensor | None = None  # (N,) int64
    classes: tuple[str, ...] = ()  # the name of each label
    captions: tuple[tuple[str, ...], ...] | None = None  # of each image, one or more
    names: tuple[str, ...] = ()  # of each image's file
    remarks: tuple[str, ...] = ()  # what is to be said of the set: pictures were left out

    def __len__(self) -> int:
        return len(self.pixels)


def idx(folder: Path, train: bool = True) -> Images:
    """MNIST's own files: 60,000 or 10,000 digits, (N, 1, 28, 28). Also Fashion-MNIST and its kin.

    Args:
        folder: holds ``train-images-idx3-ubyte`` and its three companions, gzipped or not.

    Raises:
        DataError: a file is missing or damaged.
    """
    part = "train" if train else "t10k"
    pixels = _idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels = _idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(pixels) != len(labels):
        raise DataError(f"{folder}: {len(pixels)} images and {len(labels)} labels ({part})")
    names = tuple(str(digit) for digit in range(int(labels.max()) + 1))
    return Images(pixels[:, None], labels.long(), names)


def class_folders(folder: Path, size: int) -> Images:
    """``class/file``: the folders' names are the classes, in alphabetical order. RGB.

    Images are scaled so that the shorter side is ``size``, and cut to the middle.

    Raises:
        DataError: there is no image, or more than half are damaged.
    """
    classes = (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    )
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise DataError(f"{folder}: no images; expected class/file.jpg and the like")
    sources = [path for path, _ in found]
    return _labelled(
        sources,
        [str(path.relative_to(folder)) for path in sources],
        [label for _, label in found],
        classes,
        size,
        folder,
    )


def class_tar(path: Path, size: int | None = None) -> Images:
    """``class/file`` in a tar, as ``class_folders``; without ``size``, all must be of one size.

    Raises:
        DataError: the tar is damaged, or holds no image, or more than half are damaged.
    """
    try:
        with tarfile.open(path) as tar:
            members = sorted(
                (m.name.removeprefix("./"), tar.extractfile(m).read())  # pyright: ignore[reportOptionalMemberAccess]
                for m in tar
                if m.isfile() and m.name.lower().endswith(SUFFIXES)
            )
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not readable as a tar ({error})") from error
    if not members or any("/" not in name for name, _ in members):
        raise DataError(f"{path}: expected class/file.jpg and the like in it")
    classes = sorted({name.split("/")[-2] for name, _ in members})
    names = [name for name, _ in members]
    labels = [classes.index(name.split("/")[-2]) for name in names]
    return _labelled([data for _, data in members], names, labels, classes, size, path)


def _labelled(
    sources: Sequence[Path | bytes],
    names: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    size: int | None,
    where: Path,
) -> Images:
    pixels, kept, remarks = read_many(lambda s: read_square(s, size), sources, names, where)
    return Images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.tensor([labels[i] for i in kept]),
        tuple(classes),
        names=tuple(names[i] for i in kept),
        remarks=remarks,
    )


def read_square(source: Path | bytes, size: int | None) -> np.ndarray:
    """(size, size, 3) uint8: the shorter side scaled to ``size``, the middle of the longer one.

    Upright as its EXIF says, transparency on white.

    Raises:
        DamagedError: not an image, cut off, or above ``images.MAX_PIXELS``.
    """
    try:
        with Image.open(opened(source), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            image.draft("RGB", (size, size)) if size else None
            image = to_rgb(image)
            return np.asarray(to_square(image, size) if size else image)
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise damaged(source, error) from error


def opened(source: Path | bytes) -> Path | io.BytesIO:
    """As Pillow takes it."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


def damaged(source: Path | bytes, error: Exception) -> DamagedError:
    """The one line for a picture that Pillow does not read."""
    where = f"{source}: " if isinstance(source, Path) else ""
    return DamagedError(f"{where}not readable as an image ({error})")


def _idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """LeCun's format: two zeros, type 8 (bytes), dimensions, sizes (big-endian), values."""
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            break
    else:
        raise DataError(f"{folder}: no {name}; expected MNIST's four files, gzipped or not")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        magic, *shape = struct.unpack_from(f">{1 + dimensions}I", data)
    except (OSError, EOFError, struct.error) as error:
        raise DataError(f"{path}: not readable as an IDX file ({error})") from error
    values = data[4 + 4 * dimensions :]
    if magic != 0x800 + dimensions or len(values) != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: not an IDX file of {dimensions}-dimensional bytes, or cut off")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(*shape)
