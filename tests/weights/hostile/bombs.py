"""Pickles that want memory or time."""

import functools
import struct

from hostile.kinds import kind
from hostile.making import (
    anywhere,
    archive,
    called,
    named,
    storage,
    tensor,
    value,
)


@kind()
def bomb_deep_lists(rng):
    depth = rng.choice([200, 5000, 500_000])
    return anywhere(rng, b"]" * depth + tensor() + b"a" * depth)


@kind()
def bomb_deep_tuples(rng):
    return anywhere(rng, b")" + b"\x85" * rng.choice([1000, 1_000_000]))


@kind()
def bomb_deep_key(rng):
    """Hashing a deep tuple recurses in C."""
    return anywhere(rng, b"}" + b")" + b"\x85" * 300_000 + b"Ns")


@kind()
def bomb_deep_frozenset(rng):
    return anywhere(rng, b"}" + b"(N\x91" + b"\x85" * 100_000 + b"Ns")


@kind()
def bomb_memo_index(rng):
    return anywhere(rng, b"Nr" + struct.pack("<I", rng.choice([2**31, 2**32 - 1, 10**9])) + b"0N")


@kind()
def bomb_memo_many(rng):
    return anywhere(rng, b"N" + b"\x94" * 3_000_000)


@kind()
def bomb_billion_laughs_lists(rng):
    body = b"]" + tensor() + b"a\x94"
    for index in range(rng.choice([25, 40, 90])):
        body += b"](" + (b"h" + bytes([index])) * 10 + b"e\x94"
    return archive(body)


@kind()
def bomb_billion_laughs_tuples(rng):
    body = tensor() + b"\x94"
    for index in range(60):
        body += b"(" + (b"h" + bytes([index])) * 9 + b"t\x94"
    return archive(body)


@kind()
def bomb_billion_laughs_dicts(rng):
    body = tensor() + b"\x94"
    for index in range(50):
        get = b"h" + bytes([index])
        body += b"}(" + b"".join(value(str(n)) + get for n in range(5)) + b"u\x94"
    return archive(body)


@kind()
def bomb_list_in_itself(rng):
    return anywhere(rng, b"]\x94" + b"h\x00a" * rng.choice([1, 1000]))


@kind(refused=False)
def bomb_dict_in_itself(rng):
    return archive(b"}\x94(" + value("me") + b"h\x00" + value("a") + tensor() + b"u")


@kind()
def bomb_string_claims(rng):
    code = rng.choice([b"\x8d", b"\x8e", b"\x96"])
    return anywhere(rng, code + struct.pack("<Q", rng.choice([2**63, 2**40, 10**9, 2**32])))


@kind()
def bomb_string_claims_4_bytes(rng):
    code = rng.choice([b"X", b"B", b"T", b"\x8b"])
    return anywhere(rng, code + struct.pack("<I", rng.choice([2**31 - 1, 2**32 - 1, 10**9])))


@kind()
def bomb_long_integers(rng):
    digits = rng.choice([5000, 1_000_000])
    return anywhere(rng, rng.choice([b"L", b"I"]) + b"9" * digits + b"L\n")


@kind()
def bomb_long_line(rng):
    return anywhere(rng, rng.choice([b"V", b"S'", b"c", b"g", b"F", b"P"]) + b"a" * 3_000_000)


@kind()
def bomb_equal_hashes(rng):
    keys = b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(30_000)
    )
    return anywhere(rng, b"}(" + keys + b"u")


@kind()
def bomb_nothing(rng):
    return anywhere(rng, b"N" * 4_000_000)


@kind()
def bomb_sets(rng):
    return anywhere(rng, rng.choice([b"\x8f", b"(\x91"]) * 1_500_000)


@kind()
def bomb_marks(rng):
    return anywhere(rng, b"(" * 2_000_000)


@kind()
def bomb_dicts(rng):
    return anywhere(rng, b"}" * 3_000_000)


@kind()
def bomb_reduces(rng):
    return anywhere(rng, b"cx\ny\n" + b")R" * 1_000_000)


@kind()
def bomb_emoji(rng):
    """One letter beyond the basic plane makes Python keep four bytes for each."""
    text = ("\U0001f600" + "a" * rng.choice([5_000_000, 23_000_000, 30_000_000])).encode()
    return archive(b"X" + struct.pack("<I", len(text)) + text)


@kind()
def bomb_copies_of_a_list(rng):
    """A list of 100,000 made into a tuple again and again."""
    name = rng.choice(["tuple", "list", "set", "frozenset"])
    body = b"](" + b"K\x01" * 100_000 + b"e\x94" + named("builtins", name) + b"\x94"
    return archive(body + b"h\x01h\x00\x85R0" * 20_000)


@kind()
def bomb_copies_of_bytes(rng):
    body = b"B" + struct.pack("<I", 1_000_000) + bytes(1_000_000) + b"\x94"
    body += named("_codecs", "encode") + b"\x940"
    return archive(body + b"(h\x01h\x00tR" * 10_000 + b"")


@kind()
def bomb_bytes_by_number(rng):
    function = named("builtins", rng.choice(["bytearray", "bytes"]))
    return anywhere(rng, called(function, value(10**11)))


@kind()
def bomb_range(rng):
    listed = called(named("builtins", "list"), called(named("builtins", "range"), value(10**12)))
    return anywhere(rng, listed)


@kind()
def bomb_million_tensors(rng):
    return crowd_of_tensors(rng.choice([300_000, 1_000_000]))


@functools.cache
def crowd_of_tensors(count: int) -> bytes:
    function = named("torch._utils", "_rebuild_tensor_v2") + b"q\x01"
    source = storage() + b"q\x02"
    one = b"h\x01(h\x02K\x00K\x01\x85K\x01\x85\x89}tR"
    body = function + b"0" + source + b"0"
    pairs = b"".join(b"X\x07\0\0\0%07d" % i + one for i in range(count))
    return archive(body + b"}(" + pairs + b"u")


@kind()
def bomb_large_pickle(rng):
    """As much as the reader takes: 17 MB of bytes, and then as many objects as it allows."""
    data = b"B" + struct.pack("<I", 17_000_000) + bytes(17_000_000)
    return archive(data + rng.choice([b"}", b"]", b"N\x94", b"\x8f", b"G" + bytes(8)]) * 700_000)
