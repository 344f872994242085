"""The models a user has named: where each lies, its size and its SHA-256.

One JSON file, ``models.json`` in ``home()``, written atomically. Files stay where they are: adding
a model copies nothing and removing one deletes nothing. It also holds the folders of models that a
user has added, in which models go by their files' names. No torch is imported.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import CheckpointError, ConfigError, ModelNotFoundError
from darkroom.names import did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
CHUNK = 1 << 22
MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Stamp:
    """What one file was when it was added."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One named model."""

    name: str
    path: Path  # a file, or the folder that the file names start from
    source: str = "local"  # or hf:owner/name@commit
    added: str = ""  # ISO 8601, UTC
    files: Mapping[str, Stamp] = field(default_factory=dict)  # path inside the folder -> stamp

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(stamp.size for stamp in self.files.values())

    def locate(self, file: str) -> Path:
        """Where one of ``files`` lies."""
        return self.path / file if self.path.is_dir() else self.path


@dataclass(frozen=True)
class Hashed:
    """``done`` of ``total`` bytes are hashed; ``sha256`` is set when ``file`` is finished."""

    file: str
    done: int
    total: int
    sha256: str | None = None


def home() -> Path:
    """The user's data folder: ``DARKROOM_HOME``, or the system's place for it. Not created here."""
    if given := os.environ.get("DARKROOM_HOME"):
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("darkroom", appauthor=False)


def registered() -> dict[str, Registered]:
    """Every named model, by name.

    Raises:
        CheckpointError: the registry file is damaged.
    """
    with _damage() as path:
        return {name: _read(name, entry) for name, entry in _load(path)["models"].items()}


def added_folders() -> list[Path]:
    """The folders of models that ``add_folder`` recorded; also files that name such folders.

    Raises:
        CheckpointError: the registry file is damaged.
    """
    with _damage() as path:
        return [Path(_text(folder)) for folder in _load(path).get("folders", [])]


def add_folder(path: Path) -> None:
    """Record a folder of models, in which ``--model`` and ``--lora`` find files by their names."""
    if path not in (folders := added_folders()):
        _write(registered(), [*folders, path])


def remove_folder(path: Path) -> bool:
    """Forget a folder of models; its files stay. False: it was not recorded."""
    folders = added_folders()
    if path not in folders:
        return False
    _write(registered(), [folder for folder in folders if folder != path])
    return True


def find(name: str) -> Registered | None:
    """The model registered under ``name``, or None."""
    return registered().get(name)


def model_folders() -> list[Path]:
    """Where models are known by their files' names, there and below.

    Those of ``DARKROOM_MODELS`` (several), those that were added, and ``home()/models``.
    """
    given = os.environ.get("DARKROOM_MODELS", "").split(os.pathsep)
    named = (Path(folder).expanduser() for folder in given if folder)
    return list(dict.fromkeys([*named, *added_folders(), home() / "models"]))


def resolve(name: str) -> Path | None:
    """Where a name leads: a registered model, else a file or folder of that name in a model folder.

    Raises:
        CheckpointError: a registered file has gone or changed its size.
    """
    if entry := find(name):
        if problems := size_problems(entry):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise CheckpointError(
                f"model {name!r}: {problems[0]}{more}; put it back, or "
                f"`darkroom models remove {name}` and add it again"
            )
        return entry.path
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        return None
    paths = (folder / name for folder in model_folders())
    return next((path for path in paths if path.exists()), None)


def files_of(path: Path) -> dict[str, Path]:
    """The files that make up a model: itself, or everything visible in its folder.

    Raises:
        ModelNotFoundError: there is nothing at ``path``, or nothing that could be a model.
    """
    if path.is_file():
        if path.suffix.lower() not in MODEL_SUFFIXES:
            raise CheckpointError(
                f"{path}: not a model file; expected one of {' '.join(MODEL_SUFFIXES)}, or a folder"
            )
        return {path.name: path}
    if not path.is_dir():
        close = foreign.near(path) or "; check the path"
        raise ModelNotFoundError(f"{path}: no such file or folder{close}")
    found = {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part[0] == "." for part in file.relative_to(path).parts)
    }
    if not any(Path(name).suffix.lower() in MODEL_SUFFIXES for name in found):
        raise CheckpointError(
            f"{path}: no weights in this folder; expected a diffusers folder or "
            f"{' '.join(MODEL_SUFFIXES)} files"
        )
    return found


