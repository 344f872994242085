"""Pickles that are wrong."""

import struct

from hostile.kinds import kind
from hostile.making import (
    GOOD,
    anywhere,
    archive,
    called,
    named,
    state,
    storage,
    tensor,
    value,
    whole,
    zipped,
)


@kind()
def pkl_persistent_lies(rng):
    wrong = rng.choice(
        [
            storage(count=-1),
            storage(count=2**50),
            storage(count="16"),
            storage(count=True),
            storage(count=16.0),
            storage(key=0),
            storage(key="x" * 1000),
            storage(word="code"),
            storage(type_="QInt8Storage"),
            storage(type_="nn.Module"),
            b"(" + value(("storage", "torch.FloatStorage", "0", "cpu", 16)) + b"tQ",
            value("storage") + b"Q",
            b"NQ",
            b")Q",
            b"P0\n",
            value([1, 2]) + b"Q",
        ]
    )
    return archive(state(a=tensor(wrong)))


@kind()
def pkl_storage_described_twice(rng):
    other = rng.choice(
        [storage(type_="HalfStorage"), storage(count=8), storage(type_="LongStorage")]
    )
    return archive(state(a=tensor(), b=tensor(other)))


@kind()
def pkl_wrong_shape(rng):
    shape, stride = rng.choice(
        [
            ((-1, 3), (3, 1)),
            ((2, -3), (3, 1)),
            ((2, 3), (3,)),
            ((2.0, 3), (3, 1)),
            (("2", 3), (3, 1)),
            ((2**62, 2**62), (0, 0)),
            ((True, 3), (3, 1)),
            (6, 1),
            (None, None),
            ((1,) * 100, (1,) * 100),
            ({2: 3}, {3: 1}),
        ]
    )
    return archive(state(a=tensor(shape=shape, stride=stride)))


@kind()
def pkl_beyond_the_storage(rng):
    offset, shape, stride = rng.choice(
        [
            (0, (17,), (1,)),
            (11, (2, 3), (3, 1)),
            (0, (2, 3), (100, 1)),
            (0, (2, 3), (2**60, 1)),
            (2**40, (1,), (1,)),
            (16, (), ()),
            (0, (2, 3), (-3, 1)),
            (-1, (2, 3), (3, 1)),
            (1.0, (2, 3), (3, 1)),
        ]
    )
    return archive(state(a=tensor(offset=offset, shape=shape, stride=stride)))


@kind()
def pkl_repeats_itself(rng):
    size = rng.choice([10**9, 2**31, 2**40])
    return archive(state(a=tensor(shape=(size,), stride=(0,))))


@kind()
def pkl_tensor_of_nothing(rng):
    return archive(state(a=tensor(rng.choice([b"N", b"]", value("x"), value(3)]))))


@kind()
def pkl_too_few_parts(rng):
    function = named("torch._utils", rng.choice(["_rebuild_tensor_v2", "_rebuild_tensor_v3"]))
    return archive(state(a=called(function, storage())))


@kind()
def pkl_parameter_of_nothing(rng):
    name = rng.choice(["_rebuild_parameter", "_rebuild_parameter_with_state"])
    return archive(state(a=called(named("torch._utils", name))))


@kind()
def pkl_subclass_lies(rng):
    function = named("torch._tensor", "_rebuild_from_type_v2")
    inner = rng.choice([named("torch._utils", "_rebuild_tensor_v2"), named("x", "y"), b"N"])
    return archive(state(a=called(function, inner, named("x", "T"), b")", b"}")))


@kind()
def pkl_no_tensors(rng):
    return anywhere(rng, value(rng.choice([{}, [], {"a": 1}, None, "text", 7, {"state_dict": {}}])))


@kind()
def pkl_unknown_opcode(rng):
    return anywhere(rng, bytes([rng.choice([0x00, 0x99, 0xA0, 0xFF, 0x3F, 0x7B])]))


@kind()
def pkl_empty_stack(rng):
    code = rng.choice(
        [b"", b"R", b"s", b"u", b"b", b"a", b"\x93", b"\x85", b"q\0", b"2", b"0", b"Q"]
    )
    return anywhere(rng, code)


@kind()
def pkl_no_mark(rng):
    return anywhere(rng, b"N" + rng.choice([b"t", b"l", b"d", b"u", b"e", b"o", b"\x91", b"\x90"]))


