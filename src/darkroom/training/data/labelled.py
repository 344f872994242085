"""Small data sets of equal-sized images with a class each, in memory."""

import bz2
import gzip
import lzma
import math
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom import foreign
from darkroom.errors import DataError
from darkroom.images import MAX_BYTES, to_rgb, to_square, undecoded
from darkroom.training.data.reading import DamagedError, read_many

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
PACKED: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
)
EXPANSION = 20  # times its size that a packed tar may unpack to; pictures are packed already
ROOM = 256 << 20  # bytes besides
LARGEST_IDX = 1 << 30  # bytes
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
    members = sorted(_members(path))
    if not members or any("/" not in name for name, _ in members):
        raise DataError(f"{path}: expected class/file.jpg and the like in it")
    classes = sorted({name.split("/")[-2] for name, _ in members})
    names = [name for name, _ in members]
    labels = [classes.index(name.split("/")[-2]) for name in names]
    return _labelled([data for _, data in members], names, labels, classes, size, path)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures of a tar and their names; packed by gzip, bzip2 or xz, or not at all."""
    with foreign.open_file(path, DataError) as file:
        start = file.read(6)
        file.seek(0)
        unpacked: Any = next((kind(file) for head, kind in PACKED if start.startswith(head)), file)
        most = EXPANSION * os.fstat(file.fileno()).st_size + ROOM
        try:
            # pyright knows no file object that is not a whole IO
            with tarfile.open(fileobj=Bounded(unpacked, most), mode="r:") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
                for member in tar:
                    name = member.name.removeprefix("./")
                    if not member.isreg() or not name.lower().endswith(SUFFIXES):
                        continue
                    if not 0 <= member.size <= MAX_BYTES:
                        raise DataError(f"{path}: {name!r:.60} is {member.size:,} bytes: too large")
                    yield name, tar.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as e:
            raise DataError(f"{path}: not readable as a tar ({e})") from e


class Bounded:
    """A stream that unpacks at most so many bytes; more is an error."""

    def __init__(self, stream: Any, most: int) -> None:
        self.stream, self.most = stream, most

    def read(self, count: int) -> bytes:
        self._allow(self.stream.tell() + count)
        return self.stream.read(count)

    def seek(self, position: int) -> int:
        self._allow(position)
        return self.stream.seek(position)

    def tell(self) -> int:
        return self.stream.tell()

    def _allow(self, end: int) -> None:
        if not 0 <= end <= self.most:
            raise ValueError(f"it unpacks to more than {self.most:,} bytes: a bomb, or damaged")


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
        with undecoded(source, FORMATS) as image:
            image.draft("RGB", (size, size)) if size else None
            image = to_rgb(image, own=True)
            return np.asarray(to_square(image, size) if size else image)
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise damaged(source, error) from error


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
    head = 4 + 4 * dimensions
    with foreign.open_file(path, DataError) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        try:
            magic, *shape = struct.unpack(f">{1 + dimensions}I", stream.read(head))
            size = math.prod(shape)
            # gzip makes 1,032 bytes of one at most
            if size > min(LARGEST_IDX, 1032 * os.fstat(file.fileno()).st_size):
                raise ValueError(f"it claims {size:,} bytes")
            values = stream.read(size)
            whole = len(values) == size and not stream.read(1)
        except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
            raise DataError(f"{path}: not readable as an IDX file ({error})") from error
    if magic != 0x800 + dimensions or not whole:
        raise DataError(f"{path}: not an IDX file of {dimensions}-dimensional bytes, or cut off")
    if not size:
        raise DataError(f"{path}: an IDX file without values; expected MNIST's or the like")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(*shape)
