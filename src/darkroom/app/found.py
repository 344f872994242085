"""The models on this machine: built in, added by name, in folders, in the Hugging Face cache.

Looks at names and sizes, and at headers where kinds are wanted; imports no torch and opens no
socket.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.locate import ASSETS, built_in_names, cache_root
from darkroom.weights.registry import registered, size_problems
from darkroom.weights.shelves import open_shelves
from darkroom.weights.shelves.kinds import Kinds

READ = 2000  # headers at most, of one listing; the others say what their folder is for


@dataclass(frozen=True, kw_only=True)
class Found:
    """One model that ``--model NAME`` opens, or an adapter, or another file of weights."""

    name: str
    place: str  # "built-in", "added", "folder" or "cache"
    path: Path
    size: int  # bytes
    kind: str = ""  # as `inspect` says; of files in folders, what the folder is for
    base: str = ""  # SD 1.x, SDXL, ...
    source: str = ""  # hf:owner/name@commit
    problems: tuple[str, ...] = ()

    def plain(self) -> dict:
        """JSON-ready."""
        return asdict(self) | {"path": str(self.path)}


def found_models() -> list[Found]:
    """Every model, built-in ones first; a name appears once, where load() would find it."""
    models: dict[str, Found] = {}
    for source in (_built_in, _added, _in_folders, _in_cache):
        for model in source():
            models.setdefault(model.name, model)
    return list(models.values())


def _built_in() -> Iterator[Found]:
    for name in built_in_names():
        folder = ASSETS / name
        yield Found(name=name, place="built-in", path=folder, size=folder_size(folder))


def _added() -> Iterator[Found]:
    for entry in registered().values():
        yield Found(
            name=entry.name,
            place="added",
            path=entry.path,
            size=entry.size,
            source=entry.source if entry.source != "local" else "",
            problems=tuple(size_problems(entry)),
        )


def with_kinds(models: Iterable[Found]) -> list[Found]:
    """The same, each with its kind; headers are read once and remembered."""
    kinds, told, left = Kinds(), [], READ
    try:
        for model in models:
            known = kinds.known(model.path)
            if known is None and left and not model.problems:
                left -= 1
                known = kinds.of(model.path)
            if known is not None and known.kind:
                model = replace(model, kind=known.kind, base=known.base)
            told.append(model)
    finally:
        kinds.save()
    return told


def folder_problems() -> tuple[str, ...]:
    """What is wrong with the folders of models: missing, or too large."""
    return open_shelves().problems


def adapter_names(kind: str) -> list[str]:
    """By which adapters of one kind are found, as far as names and folders tell."""
    shelves = open_shelves()
    names = [name for name, entry in registered().items() if entry.path.is_file()]
    called = shelves.names()
    return names + [called[s.path] for s in shelves.found if s.kind in ("", kind)]


def _in_folders() -> Iterator[Found]:
    shelves = open_shelves()
    added = registered()
    names = shelves.names([*built_in_names(), *added])
    elsewhere = {entry.path for entry in added.values()}
    for shelved in shelves.found:
        path = shelved.path
        if path in elsewhere:
            continue  # it has a name of its own
        size = folder_size(path) if path.is_dir() else path.stat().st_size
        yield Found(name=names[path], place="folder", path=path, size=size, kind=shelved.kind)


def _in_cache() -> Iterator[Found]:
    for repository in _listed(cache_root()):
        if not repository.name.startswith("models--"):
            continue
        name = repository.name.removeprefix("models--").replace("--", "/")
        for snapshot in _listed(repository / "snapshots"):
            if (snapshot / "model_index.json").is_file():
                reference = repository / "refs" / "main"
                main = _commit(reference)
                at = "" if snapshot.name == main else f"@{snapshot.name}"
                yield Found(
                    name=f"hf:{name}{at}",
                    place="cache",
                    path=snapshot,
                    size=folder_size(snapshot),
                    source=f"hf:{name}@{snapshot.name}",
                )


def _commit(reference: Path) -> str:
    try:
        return foreign.read_text(reference, CheckpointError, 1000).strip()
    except CheckpointError:
        return ""


def folder_size(folder: Path) -> int:
    """Bytes of all files in ``folder``; broken links count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
