"""``fetch``: a public data set, from its address to where recipes find it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import ConfigError, DarkroomError, DataError
from darkroom.names import did_you_mean
from darkroom.training.data.public import SETS, PublicSet, Source
from darkroom.training.data.public.download import download, sha256_of
from darkroom.training.data.public.unpack import unpack


@dataclass(frozen=True)
class Fetched:
    """How far a fetch is: bytes of a file, or files that are unpacked."""

    what: str  # the file, or "unpacking"
    done: int
    total: int  # 0 = not known


def public_set(name: str) -> PublicSet:
    """The set of that name.

    Raises:
        ConfigError: there is none, or it is not to be had for the asking.
    """
    for one in SETS:
        if one.name == name:
            if one.how:
                raise ConfigError(f"{name}: {one.licence}; {one.how}")
            return one
    raise ConfigError(
        f"no data set {name!r}{did_you_mean(name, (one.name for one in SETS))}; known: "
        f"{' '.join(one.name for one in SETS)}"
    )


def fetch(of: PublicSet, folder: Path, mirror: str = "") -> Iterator[Fetched]:
    """Bring a set into ``folder``, under the names of ``of.made``, with a record beside it.

    Closing the generator stops it; the next call goes on. Files appear whole or not at all.

    Args:
        mirror: an address or a folder that has the same files; hashes are compared all the same.

    Raises:
        DataError: a file is not what its source states, or not what it was the last time.
        DarkroomError: it cannot be reached, or there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_here(of, folder):
        return
    if there := [name for name in of.made if (folder / name).exists()]:
        raise DataError(
            f"{folder / there[0]}: is there, and was not fetched by this; move it away, or choose "
            "another --out"
        )
    downloads = folder / ".downloads" / of.name
    downloads.mkdir(parents=True, exist_ok=True)
    files, told = [], []
    for source in of.sources:
        path = downloads / source.name
        if mirror and "://" not in mirror:
            path = Path(mirror) / source.name
            _check_local(source, path)
        else:
            at = replace(source, url=f"{mirror.rstrip('/')}/{source.name}") if mirror else source
            _check_room(folder, source)
            for done in download(at, path):
                yield Fetched(source.name, done, source.size)
        files.append(path)
        told.append(_told(source, path))
    _check_recorded(of, folder, told)
    work = folder / f".{of.name}.unpacking"
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir()
    try:
        for count in unpack(of, files, work):
            yield Fetched("unpacking", count, 0)
        for name in of.made:
            (work / name).replace(folder / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _record(of, folder, told)
    shutil.rmtree(downloads, ignore_errors=True)
    with contextlib.suppress(OSError):
        downloads.parent.rmdir()  # if no other set is being fetched


def is_here(of: PublicSet, folder: Path) -> bool:
    """Whether it has been fetched into ``folder``, whole."""
    return record_of(of, folder).is_file() and all((folder / n).exists() for n in of.made)


def record_of(of: PublicSet, folder: Path) -> Path:
    """Where it is noted what was fetched."""
    return folder / f"{of.name}.fetched.json"


def _told(source: Source, path: Path) -> dict[str, Any]:
    sha256 = source.sha256 or sha256_of(path)
    told = {"url": source.url, "size": path.stat().st_size, "sha256": sha256}
    return told | {"stated": bool(source.sha256)}


def _check_local(source: Source, path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected what {source.url} has")
    size = path.stat().st_size
    if source.size and size != source.size:
        raise DataError(f"{path}: {size:,} bytes, expected {source.size:,}")
    if source.sha256 and (found := sha256_of(path)) != source.sha256:
        raise DataError(
            f"{path}: SHA-256 {found[:12]}..., expected {source.sha256[:12]}...; another version"
        )


def _check_room(folder: Path, source: Source) -> None:
    free = shutil.disk_usage(folder).free
    if source.size and free < 2 * source.size:
        raise DarkroomError(
            f"{folder}: {free:,} bytes free, about {2 * source.size:,} needed; free some space or "
            "choose another --out"
        )


def _check_recorded(of: PublicSet, folder: Path, told: list[dict[str, Any]]) -> None:
    """A file of which nobody states the hash must be what it was when it was fetched before."""
    path = record_of(of, folder)
    if not path.is_file():
        return
    before = foreign.read_object(path, DataError).get("files")
    known = {f.get("url"): f.get("sha256") for f in before or () if isinstance(f, dict)}
    for file in told:
        if known.get(file["url"], file["sha256"]) != file["sha256"]:
            raise DataError(
                f"{file['url']}: is not what it was when it was fetched before ({path.name}); "
                f"delete {path} to take it as it is now"
            )


def _record(of: PublicSet, folder: Path, told: list[dict[str, Any]]) -> None:
    content = {"name": of.name, "title": of.title, "licence": of.licence, "files": told}
    with atomic_write(record_of(of, folder)) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
