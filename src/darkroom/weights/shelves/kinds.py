"""What the files on the shelves are, by their headers; what was found out is kept in a file."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from darkroom import foreign
from darkroom.atomic import atomic_write
from darkroom.errors import CheckpointError, DarkroomError
from darkroom.weights import registry

FILE = "kinds.json"
MOST = 20_000  # files that are remembered
LARGEST = 16 << 20  # bytes of the file


@dataclass(frozen=True)
class Kind:
    """What a model is, as ``inspect`` says."""

    kind: str  # "" = it cannot be read
    base: str = ""  # "SD 1.x", "SDXL", ...; "" = it does not say
    problem: str = ""


class Kinds:
    """Kinds of files and folders; a header is read once, as long as the file does not change."""

    def __init__(self) -> None:
        self._known = _read(registry.home() / FILE)
        self._changed = False

    def known(self, path: Path) -> Kind | None:
        """What is remembered of it; None where that is nothing, or it has changed."""
        entry = self._known.get(str(path))
        if entry is None or entry[0] != _stamp(path):
            return None
        return Kind(*entry[1:])

    def of(self, path: Path) -> Kind:
        """What it is, remembered or read now."""
        from darkroom.weights.inspect import inspect

        if kind := self.known(path):
            return kind
        try:
            report = inspect(path)
            kind = Kind(report.kind, report.base)
        except (DarkroomError, OSError) as error:
            kind = Kind("", "", " ".join(str(error).split())[:300])
        self._known[str(path)] = [_stamp(path), kind.kind, kind.base, kind.problem]
        self._changed = True
        return kind

    def save(self) -> None:
        """Keep what was read; a folder that cannot be written is no reason to fail."""
        if not self._changed:
            return
        kept = dict(list(self._known.items())[-MOST:])
        with contextlib.suppress(OSError):
            registry.home().mkdir(parents=True, exist_ok=True)
            with atomic_write(registry.home() / FILE) as file:
                told = {"version": 1, "rules": _rules(), "kinds": kept}
                file.write(json.dumps(told).encode())
            self._changed = False


def kind_of(path: Path) -> str:
    """What ``inspect`` says that a file is, remembered or read now; "" where it cannot be read."""
    kinds = Kinds()
    kind = kinds.of(path).kind
    kinds.save()
    return kind


def _stamp(path: Path) -> str:
    """Changes when a file does; of a folder, when a file of its top level is put there or goes."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_mtime_ns}:{status.st_size}"


def _rules() -> str:
    """Changes when what tells kinds apart does."""
    files = sorted((Path(__file__).parents[1] / "inspect").glob("*.py"))
    return ",".join(map(_stamp, files))


def _read(path: Path) -> dict[str, list[str]]:
    """What was kept; nothing where that cannot be read, as it can be found out again."""
    try:
        told = foreign.read_object(path, CheckpointError, LARGEST)
        kinds = told["kinds"] if told["rules"] == _rules() else {}
        return {
            str(name): entry
            for name, entry in kinds.items()
            if isinstance(entry, list) and [type(part) for part in entry] == [str] * 4
        }
    except (CheckpointError, KeyError, AttributeError):
        return {}
