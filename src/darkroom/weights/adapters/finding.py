"""Adapter files by name: in model folders and below, by path, or by a registered name. No torch."""

import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from darkroom import foreign
from darkroom.errors import CheckpointError, ModelMismatchError, ModelNotFoundError
from darkroom.names import did_you_mean
from darkroom.weights import registry
from darkroom.weights.registry import MODEL_SUFFIXES
from darkroom.weights.shelves import Shelved, one_called, open_shelves
from darkroom.weights.shelves.kinds import kind_of
from darkroom.weights.shelves.walk import IN_FOLDERS
from darkroom.weights.shelves.walk import PICTURES as PICTURE_SUFFIXES

__all__ = ["IN_FOLDERS", "PICTURE_SUFFIXES", "called", "find", "in_folders", "kind_of"]


def find(name: str | os.PathLike[str], kind: str) -> Path:
    """Where the adapter called ``name`` is.

    ``name`` is a path, ``hf:owner/name:file``, a registered name, or the name of a file in a model
    folder or below, with its ending or without.

    Args:
        kind: as ``inspect`` calls it; decides where several files have the name.

    Raises:
        ModelNotFoundError: with the nearest name, and what to do; or several are called so.
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
    shelved = list(_shelved(kind))

    if found := one_called(text, shelved, lambda one: kind_of(_file(one.path, kind)) == kind):
        return _file(found.path, kind)
    stems = [*registry.registered(), *(one.stem for one in shelved)]
    near = did_you_mean(path.stem if path.suffix.lower() in suffixes else text, stems)
    if "/" in text or os.sep in text or path.suffix.lower() in suffixes:
        raise ModelNotFoundError(f"{text}: no such file{near or '; check the path'}")
    raise ModelNotFoundError(
        f"no {kind} is called {text!r}{near}; give the path of its file, put it into "
        f"{registry.home() / 'models'}, or add its folder: `darkroom models add DIR`"
    )


def in_folders(kind: str) -> Iterator[Path]:
    """The files in the model folders and below that could be of this kind.

    By their endings, and by the sub-folder, where that says what is in it.
    """
    for shelved in _shelved(kind):
        yield _file(shelved.path, kind)


def _shelved(kind: str) -> Iterator[Shelved]:
    suffixes = _suffixes(kind)
    for shelved in open_shelves(pictures=kind == "textual inversion").found:
        if shelved.kind not in ("", kind):
            continue
        names = {file.stem for file in shelved.path.iterdir()} if shelved.path.is_dir() else set()
        if names & {*IN_FOLDERS} or (not names and shelved.path.suffix.lower() in suffixes):
            yield shelved


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
