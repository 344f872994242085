"""Files that others wrote: opened here and nowhere else, with limits.

Only regular files are opened, so that no pipe holds the program up and no device is read. What is
read whole has a largest size. Of JSON and TOML, the number of values, the nesting and the size of
numbers are bounded, too, so no code behind has to fear them. ``tests/test_architecture.py`` checks
that other modules open nothing by themselves.
"""

import contextlib
import itertools
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from typing import Any

from darkroom.errors import DarkroomError
from darkroom.names import did_you_mean

MAX_TEXT = 64 << 20  # bytes of a text, of JSON and of a table: vocabularies are the longest
MOST_NEIGHBOURS = 2000  # files of a folder that are looked at for a name like a missing one
MAX_TOML = 1 << 20  # bytes
MOST_VALUES = 2_000_000  # in one JSON or TOML text
DEEPEST = 64  # lists and objects inside each other
LARGEST_NUMBER = 1 << 127  # either sign; transformers writes 1e30 for "no limit"

Kind = type[DarkroomError]
PathLike = str | os.PathLike[str]
# Names joined by dots: tomllib takes quadratic time over them. Starts at the start of a name only.
_LONG_KEY = re.compile(r"""(?<![\w\-"'])(?:[\w\-"']++[ \t]*+\.[ \t]*+){64}""")


class Unreadable(Exception):  # noqa: N818 - callers turn it into an error of their own kind
    """A path that is not opened: ``what`` it is, and the ``remedy``."""

    def __init__(self, what: str, remedy: str = "check the path") -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


def opened(path: PathLike, buffering: int = -1) -> BufferedReader:
    """A regular file, open for reading.

    Args:
        buffering: as of ``open``.

    Raises:
        Unreadable: it is missing, a folder, a pipe, a device, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _check_kind(os.stat(path))  # before opening: that alone can wind a tape or wait for ever
        handle = os.open(path, flags)
    except FileNotFoundError:
        if os.path.islink(path):
            raise Unreadable(
                "is a link to a file that is gone", "restore the file or the link"
            ) from None
        remedy = near(path).removeprefix("; ") or "check the path"
        raise Unreadable("no such file", remedy) from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from None
    except (ValueError, UnicodeEncodeError):  # a NUL or half a character in the name
        raise Unreadable("is not a file name") from None
    try:
        _check_kind(os.fstat(handle))  # what it was a moment ago may be something else now
        return os.fdopen(handle, "rb", buffering)  # pyright: ignore[reportReturnType]
    except BaseException:
        os.close(handle)
        raise


def near(path: PathLike) -> str:
    """``"; did you mean 'cat.jpg'?"``, where something of such a name lies beside; else ""."""
    text = os.fsdecode(path)
    folder, name = os.path.split(text)
    names = []
    with contextlib.suppress(OSError, ValueError), os.scandir(folder or ".") as entries:
        names = [entry.name for entry in itertools.islice(entries, MOST_NEIGHBOURS)]
    return did_you_mean(name, names)


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable("is a folder, not a file", "name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("is a pipe or a device, not a file", "copy it to a file first")


@contextlib.contextmanager
def understood(where: PathLike, error: Kind) -> Iterator[None]:
    """Whatever fails inside, on what a file says, is ``error`` in one line; ours stay as they are.

    What a file says is checked where it is read. This is for what nobody thought of.

    Raises:
        error: naming ``where`` and the failure, which is its cause.
    """
    try:
        yield
    except (DarkroomError, MemoryError, OSError):
        raise
    except Exception as problem:
        if type(problem).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(problem):
            raise
        said = " ".join(str(problem).split())[:160]
        raise error(
            f"{where}: cannot be used ({type(problem).__name__}: {said}); it is damaged, or of a "
            "form that is not known here; DARKROOM_DEBUG=1 says more"
        ) from problem


def open_file(path: PathLike, error: Kind, buffering: int = -1) -> BufferedReader:
    """As ``opened``. Raises ``error``, in one line, where it would raise ``Unreadable``."""
    try:
        return opened(path, buffering)
    except Unreadable as problem:
        raise error(f"{path}: {problem}") from None


def read_bytes(path: PathLike, error: Kind, most: int = MAX_TEXT) -> bytes:
    """The content of a regular file.

    Raises:
        error: it cannot be read, or has more than ``most`` bytes.
    """
    with open_file(path, error) as file:
        try:
            data = content(file, most)
        except OSError as problem:
            raise error(f"{path}: cannot be read: {problem.strerror or problem}") from None
        if len(data) > most:
            size = max(os.fstat(file.fileno()).st_size, len(data))
            raise error(f"{path}: is {size:,} bytes, more than the {most:,} that are read; shorten")
    return data


def content(file: BufferedReader, most: int) -> bytes:
    """All of a file, but no more than one byte beyond ``most``.

    ``read(n)`` takes n bytes of memory at once, so it is asked for what the file has.
    """
    data = b""
    size = os.fstat(file.fileno()).st_size  # 0 of what a system makes up as it is read
    while len(data) <= most:
        wanted = min(max(size - len(data), 1 << 16) + 1, most + 1 - len(data))
        piece = file.read(wanted)
        data = data + piece if data else piece
        if len(piece) < wanted:
            break
    return data


def read_text(path: PathLike, error: Kind, most: int = MAX_TEXT) -> str:
    """The text of a file in UTF-8, its byte-order mark left out, lines ended by LF.

    Raises:
        error: as ``read_bytes``, or it is no such text.
    """
    try:
        text = read_bytes(path, error, most).decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 text (byte {problem.start:,}); save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: PathLike, error: Kind, most: int = MAX_TEXT) -> Any:
    """What a JSON file says. Raises ``error`` as ``read_text`` and ``parse_json`` do."""
    return parse_json(read_text(path, error, most), str(path), error)


def read_object(path: PathLike, error: Kind, most: int = MAX_TEXT) -> dict[str, Any]:
    """As ``read_json``, of a file that holds an object."""
    value = read_json(path, error, most)
    if not isinstance(value, dict):
        raise error(f"{path}: expected a JSON object, found {_described(value)}")
    return value


def parse_json(text: str | bytes, where: str, error: Kind) -> Any:
    """What a JSON text says.

    Raises:
        error: it is no JSON, has a value beyond the limits of this module, or NaN.
    """
    return _parsed(text, where, error, "JSON", _load_json)


def read_toml(path: PathLike, error: Kind) -> dict[str, Any]:
    """The table of a TOML file. Raises ``error`` as ``read_text`` and ``parse_toml`` do."""
    return parse_toml(read_text(path, error, MAX_TOML), str(path), error)


def parse_toml(text: str, where: str, error: Kind) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        error: it is no TOML, has a value beyond the limits of this module, or nan.
    """
    return _parsed(text, where, error, "TOML", _load_toml)


