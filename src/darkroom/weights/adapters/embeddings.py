"""Textual inversions: found by the name that a prompt uses, read, and fitted to text towers."""

import base64
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import foreign
from darkroom.errors import CheckpointError, DarkroomError, ModelMismatchError
from darkroom.weights import registry
from darkroom.weights.adapters.finding import (
    IN_FOLDERS,
    PICTURE_SUFFIXES,
    called,
    find,
    in_folders,
    sha256_of,
)
from darkroom.weights.readers.quantized import UNQUANTISED

if TYPE_CHECKING:
    from torch import Tensor

KIND = "textual inversion"
BASES = {(768,): "SD 1.x", (1024,): "SD 2.x", (768, 1280): "SDXL", (1280,): "SDXL refiner"}
LARGEST = 64 << 20  # bytes of JSON in a picture: 800 vectors of 4096 numbers
_MOST_HIDDEN = 4_000_000  # pixels on either side of a picture
_BLACK = 2  # empty columns, at least, between data and picture


@dataclass(frozen=True, kw_only=True)
class EmbeddingFile:
    """A textual inversion that has been opened."""

    name: str  # by which its file is found
    words: tuple[str, ...]  # that stand for it in prompts
    vectors: "tuple[Tensor, ...]"  # (n, C) for each tower that it was made for
    sha256: str = ""

    @property
    def base(self) -> str:
        """What it was made for; "" = its widths are of no public model."""
        return BASES.get(tuple(tensor.shape[-1] for tensor in self.vectors), "")


def find_embedding(name: str | os.PathLike[str]) -> Path:
    """Where the textual inversion called ``name`` is; imports no torch.

    Raises:
        ModelNotFoundError: with the nearest name, and what to do.
    """
    return find(name, KIND)


