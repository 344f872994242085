"""A minimal EXIF block, written and read by hand (EXIF 2.32, TIFF 6.0).

Pillow writes UserComment with type BYTE, which the reader of the A1111 web UI refuses, so the block
is built here: IFD0 (Software), Exif IFD (UserComment and MakerNote, both UNDEFINED).
"""

import struct
from collections.abc import Mapping
from typing import Any

SOFTWARE, EXIF_IFD, MAKER_NOTE, USER_COMMENT = 0x0131, 0x8769, 0x927C, 0x9286
_ASCII, _LONG, _UNDEFINED = 2, 4, 7
_UNICODE = b"UNICODE\0"

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


def user_comment(tags: Mapping[int, Any]) -> str:
    """The text of UserComment in an Exif IFD as Pillow reads it; "" when there is none."""
    value = tags.get(USER_COMMENT, b"")
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        return ""
    code, text = value[:8], value[8:]
    if code == _UNICODE:
        swapped = text[:1] != b"\0" and text[1:2] == b"\0"  # some programs write little-endian
        return text.decode("utf-16-le" if swapped else "utf-16-be", "replace")
    if code == b"ASCII\0\0\0":
        return text.decode("ascii", "replace")
    return ""


def maker_note(tags: Mapping[int, Any]) -> bytes:
    """The bytes of MakerNote; b"" when there is none."""
    value = tags.get(MAKER_NOTE, b"")
    return value if isinstance(value, bytes) else b""
