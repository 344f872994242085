"""The models on this machine: built in, added by name, in folders, in the Hugging Face cache.

Looks at names and sizes only; imports no torch and opens no socket.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from darkroom import foreign
from darkroom.errors import CheckpointError
from darkroom.weights.locate import ASSETS, built_in_names, cache_root
from darkroom.weights.registry import MODEL_SUFFIXES, model_folders, registered, size_problems


@dataclass(frozen=True, kw_only=True)
class Found:
    """One model that ``--model NAME`` opens."""

    name: str
    place: str  # "built-in", "added", "folder" or "cache"
    path: Path
    size: int  # bytes
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


def _in_folders() -> Iterator[Found]:
    for folder in model_folders():
        for path in _listed(folder):
            if path.is_dir() and (path / "model_index.json").is_file():
                size = folder_size(path)
            elif path.suffix.lower() in MODEL_SUFFIXES and path.is_file():
                size = path.stat().st_size
            else:
                continue
            yield Found(name=path.name, place="folder", path=path, size=size)


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
