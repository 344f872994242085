"""The cells of a grid: what each draws, and whether it was drawn before. No torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from darkroom import __version__
from darkroom.app.drawing.request import Request
from darkroom.app.drawing.styles import Style
from darkroom.app.grid.axes import Axis
from darkroom.app.output import slug
from darkroom.errors import DarkroomError

KEY = 16  # hexadecimal digits
COLUMNS = (
    "x", "y", "z", "file", "prompt", "negative", "seed", "steps", "sampler", "spacing", "guidance",
    "width", "height", "model", "strength", "loras", "styles", "refiner",
)  # fmt: skip
APART = ("redrawn", "device", "count", "styles")  # change no picture, or are in other fields


@dataclass(frozen=True)
class Cell:
    """One picture of a grid."""

    place: tuple[int, int, int]  # on x, y and z
    labels: tuple[str, str, str]  # of those places
    request: Request  # with one prompt and one seed
    key: str  # of everything that decides the picture

    @property
    def prompt(self) -> str:
        return self.request.prompts[0]

    @property
    def seed(self) -> int:
        assert self.request.seed is not None
        return self.request.seed

    @property
    def file(self) -> str:
        """The name of its picture, which tells its labels."""
        words = slug(" ".join(label for label in self.labels if label))
        return f"{words}-{self.key}.png" if words else f"{self.key}.png"


def cells(request: Request, axes: Sequence[Axis], styles: tuple[Style, ...] = ()) -> list[Cell]:
    """All cells of x, y and z, z outermost.

    Changes are made in the order in which prompts are built: other prompts, then words in them,
    then styles around them: an axis of them first, then ``styles``.

    Raises:
        UsageError: a change does not go with the request.
    """
    x, y, z = axes
    found = []
    stamps: dict[str, Any] = {}
    for k, on_z in enumerate(z.values):
        for j, on_y in enumerate(y.values):
            for i, on_x in enumerate(x.values):
                said = [(x, on_x), (y, on_y), (z, on_z)]
                drawn = request
                for _, value in sorted(said, key=lambda pair: _order(pair[0].name)):
                    drawn = value.change(drawn)
                drawn = drawn.styled(styles).checked()
                labels = (on_x.label, on_y.label, on_z.label)
                found.append(Cell((i, j, k), labels, drawn, key_of(drawn, stamps)))
    return found


def key_of(request: Request, stamps: dict[str, Any]) -> str:
    """A name for the picture that a request draws: the same parameters and files, the same name.

    Args:
        stamps: of files seen before; added to.
    """
    said = {field.name: getattr(request, field.name) for field in fields(request)}
    plain = {name: value for name, value in said.items() if name not in APART and value}
    plain |= {"model": request.model_name, "darkroom": __version__}
    names = [request.model_name, request.refiner_name or "", str(request.image or "")]
    for name in (*names, *request.lora_names):
        if name not in stamps:
            stamps[name] = _stamp(name)
    plain["files"] = [stamps[name] for name in (*names, *request.lora_names)]
    text = json.dumps(plain, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY]


def drawn(folder: Path) -> dict[str, Path]:
    """The pictures in ``folder`` by key."""
    if not folder.is_dir():
        return {}
    return {path.stem[-KEY:]: path for path in sorted(folder.glob("*.png"))}


def _order(name: str) -> int:
    return {"prompt": 0, "negative": 0, "replace": 1, "style": 2}.get(name, 0)


def _stamp(name: str) -> Any:
    """Size and time of the files behind a name; nothing where they are not on this machine."""
    from darkroom.app.session import local_path

    if not name:
        return None
    try:
        path = local_path(name)
    except DarkroomError:
        return None
    if path is None:
        return None
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [file.stat() for file in files if file.is_file()]
    return [
        str(path),
        sum(s.st_size for s in states),
        max((s.st_mtime_ns for s in states), default=0),
    ]
