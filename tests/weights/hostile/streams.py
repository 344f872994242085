"""The older stream, and indexes of shards."""

import json
import pickle
import struct

from hostile.kinds import kind
from hostile.making import GOOD, flipped, state, storage, stream, tensor, value


@kind(".pth")
def old_cut(rng):
    made = stream(GOOD)
    return made[: rng.randint(20, len(made) - 1)]


@kind(".pth", refused=False)
def old_flip(rng):
    return flipped(rng, stream(GOOD))


@kind(".pth")
def old_keys_lie(rng):
    return stream(GOOD, rng.choice([[], ["1"], ["0", "0"], [0], ["0", "1"], [None], [["0"]]]))


@kind(".pth")
def old_count_lies(rng):
    count = rng.choice([-1, 0, 15, 17, 2**62, -(2**63)])
    return stream(GOOD, raw=struct.pack("<q", count) + bytes(64))


@kind(".pth")
def old_big_endian(rng):
    return stream(GOOD).replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")


@kind(".pth")
def old_version(rng):
    return stream(GOOD).replace(pickle.dumps(1001, 2), pickle.dumps(rng.choice([1, 1002, None]), 2))


@kind(".pth")
def old_view_lies(rng):
    body = state(a=tensor(storage()[:-2] + value(("1", 0, 10**9)) + b"tQ"))
    return stream(body.replace(b"tQ", b"\xff")).replace(b"\xff", b"tQ")


INDEX = ".safetensors.index.json"


@kind(INDEX)
def index_outside(rng):
    name = rng.choice(
        ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b.safetensors", "..\\a.safetensors",
         "C:a.safetensors", "/dev/zero", "~/.ssh/id.safetensors", "a\0.safetensors", "",
         ".hidden.safetensors", "con\n.safetensors", "x" * 5000 + ".safetensors"]
    )  # fmt: skip
    return json.dumps({"weight_map": {"a": name}}).encode()


@kind(INDEX)
def index_of_missing_files(rng):
    names = [f"model-{n:05}-of-00003.safetensors" for n in range(rng.randint(1, 3))]
    return json.dumps({"weight_map": {name: name for name in names}}).encode()


@kind(INDEX)
def index_malformed(rng):
    return rng.choice(
        [b"", b"[", b"[]", b"{}", b'{"weight_map":[]}', b'{"weight_map":{}}', b"\xff\xfe{}",
         b'{"weight_map":{"a":7}}', b'{"weight_map":{"a":null}}', b"[" * 100_000, b"9" * 99_999]
    )  # fmt: skip


@kind(INDEX)
def index_of_thousands(rng):
    shards = {str(n): f"model-{n}.safetensors" for n in range(rng.choice([2000, 100_000]))}
    return json.dumps({"weight_map": shards}).encode()
