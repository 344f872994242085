"""Whole modules, pickled as Ultralytics does, that are not what they seem."""

from hostile.kinds import kind
from hostile.making import anywhere, archive, called, named, state, tensor, value
from hostile.running import TOUCH

NEW = named("ultralytics.nn.tasks", "SegmentationModel") + b")\x81"


def module(*entries: bytes, **groups: bytes) -> bytes:
    """An object of an unknown class whose attributes are ``_parameters`` and the like."""
    return NEW + state(*entries, **groups) + b"b"


def model(body: bytes) -> bytes:
    return state(model=body, ema=b"N")


GROUPS = {"_parameters": b"}", "_buffers": b"}", "_modules": b"}"}
GOOD = module(**{**GROUPS, "_parameters": state(weight=tensor())})


@kind(refused=False)
def module_beside_plain_things(rng):
    return anywhere(rng, model(GOOD))


@kind(unsafe=True)
def module_with_a_payload_in_its_state(rng):
    payload = called(named("os", "system"), TOUCH)
    return anywhere(rng, model(module(args=payload, _parameters=state(weight=tensor()))))


@kind(unsafe=True)
def module_that_is_reduced_to_a_payload(rng):
    """The class is Ultralytics'; what it is made by is not."""
    made = called(named("posix", "system"), TOUCH) + state(_parameters=state(w=tensor())) + b"b"
    return anywhere(rng, model(made))


@kind(unsafe=True)
def module_whose_setstate_is_replaced(rng):
    swap = state(value("__setstate__") + named("builtins", "exec")) + b"b" + TOUCH + b"b"
    return anywhere(rng, model(NEW + swap))


@kind()
def module_without_tensors(rng):
    return anywhere(rng, model(module(**GROUPS)))


@kind()
def module_without_a_state(rng):
    return anywhere(rng, model(NEW))


@kind()
def module_with_other_things_for_its_groups(rng):
    odd = rng.choice([b"N", b"]", value("text"), value(7), NEW, b")"])
    return anywhere(rng, model(module(_parameters=odd, _buffers=odd, _modules=odd)))


@kind()
def module_with_odd_passing_buffers(rng):
    odd = rng.choice([b"N", value("text"), value(7), NEW])
    groups = {**GROUPS, "_buffers": b"}", "_non_persistent_buffers_set": odd}
    return anywhere(rng, model(module(**groups)))


@kind(refused=False)
def module_with_odd_passing_buffers_and_a_buffer(rng):
    odd = rng.choice([b"N", value("text"), value(7), NEW, b"]"])
    groups = {**GROUPS, "_buffers": state(b=tensor()), "_non_persistent_buffers_set": odd}
    return anywhere(rng, model(module(**groups)))


@kind()
def module_inside_itself(rng):
    body = NEW + b"q\x05" + state(**{**GROUPS, "_modules": state(again=b"h\x05")}) + b"b"
    return anywhere(rng, model(body))


@kind(refused=False)
def module_inside_itself_with_a_tensor(rng):
    groups = {"_parameters": state(w=tensor()), "_modules": state(again=b"h\x05")}
    return anywhere(rng, model(NEW + b"q\x05" + state(**groups) + b"b"))


@kind()
def modules_nested_without_end(rng):
    depth = rng.choice([500, 5_000])
    start = NEW + b"}(" + value("_parameters") + b"}" + value("_modules") + b"}" + value("a")
    return archive(model(start * depth + GOOD + b"sub" * depth))


@kind()
def modules_that_double(rng):
    """Each holds the one before twice: two to the sixtieth tensors, in a short file."""
    body = GOOD + b"q\x01"
    for _ in range(60):
        twice = state(a=b"h\x01", b=b"h\x01")
        body += b"0" + module(**{**GROUPS, "_modules": twice}) + b"q\x01"
    return archive(model(body))


@kind(refused=False)
def module_built_with_slots(rng):
    """BUILD's other form: a pair of the dictionary's and the slots' values."""
    return anywhere(rng, model(NEW + b"N" + state(weight=tensor()) + b"\x86b"))


@kind(refused=False)
def module_built_twice(rng):
    again = state(_parameters=b"}") + b"b"
    return anywhere(rng, model(GOOD + again))


@kind()
def module_built_on_a_name(rng):
    """BUILD on a class itself would change the class for the whole process."""
    body = named("torch.nn.modules.conv", "Conv2d") + state(forward=TOUCH) + b"b"
    return anywhere(rng, model(body))


@kind()
def module_of_two_tensors_with_one_name(rng):
    groups = {"_parameters": state(w=tensor()), "_buffers": state(w=tensor(offset=6))}
    return anywhere(rng, model(module(**groups)))


@kind()
def module_whose_name_is_a_payload(rng):
    name = rng.choice(["\n", "\x1b[2J", "a" * 100_000])
    return anywhere(rng, model(module(_parameters=state(value(name) + NEW))))
