"""Few parts that stand for very many or very long names."""

from hostile.kinds import ST, kind
from hostile.making import archive, good_safetensors, pack, state, tensor, value
from hostile.modules import GROUPS, model, module

PUT, GET = b"r\x00\x02\x00\x00", b"j\x00\x02\x00\x00"  # a place of the memo that is free


def listed(items: bytes) -> bytes:
    return b"](" + items + b"e"


@kind()
def names_long_key_times_a_list(rng):
    length, count = rng.choice([(1_000_000, 50_000), (100_000, 400_000), (5_000_000, 1_000)])
    return archive(state(value("k" * length) + listed(rng.choice([b"N", b"]"]) * count)))


@kind()
def names_long_key_times_tensors(rng):
    body = value("k" * rng.choice([1_001, 100_000, 1_000_000])) + listed(
        tensor() + PUT + GET * rng.choice([10, 20_000])
    )
    return archive(b"}(" + body + b"u")


@kind()
def names_long_keys_nested(rng):
    key = value("k" * rng.choice([900, 10_000]))
    body = tensor()
    for _ in range(rng.choice([5, 90])):
        body = b"}(" + key + body + b"u"
    return archive(body)


@kind()
def names_shared_key_in_many_dicts(rng):
    key = value("k" * 1_000_000) + PUT
    inner = b"}(" + GET + b"]u"
    return archive(listed(b"}(" + key + b"]u" + inner * 100_000))


@kind()
def names_shared_list_in_a_list(rng):
    inner = listed(b"]" * 20_000) + PUT
    return archive(state(value("x" * 900) + listed(inner + GET * 20_000)))


@kind()
def names_of_shared_tensors(rng):
    inner = listed(tensor() * 200) + PUT
    return archive(state(value("model") + listed(inner + GET * 5_000)))


@kind()
def names_long_list_in_every_root(rng):
    roots = ("state_dict", "model_state_dict", "model", "params", "module", "net", "network")
    return archive(state(**{root: listed(b"]" * 150_000) for root in roots[:4]}))


@kind()
def names_passing_buffers_in_a_list(rng):
    buffers = state(*(value(f"b{n}") + b"N" for n in range(20_000)))
    passing = listed(rng.choice([b"K\x01", value("b1"), b"]"]) * rng.choice([50_000, 300_000]))
    body = module(
        _parameters=b"}",
        _buffers=buffers,
        _modules=b"}",
        _non_persistent_buffers_set=passing,
    )
    return archive(model(body))


@kind()
def names_passing_buffers_shared(rng):
    """One long list of passing buffers, in many modules."""
    passing = listed(value("b") * 100_000) + PUT
    first = module(**GROUPS, _non_persistent_buffers_set=passing)
    other = module(**GROUPS, _non_persistent_buffers_set=GET)
    children = [value("0") + first, *(value(str(n)) + other for n in range(1, 5_000))]
    return archive(model(module(**{**GROUPS, "_modules": state(*children)})))


@kind()
def names_tensors_repeated(rng):
    """16 million elements, again and again, of one."""
    one = tensor(shape=(1 << 24,), stride=(0,))
    return archive(state(**{f"w{n}": one for n in range(rng.choice([5, 1_000]))}))


@kind(suffix=ST, refused=False)
def names_deep_metadata(rng):
    header, data = good_safetensors(rng)
    deep = rng.choice(["[", '{"a":']) * rng.choice([10_000, 1_000_000])
    key = rng.choice(["lora_adapter_metadata", "ss_tag_frequency", "darkroom", "modelspec.title"])
    return pack({**header, "__metadata__": {key: deep}}, data)


@kind(suffix=ST)
def names_much_metadata(rng):
    header, data = good_safetensors(rng)
    lines = {f"ss_{n}": "x" for n in range(rng.choice([60_000, 400_000]))}
    return pack({**header, "__metadata__": lines}, data)
