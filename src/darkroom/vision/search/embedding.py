"""Look at the pictures of a folder that a store does not know yet."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom import foreign
from darkroom.errors import ImageError
from darkroom.images import MAX_BYTES, peek
from darkroom.vision.encoder import Encoder
from darkroom.vision.reading import read_ahead
from darkroom.vision.search.store import File
from darkroom.vision.search.writing import Writer

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
BATCH = 32  # pictures at a time
EVERY = 2.0  # seconds between commits: at most so much work is lost


class Embedded(NamedTuple):
    """One picture on its way into a store."""

    file: File
    problem: str = ""  # why it is left out


class _Read(NamedTuple):
    file: File
    digest: bytes = b""
    problem: str = ""
    known: bool = False
    pixels: int = 0
    picture: Tensor | None = None  # (3, size, size) uint8


def pictures_in(folder: Path) -> list[File]:
    """Every PNG, JPEG and WebP below a folder, by path; hidden ones and linked folders left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    found: list[File] = []
    waiting = [""]
    while waiting:
        under = waiting.pop()
        with os.scandir(folder / under) as entries:
            for entry in entries:
                path = os.path.join(under, entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                    status = entry.stat()
                    found.append(File(path, status.st_size, status.st_mtime_ns))
    return sorted(found)


def embed(
    writer: Writer, encoder: Encoder, folder: Path, files: Sequence[File], batch: int = BATCH
) -> Iterator[Embedded]:
    """Add these files to the store, in order; each is told of once it has been looked at.

    Files whose bytes are known under another name, or were known before they were touched, are
    not looked at again. One that cannot be read is told of with its problem, and dropped from the
    store. Commits as it goes; at the end, all is committed.
    """
    committed = time.monotonic()
    hashed = read_ahead(lambda file: _hashed(folder, file), files)
    looked_up = (_looked_up(writer, one) for one in hashed)
    decoded = read_ahead(lambda one: _decoded(folder, one, encoder), looked_up, 2 * batch)
    for part in _batches(decoded, batch):
        readable = [(one, one.picture) for one in part if one.picture is not None]
        if readable:
            vectors = encoder.images(torch.stack([picture for _, picture in readable]))
            writer.add([(one.file, one.digest, one.pixels) for one, _ in readable], vectors)
        writer.drop(one.file.path for one in part if one.problem)
        if time.monotonic() - committed > EVERY:
            writer.commit()
            committed = time.monotonic()
        yield from (Embedded(one.file, one.problem) for one in part)
    writer.commit()


def _looked_up(writer: Writer, one: _Read) -> _Read:
    """Those whose bytes are known go to the store as they are."""
    known = None if one.problem else writer.find(one.digest)
    if known:
        pixels, vector = known
        writer.add([(one.file, one.digest, pixels)], vector[None])
    return one._replace(known=known is not None)


def _hashed(folder: Path, file: File) -> _Read:
    path = folder / file.path
    try:
        if file.bytes > MAX_BYTES:
            peek(path)  # says so
        with foreign.open_file(path, ImageError) as data:
            digest = hashlib.file_digest(data, lambda: hashlib.blake2b(digest_size=16)).digest()
        return _Read(file, digest)
    except ImageError as error:
        return _Read(file, problem=str(error))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return _Read(file, problem=f"{path.name}: cannot be read: {reason}; check the path")


def _decoded(folder: Path, one: _Read, encoder: Encoder) -> _Read:
    if one.problem or one.known:
        return one
    path = folder / one.file.path
    try:
        width, height = peek(path).size
        return one._replace(pixels=width * height, picture=encoder.read(path))
    except ImageError as error:
        return one._replace(problem=str(error))


def _batches(items: Iterable[_Read], size: int) -> Iterator[list[_Read]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
