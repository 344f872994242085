"""Adapter files by name: in model folders and below, by path, or by a registered name. No torch."""

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from darkroom import foreign
from darkroom.errors import CheckpointError, ImageError, ModelMismatchError, ModelNotFoundError
from darkroom.names import did_you_mean
from darkroom.weights import registry
from darkroom.weights.registry import MODEL_SUFFIXES

IN_FOLDERS = (  # what trainers call the file
    "pytorch_lora_weights", "adapter_model", "learned_embeds",
)  # fmt: skip
PICTURE_SUFFIXES = (".png", ".webp")  # which may hold a textual inversion


def find(name: str | os.PathLike[str], kind: str) -> Path:
    """Where the adapter called ``name`` is.

    ``name`` is a path, ``hf:owner/name:file``, a registered name, or the name of a file in a model
    folder or below, with its ending or without.

    Args:
        kind: as ``inspect`` calls it; decides where several files have the name.

    Raises:
        ModelNotFoundError: with the nearest name, and what to do.
    """
    text, suffixes = os.fspath(name), _suffixes(kind)
    if text.startswith("hf:"):
        from darkroom.weights.locate import locate

        return _file(locate(text).path, kind)
    if path := registry.resolve(text):
        return _file(path, kind)
    path = Path(text).expanduser()
    if text and path.exists():
        return _file(path, kind)
    known = list(in_folders(kind))
    for wanted in (text, Path(text).name if path.suffix in suffixes else text):
        places = [place for place in known if wanted in (place.stem, place.name)]
        if len(places) > 1:
            places = [place for place in places if kind_of(place) == kind] or places
        if places:
            return places[0]
    stems = [*registry.registered(), *(place.stem for place in known)]
    raise ModelNotFoundError(
        f"no {kind} is called {text!r}{did_you_mean(text, stems)}; give the path of its file, or "
        f"put it into {registry.home() / 'models'}"
    )


def in_folders(kind: str) -> Iterator[Path]:
    """The files in the model folders and below that could be of this kind, by their endings."""
    suffixes = _suffixes(kind)
    for folder in registry.model_folders():
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in suffixes and path.is_file():
                yield path


def kind_of(path: Path) -> str:
    """What ``inspect`` says that a file is; "" where it cannot be read."""
    from darkroom.weights.inspect import inspect

    try:
        return inspect(path).kind
    except (CheckpointError, ImageError, OSError):
        return ""


def check_base(where: object, base: str, model: str, what: str = "a LoRA") -> None:
    """Refuse an adapter of one base for a model of another; either may be "", unknown.

    Raises:
        ModelMismatchError: naming both.
    """
    if base and model and base != model:
        raise ModelMismatchError(
            f"{where}: this is {what} for {base}; the model is {model}: use one for {model}, or "
            f"a model of {base}"
        )


def called(name: str | os.PathLike[str], path: Path) -> str:
    """What metadata say: a name, never a path of this machine."""
    text = os.fspath(name)
    if text.startswith("hf:") or text in registry.registered():
        return text
    return path.parent.name if path.stem in IN_FOLDERS else path.stem


def sha256_of(path: Path) -> str:
    """Of the file's bytes; read once as long as it does not change."""
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(64)
def _sha256(path: Path, changed: int, size: int) -> str:
    with foreign.open_file(path, CheckpointError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(path: Path, kind: str) -> Path:
    """The file itself, where a folder was meant."""
    if not path.is_dir():
        return path
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in _suffixes(kind))
    named = [p for p in found if p.stem in IN_FOLDERS]
    if named or len(found) == 1:
        return (named or found)[0]
    raise ModelNotFoundError(
        f"{path}: expected a {kind}, this folder holds {len(found)} such files; name one of them"
    )


def _suffixes(kind: str) -> tuple[str, ...]:
    return (*MODEL_SUFFIXES, *PICTURE_SUFFIXES) if kind == "textual inversion" else MODEL_SUFFIXES
