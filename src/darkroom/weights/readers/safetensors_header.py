"""The header of a safetensors file, checked strictly.

Format (github.com/huggingface/safetensors): 8 bytes little-endian N, N bytes of JSON, the data.
The JSON maps each name to dtype, shape and ``data_offsets``; ``__metadata__`` maps text to text.
"""

import json
import mmap
from dataclasses import dataclass
from typing import Any

from darkroom.weights.readers.faults import AGAIN, Fault, printable
from darkroom.weights.readers.records import ITEM_SIZE

LONGEST_HEADER = 16 << 20
MOST_TENSORS = 50_000
MOST_METADATA = 50_000
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Where one tensor's bytes are in the file; ``dtype`` by torch's name."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_safetensors_header(data: mmap.mmap) -> tuple[dict[str, Span], dict[str, str]]:
    """(tensors by name, metadata).

    Raises:
        Fault: the header is damaged, lies, or the data are not all there.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length + 8 > len(data):
        raise Fault("ends inside its header: the download is incomplete", AGAIN)
    if length > LONGEST_HEADER:
        raise Fault(f"claims a header of {length:,} bytes", "use another file")
    header = _parse(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    if type(metadata) is dict and len(metadata) > MOST_METADATA:
        raise Fault(f"has {len(metadata):,} lines of metadata", "use another file")
    if type(metadata) is not dict or any(type(v) is not str for v in metadata.values()):
        raise Fault("has metadata that are not text", AGAIN)
    if len(header) > MOST_TENSORS:
        raise Fault(f"lists {len(header):,} tensors, more than any model has", "use another file")
    if not header:
        raise Fault("holds no tensors", "check which file it is")
    begin = 8 + length
    spans = {name: _span(name, entry, begin) for name, entry in header.items()}
    _check_coverage(spans, begin, len(data))
    return spans, metadata


def _parse(text: bytes) -> dict[str, Any]:
    # Counted before parsing: millions of tiny values in 16 MB would take gigabytes.
    opened = text.count(b"[") + text.count(b"{")
    if text.count(b",") > 600_000 or text.count(b":") > 500_000 or opened > 500_000:
        raise Fault("has a header with more values than any model's", "use another file")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError:
        raise Fault("has a header that is not text", AGAIN) from None
    except RecursionError:
        raise Fault("has a header nested too deep", AGAIN) from None
    except ValueError:
        raise Fault("has a header that is not JSON: it is damaged", AGAIN) from None
    if type(header) is not dict:
        raise Fault("has a header that is not a JSON object", AGAIN)
    return header


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Fault("has a header that lists a name twice", AGAIN)
    return found


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _span(name: str, entry: Any, begin: int) -> Span:
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _fault(name, "is described wrongly")
    shape, offsets = entry["shape"], entry["data_offsets"]
    dtype = DTYPES.get(entry["dtype"]) if type(entry["dtype"]) is str else None
    if dtype is None:
        kind = printable(str(entry["dtype"])[:40], 20)
        raise _fault(name, f"has the unknown dtype {kind!r}", "ask for float16 or float32")
    if type(shape) is not list or len(shape) > 32 or not all(map(_whole, shape)):
        raise _fault(name, "has an impossible shape")
    if type(offsets) is not list or len(offsets) != 2 or not all(map(_whole, offsets)):
        raise _fault(name, "has impossible offsets")
    size = ITEM_SIZE[dtype]
    for length in shape:
        size *= length
    if offsets[1] - offsets[0] != size:
        raise _fault(name, "has a shape that does not fit its bytes")
    return Span(dtype, tuple(shape), begin + offsets[0], size)


def _fault(name: str, what: str, remedy: str = AGAIN) -> Fault:
    return Fault(f"its tensor {printable(name, 40)!r} {what}", remedy)


def _check_coverage(spans: dict[str, Span], begin: int, end: int) -> None:
    """Tensors must cover the data exactly: no overlap, no hole, nothing after the last."""
    at = begin
    for span in sorted(spans.values(), key=lambda s: (s.start, s.size)):
        if span.start != at:
            fault = "overlap" if span.start < at else "leave a hole"
            raise Fault(f"its tensors {fault}: the header is damaged", AGAIN)
        at += span.size
    if at > end:
        raise Fault(f"ends {at - end:,} bytes early: the download is incomplete", AGAIN)
    if at < end:
        raise Fault(f"has {end - at:,} bytes after its last tensor", AGAIN)