def hash_files(files: Mapping[str, Path]) -> Iterator[Hashed]:
    """SHA-256 of each file, with progress over all of them."""
    total = sum(path.stat().st_size for path in files.values())
    done = 0
    for name, path in files.items():
        digest = hashlib.sha256()
        with foreign.open_file(path, CheckpointError) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                yield Hashed(name, done, total)
        yield Hashed(name, done, total, digest.hexdigest())


def check_name(name: str) -> str:
    """Return ``name`` if a model may be called that.

    Raises:
        ConfigError: it has other characters than letters, digits, dot, dash and underscore.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"model name {name!r}: use letters, digits, '.', '_' and '-', starting with a letter "
            "or digit, at most 80; give another with --name"
        )
    return name


def register(
    name: str, path: str | os.PathLike[str], stamps: Mapping[str, Stamp], source: str = "local"
) -> Registered:
    """Record a model under ``name``.

    Raises:
        ConfigError: the name is taken by another path, or malformed.
    """
    path, models = Path(path).expanduser().absolute(), registered()
    known = models.get(check_name(name))
    if known and known.path != path:
        raise ConfigError(
            f"model {name!r} is already {known.path}; choose another --name, or "
            f"`darkroom models remove {name}` first"
        )
    added = datetime.now(UTC).isoformat(timespec="seconds")
    models[name] = Registered(name=name, path=path, source=source, added=added, files=dict(stamps))
    _write(models)
    return models[name]


def remove(name: str) -> Registered:
    """Forget a model; its files stay.

    Raises:
        ModelNotFoundError: no model is registered under ``name``.
    """
    models = registered()
    if name not in models:
        raise ModelNotFoundError(
            f"no model is registered as {name!r}{did_you_mean(name, models)}; "
            "see `darkroom models list`"
        )
    entry = models.pop(name)
    _write(models)
    return entry


def size_problems(entry: Registered) -> list[str]:
    """What names and sizes alone show to be wrong, one line each; cheap enough for every load."""
    problems = []
    for file, stamp in entry.files.items():
        path = entry.locate(file)
        try:
            size = path.stat().st_size
        except OSError:
            problems.append(f"{path}: missing")
            continue
        if size != stamp.size:
            problems.append(f"{path}: {size:,} bytes, expected {stamp.size:,}")
    return problems


def _read(name: str, entry: dict) -> Registered:
    files = {file: Stamp(int(s["size"]), str(s["sha256"])) for file, s in entry["files"].items()}
    return Registered(
        name=name,
        path=Path(entry["path"]),
        source=str(entry["source"]),
        added=str(entry["added"]),
        files=files,
    )


def _load(path: Path) -> dict:
    return foreign.read_object(path, CheckpointError) if path.exists() else {"models": {}}


@contextlib.contextmanager
def _damage() -> Iterator[Path]:
    """Where the registry is; what is wrong with it becomes one line."""
    path = home() / "models.json"
    try:
        yield path
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a Darkroom registry ({type(error).__name__}); "
            "repair it, or delete it and add the models again"
        ) from None


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError("expected a text")
    return value


def _write(models: Mapping[str, Registered], folders: Iterable[Path] | None = None) -> None:
    folders = added_folders() if folders is None else folders
    plain = {
        name: {
            "path": str(entry.path),
            "source": entry.source,
            "added": entry.added,
            "files": {
                file: {"size": s.size, "sha256": s.sha256} for file, s in entry.files.items()
            },
        }
        for name, entry in sorted(models.items())
    }
    folder = home()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
    with atomic_write(folder / "models.json") as file:
        told = {"version": 1, "models": plain, "folders": [str(path) for path in folders]}
        text = json.dumps(told, indent=2, ensure_ascii=False)
        file.write(text.encode("utf-8") + b"\n")
