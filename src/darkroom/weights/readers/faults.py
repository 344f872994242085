"""What can be wrong with a file, said in one line: the file, the fault, the remedy."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from darkroom.errors import CheckpointError, UnsafeFileError

LONGEST_MESSAGE = 200
AGAIN = "download it again"
ASK_FOR_SAFETENSORS = "ask for a .safetensors version"


class Fault(Exception):  # noqa: N818 - never leaves this package
    """Something is wrong at this place of the file; ``naming`` adds which file.

    Args:
        what: the fault, without the file's name.
        remedy: what the user can do about it.
        unsafe: the file wants to run code.
    """

    def __init__(self, what: str, remedy: str = AGAIN, *, unsafe: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.unsafe = unsafe


def printable(text: str, longest: int = 60) -> str:
    """``text`` with control characters replaced and its middle left out beyond ``longest``."""
    if len(text) > longest:
        text = text[: longest // 2] + "…" + text[-(longest // 2 - 1) :]
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(path: str | os.PathLike[str], what: str, remedy: str) -> str:
    """``name: what; remedy``, at most 200 characters, whatever the parts are."""
    name = printable(Path(path).name or str(path))
    remedy = printable(remedy, 80)
    room = LONGEST_MESSAGE - len(name) - len(remedy) - 4
    return f"{name}: {printable(what, room)}; {remedy}"


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn every failure inside into a ``CheckpointError`` of one line that names ``path``.

    A hostile file can make a parser fail in ways that nobody listed, so anything that is not ours
    becomes "malformed" here, with the original error as its cause.

    Raises:
        CheckpointError: for any failure.
        UnsafeFileError: when the file wants to run code.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Fault as fault:
        kind = UnsafeFileError if fault.unsafe else CheckpointError
        raise kind(one_line(path, fault.what, fault.remedy)) from None
    except MemoryError:
        message = one_line(path, "needs more memory than there is", "close other programs")
        raise CheckpointError(message) from None
    except OSError as error:
        what = f"cannot be read ({error.strerror or type(error).__name__})"
        raise CheckpointError(one_line(path, what, "check the path and its permissions")) from error
    except Exception as error:
        what = f"is malformed ({type(error).__name__})"
        raise CheckpointError(one_line(path, what, AGAIN)) from error
