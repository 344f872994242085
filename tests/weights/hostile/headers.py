"""Safetensors files whose headers lie."""

import functools
import json
import random
import struct
from collections.abc import Callable

from hostile.kinds import ST, Maker, kind
from hostile.making import (
    flipped,
    good_safetensors,
    pack,
)


def altered(change: Callable[[random.Random, dict], None]) -> Maker:
    """A file whose first tensor's entry was changed."""

    @functools.wraps(change)
    def make(rng: random.Random) -> bytes:
        header, data = good_safetensors(rng)
        change(rng, header)
        return pack(header, data)

    return make


FIRST = "layer.0.weight"


@kind(ST)
def st_cut_in_header(rng):
    whole = pack(*good_safetensors(rng))
    return whole[: rng.randint(1, 60)]


@kind(ST)
def st_cut_in_data(rng):
    header, data = good_safetensors(rng)
    return pack(header, data[: rng.randint(0, len(data) - 1)])


@kind(ST, refused=False)
def st_flip_in_header(rng):
    header, data = good_safetensors(rng)
    return flipped(rng, pack(header, data), 0, 8 + len(json.dumps(header)))


@kind(ST, refused=False)
def st_flip_anywhere(rng):
    return flipped(rng, pack(*good_safetensors(rng)))


@kind(ST)
def st_length_huge(rng):
    return pack(*good_safetensors(rng), rng.choice([2**64 - 1, 2**63, 2**40, 10**9]))


@kind(ST)
def st_length_zero(rng):
    return pack(*good_safetensors(rng), rng.choice([0, 1, 2, 7]))


@kind(ST)
def st_length_off(rng):
    header, data = good_safetensors(rng)
    return pack(header, data, len(json.dumps(header)) + rng.choice([-9, -3, -1, 1, 4, 16]))


@kind(ST)
def st_header_of_100_megabytes(rng):
    def make(path):
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", 100 << 20) + b'{"a":')
            file.truncate(200 << 20)

    return make


@kind(ST)
def st_not_json(rng):
    return pack(b"{" + bytes(rng.choices(b"abc{}[]:,\"'", k=60)), b"")


@kind(ST)
def st_not_an_object(rng):
    return pack(rng.choice([b"{}}", b'{"a":1}', b'{"a":[]}', b'{"a":null}', b"{1:2}"]), b"")


@kind(ST)
def st_deep_json(rng):
    depth = rng.choice([1000, 10_000, 200_000])
    opening = rng.choice([b"[", b'{"a":'])
    return pack(b'{"a":' + opening * depth, b"")


@kind(ST)
def st_many_brackets(rng):
    return pack(b'{"a":[' + b"[]," * 4_000_000 + b"0]}", b"")


@kind(ST)
def st_many_numbers(rng):
    return pack(b'{"a":[' + b"1000," * 3_000_000 + b"0]}", b"")


@kind(ST)
def st_many_keys(rng):
    count = rng.choice([240_000, 490_000, 1_000_000])
    return pack(b"{" + b",".join(b'"%07d":1000' % i for i in range(count)) + b"}", b"")


@kind(ST)
def st_huge_number(rng):
    return pack(b'{"a":' + b"9" * rng.choice([5000, 1_000_000]) + b"}", b"")


@kind(ST)
def st_duplicate_names(rng):
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    return pack(b"{" + entry + b"," + entry + b"}", b"x")


@kind(ST)
@altered
def st_overlap(rng, header):
    header["extra"] = header[FIRST]


@kind(ST)
@altered
def st_hole(rng, header):
    del header["layer.1.weight"]
    header["z"] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}


@kind(ST)
def st_trailing(rng):
    header, data = good_safetensors(rng)
    return pack(header, data + bytes(rng.randint(1, 100)))


@kind(ST)
@altered
def st_offsets_reversed(rng, header):
    header[FIRST]["data_offsets"].reverse()


@kind(ST)
@altered
def st_offsets_strange(rng, header):
    strange = [[0], [], [0, 1, 2], "ab", None, [0.0, 4.0], ["0", "4"], [True, False], [-4, 0], {}]
    header[FIRST]["data_offsets"] = rng.choice([*strange, [0, 2**64], [2**62, 2**62 + 4]])


@kind(ST)
@altered
def st_wrong_dtype(rng, header):
    header[FIRST]["dtype"] = rng.choice(["F4", "F33", "", None, 7, [], "I64", "object", "x" * 9999])


@kind(ST)
@altered
def st_wrong_shape(rng, header):
    strange = [[7, 11], [0], [-1], [-2, -2], [2**40, 2**40], [1.5], ["2"], None, {}, [True], [[2]]]
    header[FIRST]["shape"] = rng.choice([*strange, [10**30], [1] * 1000])


@kind(ST)
@altered
def st_wrong_fields(rng, header):
    choice = rng.randint(0, 3)
    if choice == 0:
        del header[FIRST][rng.choice(["dtype", "shape", "data_offsets"])]
    elif choice == 1:
        header[FIRST]["code"] = "import os"
    else:
        header[FIRST] = rng.choice([None, 3, "x", [], [1, 2, 3]])


@kind(ST)
@altered
def st_wrong_metadata(rng, header):
    header["__metadata__"] = rng.choice(
        [7, [], "x", {"a": 1}, {"a": {"b": "c"}}, None, {"a": None}]
    )


@kind(ST)
def st_not_a_number(rng):
    value = rng.choice([b"NaN", b"Infinity", b"-Infinity"])
    return pack(b'{"a":{"dtype":"U8","shape":[' + value + b'],"data_offsets":[0,1]}}', b"x")


@kind(ST)
def st_not_utf8(rng):
    return pack(b'{"\xff\xfe' + rng.randbytes(4) + b'":{}}', b"")


@kind(ST)
def st_million_tensors(rng):
    return million_names()


@functools.cache
def million_names() -> bytes:
    entry = ':{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return pack(("{" + ",".join(f'"{i}"{entry}' for i in range(1_000_000)) + "}").encode(), b"")


@kind(ST)
def st_200_thousand_tensors(rng):
    return many_names(200_000)


@kind(ST, refused=False)
def st_50_thousand_tensors(rng):
    return many_names(50_000)


@functools.cache
def many_names(count: int) -> bytes:
    entry = ':{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return pack(("{" + ",".join(f'"{i}"{entry}' for i in range(count)) + "}").encode(), b"")


@kind(ST, refused=False)
@altered
def st_names_of_paths(rng, header):
    header[rng.choice(["../../etc/passwd", "/etc/passwd", "C:\\x", "a/../b", ".."])] = header.pop(
        FIRST
    )


@kind(ST)
@altered
def st_names_that_draw(rng, header):
    name = rng.choice(["\n\x1b[2J" * 9, "\ud800", "x" * 50_000, "\0", "\u202e" + "y" * 99, "\r\n"])
    header[name] = {**header.pop(FIRST), "shape": [-1]}


@kind(ST)
def st_no_tensors(rng):
    return pack(rng.choice([{}, {"__metadata__": {"a": "b"}}]), b"")