@kind()
def pkl_missing_memo(rng):
    return anywhere(rng, rng.choice([b"h\x07", b"j\1\2\3\4", b"g7\n", b"gx\n", b"g-1\n"]))


@kind()
def pkl_no_end(rng):
    return zipped({"a/data.pkl": whole(GOOD)[:-1], "a/data/0": bytes(64)})


@kind()
def pkl_cut(rng):
    made = whole(GOOD)
    return zipped({"a/data.pkl": made[: rng.randrange(len(made))], "a/data/0": bytes(64)})


@kind()
def pkl_protocol(rng):
    return zipped({"a/data.pkl": b"\x80" + bytes([rng.randint(6, 255)]) + b"N.", "a/data/0": b""})


@kind()
def pkl_frame_lies(rng):
    return anywhere(rng, b"\x95" + struct.pack("<Q", rng.choice([2**63, 10**6, 2**40])) + b"N")


@kind()
def pkl_unhashable_key(rng):
    return anywhere(rng, b"}" + rng.choice([b"]", b"}", b"\x8f"]) + b"Ns")


@kind()
def pkl_odd_pairs(rng):
    return anywhere(rng, rng.choice([b"}(NNNu", b"(Nd", b"}(Nu"]))


@kind()
def pkl_wrong_targets(rng):
    return anywhere(
        rng, rng.choice([b"NNa", b"NNNs", b"N(NNu", b"N(Ne", b"NNb", b"](N\x90", b"NNR"])
    )


@kind()
def pkl_out_of_band(rng):
    return anywhere(rng, rng.choice([b"\x97", b"N\x98"]))


@kind()
def pkl_bad_text(rng):
    return anywhere(
        rng, rng.choice([b"X\x02\0\0\0\xff\xfe", b"\x8c\x01\xff", b"Sabc\n", b"S'a\n", b"S\n"])
    )


@kind()
def pkl_bad_numbers(rng):
    return anywhere(rng, rng.choice([b"Ix\n", b"L\n", b"F--\n", b"I1_\n", b"Lxx\n", b"I\n"]))


@kind()
def pkl_global_of_numbers(rng):
    return anywhere(rng, rng.choice([b"K\1K\2\x93", b"NN\x93", b"]]\x93", value("a") + b"N\x93"]))


@kind()
def pkl_call_of_numbers(rng):
    return anywhere(rng, rng.choice([b"K\1)R", b"N)R", b"cx\ny\nNR", b"cx\ny\n]R", b"])\x81"]))


@kind()
def pkl_names_collide(rng):
    inner = state(b=tensor())
    return archive(state(value("a") + inner, **{"a.b": tensor(offset=6)}))


@kind()
def pkl_numpy_lies(rng):
    dtype = called(named("numpy", "dtype"), value("f4"), b"\x89\x88")
    array = called(
        named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), value((0,)),
        value("b"),
    )  # fmt: skip
    shape = rng.choice([(10**9,), (-1,), (2, 2), "x", (2**62, 4), None])
    built = b"(K\1" + value(shape) + dtype + b"\x89" + b"C\x08" + bytes(8) + b"tb"
    return archive(state(a=array + built))


@kind()
def pkl_numpy_scalar_lies(rng):
    dtype = called(named("numpy", "dtype"), value(rng.choice(["f8", "i8"])), b"\x89\x88")
    scalar = called(named("numpy.core.multiarray", "scalar"), dtype, b"C\x03abc")
    return anywhere(rng, state(a=scalar))


@kind()
def pkl_numpy_state_lies(rng):
    array = called(named("numpy", "ndarray"), value((2,)))
    return anywhere(rng, state(a=array + rng.choice([b"Nb", b")b", b"]b", value((1, 2)) + b"b"])))


@kind(refused=False)
def pkl_names_of_paths(rng):
    return archive(state(**{rng.choice(["../../etc/passwd", "/etc/passwd", "\0", "\n"]): tensor()}))


@kind()
def pkl_names_that_draw(rng):
    name = rng.choice(["\n\x1b[2J" * 9, "x" * 100_000, "\u202e\0"])
    return archive(state(value(name) + state(b=tensor()), **{f"{name}.b": tensor(offset=6)}))
