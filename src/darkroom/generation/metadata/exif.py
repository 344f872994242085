"""A minimal EXIF block, written and read by hand (EXIF 2.32, TIFF 6.0).

Pillow writes UserComment with type BYTE, which the reader of the A1111 web UI refuses, so the block
is built here: IFD0 (Software), Exif IFD (UserComment and MakerNote, both UNDEFINED).
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image

SOFTWARE, EXIF_IFD, MAKER_NOTE, USER_COMMENT = 0x0131, 0x8769, 0x927C, 0x9286
_ASCII, _LONG, _UNDEFINED = 2, 4, 7
_UNICODE, _NOTE = b"UNICODE\0", b"Darkroom\0"
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
TEXTS: Mapping[int, str] = {  # tags that hold texts, by the name of the PNG chunk like them
    USER_COMMENT: "UserComment",
    0x010E: "Description",
    0x010F: "Make",
    0x0110: "Model",
    SOFTWARE: "Software",
}

_Entry = tuple[int, int, int, bytes]  # tag, type, count, value


def build(user_comment: str, maker_note: bytes, software: str | None) -> bytes:
    """The block, with the ``Exif`` prefix that JPEG wants and Pillow strips for WebP."""
    comment = _UNICODE + user_comment.encode("utf-16-be", "replace")
    private = _sorted(
        [(MAKER_NOTE, _UNDEFINED, len(maker_note), maker_note)] if maker_note else [],
        [(USER_COMMENT, _UNDEFINED, len(comment), comment)] if user_comment else [],
    )
    head: list[_Entry] = []
    if software:
        text = software.encode("ascii", "replace") + b"\0"
        head.append((SOFTWARE, _ASCII, len(text), text))
    first = 8  # after the TIFF header
    if private:
        pointer: list[_Entry] = [(EXIF_IFD, _LONG, 1, bytes(4))]
        offset = first + len(_directory([*head, *pointer], first))
        head.append((EXIF_IFD, _LONG, 1, struct.pack(">L", offset)))
        tail = _directory(private, offset)
    else:
        tail = b""
    return b"Exif\0\0" + b"MM\0*" + struct.pack(">L", first) + _directory(head, first) + tail


def _sorted(*groups: list[_Entry]) -> list[_Entry]:
    return sorted(entry for group in groups for entry in group)


def _directory(entries: list[_Entry], start: int) -> bytes:
    """One IFD at byte ``start`` of the TIFF data: count, 12 bytes an entry, next = 0, values."""
    values_at = start + 2 + 12 * len(entries) + 4
    table, values = struct.pack(">H", len(entries)), b""
    for tag, kind, count, value in entries:
        if len(value) <= 4:
            field = value.ljust(4, b"\0")
        else:
            field = struct.pack(">L", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)  # values lie on even offsets
        table += struct.pack(">HHL", tag, kind, count) + field
    return table + bytes(4) + values


def tags(picture: Image.Image) -> dict[int, Any]:
    """Every tag of IFD0 and of the Exif IFD; some programs put the user's comment into the first.

    Raises whatever Pillow does on damage.
    """
    found = picture.getexif()
    return {**dict(found), **found.get_ifd(EXIF_IFD)}


def text(tags: Mapping[int, Any], tag: int) -> str:
    """The text of a tag; "" when there is none."""
    value = tags.get(tag, b"")
    if isinstance(value, tuple) and all(isinstance(v, int) and 0 <= v < 256 for v in value):
        value = bytes(value)  # of type BYTE
    if isinstance(value, str):  # Pillow read the bytes of an ASCII field as Latin-1
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            return value.strip("\0")
    return decoded(value) if isinstance(value, bytes) else ""


def decoded(value: bytes) -> str:
    """The text of a comment, whatever its eight letters promise.

    EXIF 2.32 has UNICODE (UTF-16 of either order, or UTF-8 as some write it), ASCII (often UTF-8),
    and eight zeros for what is unknown; others leave the letters out.
    """
    code, rest = value[:8], value[8:]
    if code in (_UNICODE, b"ASCII\0\0\0", bytes(8)):
        value = rest
    return _wide(value, "utf-16-be" if code == _UNICODE else "latin-1").strip("\0")


def _wide(data: bytes, otherwise: str) -> str:
    """UTF-16 or UTF-8, by the byte-order mark, else by where zeros lie."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    start = data[:4096].rstrip(b"\0")
    first, second = start[::2].count(0), start[1::2].count(0)  # of each pair of bytes
    if first or second:
        return data.decode("utf-16-be" if first >= second else "utf-16-le", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(otherwise, "replace")


def packed(text: str) -> bytes:
    """Darkroom's JSON as it lies in MakerNote."""
    return _NOTE + zlib.compress(text.encode(), 9)


def unpacked(tags: Mapping[int, Any]) -> str:
    """The JSON in MakerNote; "" when there is none, or it is damaged.

    At most 1 MB: a few bytes of hostile input may stand for gigabytes.
    """
    value = tags.get(MAKER_NOTE, b"")
    if not isinstance(value, bytes) or not value.startswith(_NOTE):
        return ""
    try:
        return zlib.decompressobj().decompress(value[len(_NOTE) :], 1_000_000).decode()
    except (zlib.error, UnicodeDecodeError):
        return ""
