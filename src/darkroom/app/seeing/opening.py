"""The encoder and the folders that a command names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.app import values
from darkroom.app.outcome import Answer, usage
from darkroom.app.output import SUFFIXES
from darkroom.app.terminal import say, waiting
from darkroom.errors import ModelNotFoundError
from darkroom.foreign import near
from darkroom.weights.knowledge import Knowledge, Reading, knowledge_of

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
    from darkroom.app.session import usable_device
    from darkroom.vision.encoder import open_encoder

    name = str(Path(model).absolute()) if Path(model).exists() else model
    with waiting(f"loading {model}"):
        return open_encoder(name, usable_device(device))


def introduce(name: str, answer: Answer, *texts: str) -> Knowledge | None:
    """Say what a built-in model knows, and which words of ``texts`` it never saw; also in JSON."""
    known = knowledge_of(name)
    if known is None:
        return None
    say(f"model: {known.line}")
    answer.fields.setdefault("knows", {})[name] = known.about
    unseen = {one.word: one for text in texts for one in known.read(text).unseen}
    if unseen:
        reading = Reading(unseen=tuple(unseen.values()))
        answer.fields["unseen"] = reading.plain()["unseen"]
        say(f"note: {reading.line(name)}", "yellow")
    return known


def folder(path: Path) -> Path:
    """``path``, absolute, if it is a folder.

    Raises:
        ModelNotFoundError: it is not (exit code 3).
    """
    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such folder{near(path) or '; check the path'}")
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
