"""The directory of a zip archive, checked: PyTorch's files and TorchScript's are zip archives.

Only what PyTorch writes is understood: stored or deflated members, Zip64, no encryption. Format:
PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14-16 (end).
"""

import mmap
import struct
import zlib
from dataclasses import dataclass

from darkroom.weights.readers.faults import AGAIN, Fault, printable

MOST_MEMBERS = 120_000
STORED, DEFLATED = 0, 8
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_LOCATOR = struct.Struct("<4sIQI")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the archive; ``header`` is where its local header starts."""

    name: str
    header: int
    packed: int  # bytes in the archive
    size: int  # bytes when unpacked
    method: int
    crc: int


def read_directory(data: mmap.mmap) -> dict[str, Member]:
    """Every member by name.

    Raises:
        Fault: the archive is cut short, lies about its sizes, or is of a kind PyTorch never writes.
    """
    count, size, start = _end_of_directory(data)
    if count > MOST_MEMBERS:
        raise Fault(f"lists {count:,} members, more than any checkpoint has", "use another file")
    if start + size > len(data) or size < count * _ENTRY.size:
        raise Fault("its zip directory lies outside the file: it is cut short or damaged", AGAIN)
    directory = data[start : start + size]
    members: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        at = _read_entry(directory, at, members)
    _check_overlap(members, start)
    return members


def _end_of_directory(data: mmap.mmap) -> tuple[int, int, int]:
    """(members, bytes of the directory, where it starts)."""
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    if end < 0 or end + _END.size > len(data):
        raise Fault("ends early: the download is incomplete", AGAIN)
    _, disk, _, _, count, size, start, _ = _END.unpack_from(data, end)
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        end64 = _END64_LOCATOR.unpack_from(data, locator)[2]
        if end64 + _END64.size > len(data) or data[end64 : end64 + 4] != b"PK\x06\x06":
            raise Fault("its Zip64 directory is damaged", AGAIN)
        fields = _END64.unpack_from(data, end64)
        disk, count, size, start = fields[4], fields[7], fields[8], fields[9]
    if disk != 0:
        raise Fault("is one part of a split zip archive", "join the parts first")
    return count, size, start


def _read_entry(directory: bytes, at: int, members: dict[str, Member]) -> int:
    if at + _ENTRY.size > len(directory) or directory[at : at + 4] != b"PK\x01\x02":
        raise Fault("its zip directory is damaged", AGAIN)
    fields = _ENTRY.unpack_from(directory, at)
    flags, method, crc, packed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
    name_length, extra_length, comment_length, header = *fields[10:13], fields[16]
    name_at = at + _ENTRY.size
    extra_at = name_at + name_length
    after = extra_at + extra_length + comment_length
    if after > len(directory):
        raise Fault("its zip directory is damaged", AGAIN)
    name = directory[name_at:extra_at].decode("utf-8", "replace")
    if 0xFFFFFFFF in (packed, size, header):
        extra = directory[extra_at : extra_at + extra_length]
        size, packed, header = _wide_sizes(extra, size, packed, header)
    if name in members:
        raise Fault(f"holds two members named {printable(name)!r}", AGAIN)
    if flags & 0x41:
        raise Fault("is an encrypted zip archive", "unpack it with its password first")
    if method not in (STORED, DEFLATED):
        raise Fault(f"uses zip compression method {method}", "pack it again with `zip -0`")
    if method == STORED and packed != size:
        raise Fault(f"lies about the size of its member {printable(name)!r}", AGAIN)
    members[name] = Member(name, header, packed, size, method, crc)
    return after


def _wide_sizes(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Sizes of 4 GB and more stand in the extra field with id 1, in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - at) // 8}Q", extra, at))
            try:
                size = next(values) if size == 0xFFFFFFFF else size
                packed = next(values) if packed == 0xFFFFFFFF else packed
                header = next(values) if header == 0xFFFFFFFF else header
            except StopIteration:
                raise Fault("its Zip64 sizes are damaged", AGAIN) from None
            break
        at += length
    return size, packed, header


def _check_overlap(members: dict[str, Member], directory_start: int) -> None:
    """Members that share bytes are how small archives unpack to terabytes."""
    end = 0
    for member in sorted(members.values(), key=lambda m: m.header):
        if member.header < end:
            raise Fault("its members overlap: the archive is damaged or a zip bomb", AGAIN)
        end = member.header + _LOCAL.size + member.packed
    if end > directory_start:
        raise Fault("ends early: the download is incomplete", AGAIN)


def locate(data: mmap.mmap, member: Member) -> int:
    """Where the member's bytes start in the file.

    Raises:
        Fault: its own header disagrees with the directory.
    """
    if member.header + _LOCAL.size > len(data) or data[member.header : member.header + 4] != (
        b"PK\x03\x04"
    ):
        raise Fault(f"its member {printable(member.name)!r} is damaged", AGAIN)
    fields = _LOCAL.unpack_from(data, member.header)
    name_length, extra_length = fields[9], fields[10]
    name_at = member.header + _LOCAL.size
    name = data[name_at : name_at + name_length].decode("utf-8", "replace")
    start = name_at + name_length + extra_length
    if name != member.name or fields[3] != member.method or start + member.packed > len(data):
        raise Fault(f"its member {printable(member.name)!r} is not what the directory says", AGAIN)
    return start


def unpack(data: mmap.mmap, member: Member, most: int) -> bytes:
    """The member's contents, at most ``most`` bytes.

    Raises:
        Fault: larger than that, or the compressed data are damaged.
    """
    if member.size > most:
        raise Fault(
            f"its member {printable(member.name)!r} unpacks to {member.size:,} bytes",
            "use another file; this may be a zip bomb",
        )
    start = locate(data, member)
    packed = data[start : start + member.packed]
    if member.method == STORED:
        return packed
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        contents = unpacker.decompress(packed, member.size) if member.size else b""
        # One byte more than promised shows a lie without unpacking it all.
        surplus = unpacker.decompress(unpacker.unconsumed_tail, 1) if member.size else b""
    except zlib.error:
        raise Fault(f"its member {printable(member.name)!r} is damaged", AGAIN) from None
    if len(contents) != member.size or surplus:
        raise Fault(f"lies about the size of its member {printable(member.name)!r}", AGAIN)
    return contents


def check_sum(data: mmap.mmap, member: Member) -> None:
    """Compare a stored member with its CRC-32, a mebibyte at a time.

    Raises:
        Fault: they differ.
    """
    start = locate(data, member)
    crc = 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    for at in range(start, start + member.packed, 1 << 20):
        piece = data[at : min(at + (1 << 20), start + member.packed)]
        crc = zlib.crc32(unpacker.decompress(piece) if unpacker else piece, crc)
    if crc != member.crc:
        raise Fault(f"its member {printable(member.name)!r} fails its checksum", AGAIN)
