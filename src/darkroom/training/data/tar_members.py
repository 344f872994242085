"""Where the files of a tar lie, from its headers alone: nothing is unpacked, no name is trusted.

POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU tar's long names and large sizes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from darkroom import foreign
from darkroom.errors import DataError

BLOCK = 512
LONGEST = 1 << 20  # bytes of an extended header; names and times need a thousandth of it
REGULAR = (b"0", b"\0", b"7")
ZEROS = bytes(BLOCK)


class Member(NamedTuple):
    """One regular file; its ``size`` bytes begin at ``offset``."""

    name: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """Every regular file of an uncompressed tar. Links, folders, devices are passed over.

    Names are what the tar says (``../x`` and ``/etc/x`` too): fit for sorting, not for opening.

    Raises:
        DataError: the file is no tar, is damaged or cut off; names the file and the offset.
    """
    file = foreign.open_file(path, DataError)
    try:
        yield from _members(file, path)
    finally:
        file.close()


def _members(file: BinaryIO, path: Path) -> Iterator[Member]:
    end, position = file.seek(0, 2), 0
    everywhere: dict[str, str] = {}  # of global pax headers
    here: dict[str, str] = {}  # of the next member
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if header == ZEROS:
            return
        if not header and position:
            raise _damage(path, position, "ends without its end mark, cut off")
        if len(header) < BLOCK:
            raise _damage(path, position, "a header is cut off")
        kind = header[156:157]
        if not _sums(header):
            compressed = header[:2] == b"\x1f\x8b" or header[:4] in (b"BZh9", b"\x28\xb5\x2f\xfd")
            how = "compressed; unpack it to a plain tar" if compressed else "no tar header"
            raise _damage(path, position, how)
        said = {**everywhere, **here}
        size = _number(header[124:136])
        if "size" in said and kind not in b"xgLK":
            size = int(said["size"]) if said["size"].isdigit() else None
        if size is None:
            raise _damage(path, position, "a size is no number")
        start = position + BLOCK
        # links and folders have no data, whatever size they state
        stored = size if kind in REGULAR or kind not in b"123456" else 0
        if start + stored > end:
            raise _damage(path, position, f"a file of {stored:,} bytes is cut off at {end:,}")
        position = start + -(-stored // BLOCK) * BLOCK
        if kind in (b"x", b"g", b"L", b"K"):
            if size > LONGEST:
                raise _damage(path, start, f"an extended header of {size:,} bytes")
            file.seek(start)
            data = file.read(size)
            if kind == b"L":
                here["path"] = _text(data)
            elif kind != b"K":
                (here if kind == b"x" else everywhere).update(_records(data, path, start))
            continue
        here = {}
        name = said.get("path") or _name(header)
        if any(key.startswith("GNU.sparse") for key in said):
            continue  # what lies there is a map and pieces, not the file
        if kind in REGULAR and not name.endswith("/"):
            yield Member(name.removeprefix("./"), start, size)


def _damage(path: Path, offset: int, what: str) -> DataError:
    return DataError(f"{path}: damaged at byte {offset:,}: {what}; get the file again")


def _sums(header: bytes) -> bool:
    """Whether the checksum, taken with its own field blank, is right (signed in old tars)."""
    stated = _number(header[148:156])
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if stated == total:
        return True
    return stated == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _number(field: bytes) -> int | None:
    """Octal digits; or, with the first bit set, a big-endian binary number (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return None


def _name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        return f"{prefix}/{name}"
    return name


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _records(data: bytes, path: Path, offset: int) -> dict[str, str]:
    """pax: lines of "LENGTH KEY=VALUE", the length counting all of the line."""
    found, position = {}, 0
    while position < len(data) and data[position]:
        length, _, _ = data[position : position + 20].partition(b" ")
        record = data[position : position + int(length)] if length.isdigit() else b""
        if not record.endswith(b"\n") or len(record) != int(length):
            raise _damage(path, offset + position, "an extended header is malformed")
        key, _, value = record[len(length) + 1 : -1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        position += int(length)
    return found
