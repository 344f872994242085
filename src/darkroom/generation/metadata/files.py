"""Parameters inside picture files: PNG text chunks, EXIF in JPEG and WebP, XMP provenance.

Two texts travel: A1111's ``parameters`` for other programs, and our JSON, which is complete.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.errors import ConfigError
from darkroom.generation.metadata import exif, infotext
from darkroom.generation.metadata.chunks import OURS, THEIRS, described, mapping, texts_of
from darkroom.generation.metadata.params import Params
from darkroom.generation.metadata.programs import comfyui, fooocus, invokeai, novelai
from darkroom.images import DESCRIBED, ImageLike, peek

LIMIT = 60_000  # bytes of metadata: an EXIF block must be below 64 kB, and Pillow distrusts more
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
    note = exif.packed(data) if describe else b""
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
    """How a picture was drawn: from our own metadata, or else from another program's.

    A1111's text (also of Forge, SD.Next, reForge), and what ComfyUI, InvokeAI, Fooocus and NovelAI
    write. ``Params.origin`` says what of theirs is not reproduced.

    Raises:
        ImageError: if the file is no picture.
        ConfigError: if the picture carries no parameters, or such as cannot be read.
    """
    opened = peek(picture, DESCRIBED)
    texts = texts_of(opened)
    for read in READERS:
        if found := read(texts):
            return found
    if opened.format == "PNG" and _has_more(opened):
        return read_params(opened)
    holds = f"; its texts: {described(texts)}" if texts else ""
    raise ConfigError(
        "the picture carries no generation parameters that Darkroom reads; programs that re-encode "
        f"pictures remove them{holds}"
    )


def _ours(texts: Mapping[str, str]) -> Params | None:
    plain = mapping(texts.get(OURS, ""))
    return replace(Params.from_plain(plain), origin=None) if plain else None


def _a1111(texts: Mapping[str, str]) -> Params | None:
    """A1111's text; None where there is none, or where another program may have said more."""
    if not texts.get(THEIRS):
        return None
    try:
        return infotext.read(texts[THEIRS])
    except ConfigError:
        if set(texts) & OF_OTHERS:
            return None
        raise


OF_OTHERS = frozenset((*invokeai.CHUNKS, "prompt", "workflow", "Comment"))
READERS = (_ours, fooocus.read, _a1111, comfyui.read, invokeai.read, novelai.read)


def _has_more(picture: Image.Image) -> bool:
    """Whether texts of a PNG file lie behind its pixels, where Pillow sees them late."""
    before = len(picture.info)
    try:
        picture.load()
    except Exception:  # Pillow raises almost anything on damage
        return False
    return len(picture.info) > before


def _png(text: str, data: str, software: str | None, xmp: str) -> PngInfo:
    info = PngInfo()
    size = len(text.encode()) + len(data.encode()) + len(xmp.encode())
    for key, value in (("parameters", text), (OURS, data), ("Software", software or "")):
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


def _check(size: int) -> None:
    if size > LIMIT:
        raise ConfigError(
            f"the parameters take {size:,} bytes of metadata, at most {LIMIT:,} fit: "
            "shorten the prompt, save a PNG, or save without parameters"
        )
