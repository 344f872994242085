"""Zip archives that lie."""

import functools
import random
import struct
import zipfile
from collections.abc import Callable

from hostile.kinds import kind
from hostile.making import (
    GOOD,
    archive,
    flipped,
    state,
    storage,
    tensor,
    whole,
    zipped,
)


@kind()
def zip_cut(rng):
    made = archive(GOOD)
    return made[: rng.randint(5, len(made) - 1)]


@kind(refused=False)
def zip_flip(rng):
    return flipped(rng, archive(GOOD))


@kind(refused=False)
def zip_flip_in_pickle(rng):
    made = archive(GOOD)
    start = made.index(b"\x80\x02")
    return flipped(rng, made, start, start + len(whole(GOOD)))


@kind(refused=False)
def zip_flip_in_directory(rng):
    made = archive(GOOD)
    return flipped(rng, made, made.index(b"PK\x01\x02"))


@kind(verify=True)
def zip_wrong_checksum(rng):
    made = bytearray(archive(GOOD, {"0": b"\x11" * 64}))
    made[made.index(b"\x11" * 64) + rng.randrange(64)] ^= 1 + rng.randrange(255)
    return bytes(made)


def _end_changed(offset: int, form: str, *values: int) -> Callable[[random.Random], bytes]:
    def make(rng):
        made = bytearray(archive(GOOD))
        struct.pack_into(form, made, made.rindex(b"PK\x05\x06") + offset, rng.choice(values))
        return bytes(made)

    return make


@kind()
def zip_count_lies(rng):
    return _end_changed(10, "<H", 0, 65_535, 9, 100)(rng)


@kind()
def zip_directory_lies(rng):
    return _end_changed(rng.choice([12, 16]), "<I", 0, 1, 2**32 - 1, 2**31, 5000)(rng)


@kind()
def zip_split(rng):
    return _end_changed(4, "<H", 1, 7, 65_535)(rng)


@kind()
def zip_million_members(rng):
    made = archive(GOOD)
    end = made.rindex(b"PK\x05\x06")
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 46 * 10**6, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return made[:end] + end64 + locator + made[end:]


@kind()
def zip_100_thousand_members(rng):
    return crowded()


@functools.cache
def crowded() -> bytes:
    entry = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 15, 0)[:28]
        + struct.pack("<H", 6)
        + bytes(16)
        + b"%06d" % i
        for i in range(100_000)
    )
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**5, 10**5, len(entry), 4)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 4 + len(entry), 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 2**32 - 1, 2**32 - 1, 0)
    return b"PK\x03\x04" + entry + end64 + locator + end


def _entry_changed(offset: int, form: str, *values: int) -> Callable[[random.Random], bytes]:
    """Change one field in the directory's entry of the storage."""

    def make(rng):
        made = bytearray(archive(GOOD))
        name = made.rindex(b"a/data/0")
        struct.pack_into(form, made, name - 46 + offset, rng.choice(values))
        return bytes(made)

    return make


@kind()
def zip_encrypted(rng):
    return _entry_changed(8, "<H", 1, 65, 64)(rng)


@kind()
def zip_unknown_method(rng):
    return _entry_changed(10, "<H", 1, 9, 12, 14, 93, 99)(rng)


@kind()
def zip_other_methods(rng):
    return archive(GOOD, method=rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


@kind()
def zip_sizes_lie(rng):
    return _entry_changed(rng.choice([20, 24]), "<I", 0, 63, 65, 10**9, 2**32 - 1)(rng)


@kind()
def zip_overlap(rng):
    return _entry_changed(42, "<I", 0, 1, 40)(rng)


@kind()
def zip_header_elsewhere(rng):
    return _entry_changed(42, "<I", 2**32 - 1, 2**31, 10**6)(rng)


@kind()
def zip_local_name_lies(rng):
    made = bytearray(archive(GOOD))
    made[made.index(b"a/data/0") + 7] = ord("1")
    return bytes(made)


@kind()
def zip_bomb_of_pickle(rng):
    return bomb("a/data.pkl")


@kind()
def zip_bomb_of_storage(rng):
    return bomb("a/data/0")


@kind()
def zip_bomb_of_byteorder(rng):
    return bomb("a/byteorder")


@functools.cache
def bomb(name: str) -> bytes:
    big = 300 << 20
    body = state(a=tensor(storage(count=big // 4), shape=(big // 4,), stride=(1,)))
    members = {"a/data.pkl": whole(body), "a/byteorder": b"little", "a/data/0": bytes(64)}
    return zipped(members | {name: bytes(big)}, zipfile.ZIP_DEFLATED)


@kind()
def zip_deflated_longer_than_it_says(rng):
    members = {"a/data.pkl": whole(GOOD), "a/data/0": bytes(500_000)}
    made = bytearray(zipped(members, zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", made, made.rindex(b"a/data/0") - 46 + 24, 64)
    return bytes(made)


@kind()
def zip_deflated_garbage(rng):
    members = {"a/data.pkl": whole(GOOD), "a/data/0": rng.randbytes(64)}
    made = bytearray(zipped(members, zipfile.ZIP_DEFLATED))
    at = made.index(b"a/data/0") + 8
    made[at : at + 30] = b"\xff" * 30
    return bytes(made)


@kind()
def zip_twice_the_same_name(rng):
    made = archive(GOOD, {"0": bytes(64), "1": bytes(64)})
    return made.replace(b"a/data/1", b"a/data/0")


@kind()
def zip_two_pickles(rng):
    return zipped({"a/data.pkl": whole(GOOD), "b/data.pkl": whole(GOOD), "a/data/0": bytes(64)})


@kind()
def zip_names_outside(rng):
    name = rng.choice(["../data.pkl", "/data.pkl", "../../etc/data.pkl", "a/../data.pkl"])
    return zipped({name: whole(GOOD), "a/data/0": bytes(64)})


@kind()
def zip_without_storage(rng):
    return archive(GOOD, {rng.choice(["1", "00", "../0"]): bytes(64)})


@kind()
def zip_short_storage(rng):
    return archive(GOOD, {"0": bytes(rng.randrange(64))})


@kind()
def zip_big_endian(rng):
    members = {"a/data.pkl": whole(GOOD), "a/byteorder": b"big", "a/data/0": bytes(64)}
    return zipped(members)


@kind()
def zip_empty_pickle(rng):
    return zipped({"a/data.pkl": b"", "a/data/0": bytes(64)})
