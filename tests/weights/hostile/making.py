"""Good files and the pieces of pickles that the hostile ones are made from."""

import functools
import io
import json
import pickle
import random
import struct
import zipfile


def good_safetensors(rng: random.Random) -> tuple[dict, bytes]:
    header, at = {}, 0
    for index in range(rng.randint(2, 6)):
        shape = [rng.randint(1, 5) for _ in range(rng.randint(1, 3))]
        size = 4 * functools.reduce(lambda a, b: a * b, shape)
        name = f"layer.{index}.weight"
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, rng.randbytes(at)


def pack(header: object, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def flipped(rng: random.Random, data: bytes, start: int = 0, end: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at = rng.randrange(start, end or len(data))
        changed[at] = rng.randrange(256)
    return bytes(changed)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def value(thing: object) -> bytes:
    """The opcodes that push a plain value."""
    return pickle.dumps(thing, 2)[2:-1]


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def called(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def storage(key="0", type_="FloatStorage", count=16, word="storage") -> bytes:
    parts = value(word) + named("torch", type_) + value(key) + value("cpu") + value(count)
    return b"(" + parts + b"tQ"


def tensor(source: bytes | None = None, offset=0, shape=(2, 3), stride=(3, 1)) -> bytes:
    return called(
        named("torch._utils", "_rebuild_tensor_v2"),
        storage() if source is None else source,
        value(offset),
        value(shape),
        value(stride),
        b"\x89" + called(named("collections", "OrderedDict")),
    )


def state(*entries: bytes, **tensors: bytes) -> bytes:
    """A dictionary: ``entries`` are pairs of opcodes, ``tensors`` values by name."""
    pairs = b"".join(entries) + b"".join(value(name) + t for name, t in tensors.items())
    return b"}(" + pairs + b"u"


def whole(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def archive(body: bytes, storages: dict[str, bytes] | None = None, **options) -> bytes:
    data = {"0": bytes(64)} if storages is None else storages
    members = {"a/data.pkl": whole(body), "a/byteorder": b"little"}
    members |= {f"a/data/{key}": raw for key, raw in data.items()} | {"a/version": b"3\n"}
    return zipped(members, **options)


def stream(body: bytes, keys: object = ("0",), raw: bytes | None = None) -> bytes:
    """The format before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    body = body.replace(b"tQ", b"NtQ")  # a sixth part: no view
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(system, 2)
    rest = struct.pack("<q", 16) + bytes(64) if raw is None else raw
    return head + whole(body) + pickle.dumps(list(keys), 2) + rest


def anywhere(rng: random.Random, body: bytes) -> bytes:
    """A pickle as an archive, as a stream, or by itself."""
    return rng.choice([archive, archive, stream, whole])(body)


GOOD = state(**{"a.weight": tensor(), "b.weight": tensor(offset=6)})
