"""Parameters inside picture files: PNG text chunks, EXIF in JPEG and WebP, XMP provenance.

Two texts travel: A1111's ``parameters`` for other programs, and our JSON, which is complete.
"""

import json
import zlib
from typing import Any
from xml.sax.saxutils import escape

from PIL.PngImagePlugin import PngInfo

from darkroom.errors import ConfigError
from darkroom.generation.metadata import exif, infotext
from darkroom.generation.metadata.params import Params
from darkroom.images import ImageLike, peek

LIMIT = 60_000  # bytes of metadata: an EXIF block must be below 64 kB, and Pillow distrusts more
_KEY = "darkroom"
_NOTE = b"Darkroom\0"
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmp:CreatorTool="{software}"
 Iptc4xmpExt:DigitalSourceType="{source}"/></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def options(params: Params, format: str, *, mark: bool, describe: bool) -> dict[str, Any]:
    """Keyword arguments for Pillow's ``save`` that put the metadata into a file.

    Args:
        format: "PNG", "JPEG" or "WEBP".
        mark: say that a machine made the picture (XMP DigitalSourceType, Software).
        describe: write the parameters.

    Raises:
        ConfigError: when the parameters need more than 60 kB; ``describe=False`` writes none.
    """
    software = f"Darkroom {params.darkroom}" if mark else None
    xmp = _xmp(software).encode() if software else b""
    text = infotext.write(params) if describe else ""
    data = json.dumps(params.to_plain(), ensure_ascii=False, separators=(",", ":"))
    if format == "PNG":
        return {"pnginfo": _png(text, data if describe else "", software, xmp.decode())}
    note = _NOTE + _packed(data) if describe else b""
    block = exif.build(text, note, software)
    if (
        len(block) + len(xmp) > LIMIT
    ):  # ours is compressed and complete, so it is the one that stays
        block = exif.build("", note, software)
    _check(len(block) + len(xmp))
    found: dict[str, Any] = {"exif": block}
    if xmp:
        found["xmp"] = xmp
    return found


def read_params(picture: ImageLike) -> Params:
    """How a picture was drawn: from our own metadata, or else from an A1111 text.

    Raises:
        ImageError: if the file is no picture.
        ConfigError: if the picture carries no parameters.
    """
    opened = peek(picture)
    info = opened.info
    tags = opened.getexif().get_ifd(exif.EXIF_IFD) if "exif" in info else {}
    note = exif.maker_note(tags)
    ours = info.get(_KEY)
    if isinstance(ours, str) or note.startswith(_NOTE):
        data = ours if isinstance(ours, str) else _unpacked(note.removeprefix(_NOTE))
        try:
            plain = json.loads(data)
        except ValueError:
            plain = None
        if isinstance(plain, dict):
            return Params.from_plain(plain)
    theirs = info.get("parameters") or exif.user_comment(tags)
    if not isinstance(theirs, str) or not theirs:
        raise ConfigError(
            "the picture carries no generation parameters: neither Darkroom's nor A1111's; "
            "programs that re-encode pictures remove them"
        )
    return infotext.read(theirs)


def _png(text: str, data: str, software: str | None, xmp: str) -> PngInfo:
    info = PngInfo()
    size = len(text.encode()) + len(data.encode()) + len(xmp.encode())
    for key, value in (("parameters", text), (_KEY, data), ("Software", software or "")):
        if not value:
            continue
        if _latin(value):
            info.add_text(key, value, zip=size > LIMIT)
        else:  # tEXt is Latin-1
            info.add_itxt(key, value, zip=size > LIMIT)
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp)
    _check(sum(len(chunk[1]) for chunk in info.chunks))
    return info


def _latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _xmp(software: str) -> str:
    return _XMP.format(software=escape(software, {'"': "&quot;"}), source=_SOURCE_TYPE)


def _packed(text: str) -> bytes:
    return zlib.compress(text.encode(), 9)


def _unpacked(data: bytes) -> str:
    """At most 1 MB: a few bytes of hostile input may stand for gigabytes."""
    try:
        return zlib.decompressobj().decompress(data, 1_000_000).decode()
    except (zlib.error, UnicodeDecodeError):
        return ""


def _check(size: int) -> None:
    if size > LIMIT:
        raise ConfigError(
            f"the parameters take {size:,} bytes of metadata, at most {LIMIT:,} fit: "
            "shorten the prompt, save a PNG, or save without parameters"
        )
