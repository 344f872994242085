"""The encoder and the folders that a command names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.app import values
from darkroom.app.outcome import usage
from darkroom.app.output import SUFFIXES
from darkroom.app.terminal import waiting
from darkroom.errors import ModelNotFoundError

if TYPE_CHECKING:
    from darkroom.vision.encoder import Encoder

EncoderName = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=values.complete_model,
        help="A CLIP: a name, a folder, or a file of weights.",
    ),
]


def encoder(model: str, device: str | None) -> "Encoder":
    """Open what compares pictures and words; where it is a path, by its whole path.

    Raises:
        DarkroomError: it cannot be found, read or placed on the device.
    """
    from darkroom.acceleration import accelerate, recommended
    from darkroom.app.session import usable_device
    from darkroom.vision.encoder import open_encoder

    name = str(Path(model).absolute()) if Path(model).exists() else model
    with waiting(f"loading {model}"):
        opened = open_encoder(name, usable_device(device))
        accelerate(opened.model, recommended(opened.model))
        return opened


def folder(path: Path) -> Path:
    """``path``, absolute, if it is a folder.

    Raises:
        ModelNotFoundError: it is not (exit code 3).
    """
    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise ModelNotFoundError(f"{path}: is a file, expected a folder of pictures")
    return path.absolute()


def picture_file(path: Path | None, flag: str) -> Path | None:
    """``path`` if a picture can be written there.

    Raises:
        UsageError: by its name, it would be none.
    """
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise usage(f"{path.name}: pictures are written as {', '.join(SUFFIXES)}", flag)
    return path
