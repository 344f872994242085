"""TorchScript archives that want to run code, or hide it where nothing looks."""

from hostile.kinds import MARKER, kind
from hostile.making import called, named, state, tensor, value, whole, zipped

TOUCH = value(f"touch {MARKER}")


def script(body: bytes, constants: bytes = b"\x80\x02).") -> bytes:
    """An archive as ``torch.jit.save`` writes it."""
    members = {"a/data.pkl": whole(body), "a/constants.pkl": constants, "a/version": b"3\n"}
    members |= {"a/data/0": bytes(64), "a/byteorder": b"little"}
    members["a/code/__torch__/clip.py"] = f"import os\nos.system('touch {MARKER}')\n".encode()
    return zipped(members)


def module(*entries: bytes, **tensors: bytes) -> bytes:
    """One module of a class that the archive defines."""
    cls = named("__torch__.clip.___torch_mangle_7", "CLIP")
    return cls + b")\x81" + state(*entries, **tensors) + b"b"


@kind(suffix=".pt", unsafe=True)
def script_system_in_a_module(rng):
    function = named(rng.choice(["os", "posix"]), "system")
    return script(module(value("visual") + called(function, TOUCH), weight=tensor()))


@kind(suffix=".pt", unsafe=True)
def script_loads_another(rng):
    target = rng.choice(["load", "_serialization.load"]).rpartition(".")
    where = ".".join(filter(None, ("torch.jit", target[0])))
    return script(module(value("visual") + called(named(where, target[2]), TOUCH), w=tensor()))


@kind(suffix=".pt", unsafe=True)
def script_eval_as_a_class(rng):
    return script(named("builtins", "eval") + b"(" + TOUCH + b"t\x81" + state(w=tensor()) + b"b")


@kind(suffix=".pt", refused=False)
def script_code_beside(rng):
    """The archive's code and constants are never read: only its tensors are."""
    return script(module(w=tensor()), whole(called(named("os", "system"), TOUCH)))


@kind(suffix=".pt", refused=False)
def script_module_of_an_unknown_class(rng):
    evil = called(named("__torch__.evil", rng.choice(["Run", "forward"])), TOUCH)
    return script(module(value("inner") + evil, w=tensor()))


@kind(suffix=".pt")
def script_without_its_storage(rng):
    whole_file = script(module(w=tensor()))
    return whole_file.replace(b"a/data/0", b"a/data/9")