def _parsed(
    text: str | bytes, where: str, error: Kind, language: str, load: Callable[[Any], Any]
) -> Any:
    comma, square, curly = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
    # counted before it is parsed: tiny values take fifty times the room of their text
    count = text.count(comma) + text.count(square) + text.count(curly)  # pyright: ignore
    if len(text) > MAX_TEXT or count > MOST_VALUES:
        raise error(f"{where}: more than {MOST_VALUES:,} values; no {language} of a model's is")
    try:
        value = load(text)
        _check_values(value)
    except RecursionError:
        raise error(f"{where}: {language} nested more than {DEEPEST} deep; flatten it") from None
    except ValueError as problem:  # JSONDecodeError, TOMLDecodeError, UnicodeDecodeError, ours
        said = " ".join(str(problem).split())[:120]
        raise error(f"{where}: not valid {language}: {said}") from None
    return value


def _load_json(text: str | bytes) -> Any:
    return json.loads(text)


def _load_toml(text: str) -> Any:
    if _LONG_KEY.search(text):
        raise RecursionError
    return tomllib.loads(text)


def _check_values(value: Any) -> None:
    """Refuse NaN, numbers beyond ``LARGEST_NUMBER``, and what lies deeper than ``DEEPEST``.

    Raises:
        ValueError: a number.
        RecursionError: the depth.
    """
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise RecursionError
        below: list[Any] = []
        for item in level:
            parts = item.values() if isinstance(item, dict) else item
            parts = parts if isinstance(item, dict | list) else (item,)
            kinds = set(map(type, parts))
            if float in kinds and any(type(part) is float and part != part for part in parts):
                raise ValueError("NaN is not a number that anything here can use")
            if int in kinds:
                whole = [part for part in parts if type(part) is int]
                if max(whole) >= LARGEST_NUMBER or min(whole) <= -LARGEST_NUMBER:
                    raise ValueError("a number of more than 38 digits")
            if dict in kinds or list in kinds:
                below += [part for part in parts if type(part) in (dict, list)]
        level, depth = below, depth + 1


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return f"{value!r:.60}"