def is_mentioned(word: str, text: str) -> bool:
    """Whether a prompt has it as a word of its own, in any case."""
    return bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def mentioned(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """The textual inversions on this machine that prompts call by name; imports no torch.

    Looked for in the model folders and below, by the files' names, and among registered models; a
    ``learned_embeds`` file goes by its folder's name and by its own token.

    Returns:
        (word, file), each word once; the first file of a name wins.
    """
    text, found = "\n".join(texts), dict[str, Path]()
    for word, path in _candidates():
        if word.lower() not in found and is_mentioned(word, text) and _is_embedding(path):
            found[word.lower()] = path
    return list(found.items())


def open_embedding(name: str | os.PathLike[str]) -> EmbeddingFile:
    """Find and read a textual inversion, in any of its public forms, pictures included.

    Raises:
        ModelNotFoundError: there is none of that name.
        CheckpointError: the file is no textual inversion, or cannot be used.
    """
    from darkroom.text.textual_inversion import read_embedding
    from darkroom.weights.files import read_object

    path = find_embedding(name)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        content = read_picture(path)
    else:
        content = _plain(read_object(path))
    label = called(name, path)
    try:
        token, vectors = read_embedding(content, path.stem)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; `darkroom inspect` says what it is") from None
    stem = path.parent.name if path.stem in IN_FOLDERS else path.stem
    words = tuple(dict.fromkeys(word for word in (token, stem, label) if word not in IN_FOLDERS))
    for tensor in vectors:
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: has vectors in {kind}, quantised; {UNQUANTISED}")
    vectors = tuple(tensor.float() for tensor in vectors)
    return EmbeddingFile(name=label, words=words, vectors=vectors, sha256=sha256_of(path))


def fit_embedding(
    file: EmbeddingFile, widths: Sequence[int], model: str = ""
) -> "tuple[Tensor, ...]":
    """The vectors for each text tower, of these widths in turn.

    Args:
        model: the base of the model, for the message.

    Raises:
        ModelMismatchError: it is for other towers.
    """
    by_width = {tensor.shape[-1]: tensor for tensor in file.vectors}
    if len(file.vectors) == len(widths):
        chosen = list(file.vectors)
    else:  # XL's refiner has the second of two towers
        chosen = [by_width[width] for width in widths if width in by_width and len(widths) == 1]
    if [tensor.shape[-1] for tensor in chosen] != list(widths):
        own = file.base or f"towers of width {[*by_width]}"
        other = model or f"one with towers of width {[*widths]}"
        raise ModelMismatchError(
            f"{file.name}: this is a textual inversion for {own}; the model is {other}: use one "
            "that was made for it"
        )
    return tuple(chosen)


def read_picture(path: Path) -> object:
    """What A1111 has hidden in a picture: as text in a PNG, or in the low bits of its edges.

    Raises:
        CheckpointError: there is nothing, or it is damaged.
        ImageError: the picture cannot be read.
    """
    from darkroom.images import open_image, peek

    text = peek(path).info.get("sd-ti-embedding")
    where = f"{path}: the textual inversion in it"
    try:
        if isinstance(text, str | bytes):
            data = base64.b64decode(text, validate=True)
        elif (packed := _low_bits(open_image(path))) is not None:
            data = zlib.decompressobj().decompress(packed, LARGEST)
        else:
            raise CheckpointError(
                f"{path}: no textual inversion is in this picture; give the file itself"
            )
    except (ValueError, zlib.error) as error:
        raise CheckpointError(
            f"{where} is damaged ({type(error).__name__}); pictures lose it when they are converted"
        ) from None
    return _tensors(foreign.parse_json(data, f"{where} is damaged", CheckpointError), where)


def _candidates() -> Iterator[tuple[str, Path]]:
    for path in in_folders(KIND):
        if path.stem in IN_FOLDERS:
            yield path.parent.name, path
            if token := _token(path):
                yield token, path
        else:
            yield path.stem, path
    for name, entry in registry.registered().items():
        if entry.path.is_file():
            yield name, entry.path


def _token(path: Path) -> str:
    """The only name in a file of diffusers' form."""
    from darkroom.weights.files import read_header

    if path.stat().st_size > LARGEST:
        return ""
    try:
        names = list(read_header(path).tensors)
    except DarkroomError:
        return ""
    return names[0] if len(names) == 1 else ""


def _is_embedding(path: Path) -> bool:
    from darkroom.weights.adapters.finding import kind_of

    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return kind_of(path) == KIND or (path.stem in IN_FOLDERS and bool(_token(path)))
    try:
        read_picture(path)
    except DarkroomError:
        return False  # a preview beside another file, most likely
    return True


def _plain(content: object) -> object:
    """The parameters of a ParameterDict, as the first programs pickled one."""
    from darkroom.weights.files import Inert

    if not isinstance(content, dict):
        return content
    nested = content.get("string_to_param")
    if isinstance(nested, Inert):
        state = nested.state if isinstance(nested.state, dict) else {}
        return {**content, "string_to_param": dict(state.get("_parameters") or {})}
    return content


def _tensors(value: Any, where: str) -> Any:
    """JSON as A1111 writes tensors: ``{"TORCHTENSOR": [...]}``.

    Raises:
        CheckpointError: a tensor is no list of numbers, or of lists of as many.
    """
    import torch

    if not isinstance(value, Mapping):
        return value
    if "TORCHTENSOR" not in value:
        return {key: _tensors(part, where) for key, part in value.items()}
    try:
        tensor = torch.tensor(value["TORCHTENSOR"], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise CheckpointError(f"{where} has a tensor that is no list of numbers") from None
    if not tensor.abs().lt(1e30).all():
        raise CheckpointError(f"{where} has numbers beyond every embedding's")
    return tensor.float()


def _low_bits(picture: Any) -> bytes | None:
    """The bytes to the left and the right of a picture: their low and their high halves.

    Each half lies in the four low bits of a block of pixels, under a fixed sequence of
    pseudo-random numbers; a column of zeros ends the left block, one begins the right. None where
    none are.
    """
    import numpy as np

    pixels = np.asarray(picture.convert("RGB"))
    bright = (pixels > 0).all(axis=2)
    if not bright.any():
        return None
    rows, columns = np.flatnonzero(bright.any(axis=-1)), np.flatnonzero(bright.any(axis=0))
    low = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    empty = np.flatnonzero(low.sum(axis=(0, 2)) == 0)
    if len(empty) < _BLACK or not empty[0] or empty[0] * len(low) > _MOST_HIDDEN:
        return None
    blocks = [block ^ _mask(block.shape) for block in (low[:, : empty[0]], low[:, empty[-1] + 1 :])]
    if blocks[0].shape != blocks[1].shape or not blocks[0].size:
        return None
    return (blocks[1] << 4 | blocks[0]).tobytes()


def _mask(shape: tuple[int, ...]) -> Any:
    """The low bits of a linear congruential generator's numbers, modulo 255.

    All at once: with seed_n = a seed_(n-1) + c, what is known of the first n gives the next n, as
    seed_(i+n) = a^n seed_i + seed_n. Arithmetic of 32 bits overflows as it should.
    """
    import numpy as np

    count = int(np.prod(shape))
    seeds = np.array([1013904223], np.uint32)
    power = np.uint32(1664525)  # a^n, n = len(seeds)
    while len(seeds) < count:
        seeds = np.concatenate((seeds, seeds * power + seeds[-1]))
        power = np.uint32(int(power) * int(power) & 0xFFFFFFFF)
    return (seeds[:count] % 255 & 0x0F).astype(np.uint8).reshape(shape)
