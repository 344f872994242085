"""Embeddings of many pictures in one file, and the pictures nearest to a query, exactly."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from darkroom.errors import CheckpointError, ImageError, ModelMismatchError
from darkroom.vision.encoder import Encoder
from darkroom.weights.save import write_tensors

NAME = "darkroom-index.safetensors"  # of an index inside the folder that it is of
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SAME = 0.9999  # cosine from which on two pictures are taken for one
_KEY = "darkroom.index"


class Embedded(NamedTuple):
    """One picture on its way into an index."""

    path: Path
    vector: Tensor | None  # (D,); None: it cannot be read
    problem: str = ""


class Match(NamedTuple):
    """One picture that a search found."""

    path: Path
    score: float  # cosine, -1 to 1


@dataclass(frozen=True)
class Index:
    """Unit vectors of pictures."""

    folder: Path  # that the paths begin from
    paths: tuple[str, ...]
    embeddings: Tensor  # (N, D), float32 or float16
    model: str  # what embedded them, as ``open_encoder`` takes it

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all."""
        path = Path(path)
        about = {
            "folder": os.path.relpath(self.folder, path.parent),
            "model": self.model,
            "paths": self.paths,
        }
        metadata = {"format": "pt", _KEY: json.dumps(about, ensure_ascii=False)}
        write_tensors(path, {"embeddings": self.embeddings}, metadata)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Index":
        """What ``save`` wrote; given a folder, the index inside of it.

        Raises:
            CheckpointError: there is none, or the file is something else.
        """
        path = Path(path)
        if path.is_dir():
            path = path / NAME
        if not path.is_file():
            where = path.parent if path.name == NAME else path
            raise CheckpointError(f"{where}: no index; make one: `darkroom embed {where}`")
        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
                embeddings = file.get_tensor("embeddings")
            paths = tuple(map(str, about["paths"]))
            if embeddings.ndim != 2 or len(paths) != len(embeddings):
                raise ValueError(f"{len(paths)} paths, embeddings {tuple(embeddings.shape)}")
            folder = Path(os.path.normpath(path.parent / about["folder"]))
            return cls(folder, paths, embeddings, str(about["model"]))
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path}: not an index of pictures ({error}); `darkroom embed` writes one"
            ) from None


def pictures_in(folder: Path) -> list[Path]:
    """Every PNG, JPEG and WebP below a folder, in alphabetical order; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def embed(encoder: Encoder, paths: Iterable[Path], batch: int = 32) -> Iterator[Embedded]:
    """Embed pictures, in order; one that cannot be read has a problem instead of a vector."""
    waiting: list[tuple[Path, Tensor | None, str]] = []
    for path in paths:
        try:
            waiting.append((path, encoder.read(path), ""))
        except ImageError as error:
            waiting.append((path, None, str(error)))
        if len(waiting) == batch:
            yield from _together(encoder, waiting)
            waiting = []
    yield from _together(encoder, waiting)


def _together(
    encoder: Encoder, waiting: list[tuple[Path, Tensor | None, str]]
) -> Iterator[Embedded]:
    readable = [pixels for _, pixels, _ in waiting if pixels is not None]
    vectors = iter(encoder.images(torch.stack(readable)) if readable else ())
    for path, pixels, problem in waiting:
        yield Embedded(path, None if pixels is None else next(vectors), problem)


def search(index: Index, query: Tensor, count: int = 9) -> list[Match]:
    """The ``count`` pictures nearest to a query (D,), best first; copies of one appear once.

    Raises:
        ModelMismatchError: the query is from a model of another width.
    """
    if query.shape != index.embeddings.shape[1:]:
        raise ModelMismatchError(
            f"the index holds vectors of {index.embeddings.shape[1]} numbers, the query "
            f"{tuple(query.shape)}; embed the folder again with the same model"
        )
    vectors = F.normalize(index.embeddings.float(), dim=-1)  # float16 has rounded their lengths
    scores = vectors @ query.float()
    found: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if len(found) == count:
            break
        if not found or (vectors[found] @ vectors[i]).max() < SAME:
            found.append(i)
    return [Match(index.folder / index.paths[i], scores[i].item()) for i in found]
