"""Which part of a pickled structure is the model, and its tensors' dotted names.

Nested dictionaries, lists and inert objects are joined with dots. An inert ``nn.Module`` gives
exactly what its ``state_dict()`` would: parameters, persistent buffers, and those of its children.
"""

from collections.abc import Iterator
from typing import Any

from darkroom.weights.readers.faults import AGAIN, Fault, printable
from darkroom.weights.readers.records import ArrayRecord, Global, Inert, Storage, TensorRecord

# Where trainers put the model, best first.
ROOTS = (
    "state_dict",
    "model_state_dict",
    "model",
    "params_ema",
    "params",
    "module",
    "net",
    "network",
    "ema",
    "ema_model",
    "model_ema",
    "weights",
)
NOT_THE_MODEL = (
    "optimizer",
    "optimizers",
    "optimizer_state_dict",
    "optimizer_states",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scaler",
    "callbacks",
    "loops",
    "amp_scaling_state",
)
MOST_VISITS = 400_000
MOST_TENSORS = 50_000
MOST_LETTERS = 32 << 20  # of all names together, those of the containers on the way included
LONGEST_NAME = 1000
DEEPEST = 100
MOST_BESIDE = 64  # entries of a dictionary around a model
GROUPS = ("_parameters", "_buffers", "_modules")  # of an nn.Module
PASSING = "_non_persistent_buffers_set"
HOLDERS = (dict, list, tuple, Inert, TensorRecord, ArrayRecord)
Leaf = TensorRecord | ArrayRecord


def find_model(root: Any, entry: str | None = None) -> tuple[Any, str]:
    """(the part that holds the model's tensors, its keys joined by dots, or "").

    Ultralytics keeps whole modules: "ema", where it is one, is what it loads itself, and "model"
    may be empty then.

    Args:
        entry: the only key to look at, where the file has it.
    """
    if type(root) is dict:
        averaged = ("ema",) if type(root.get("ema")) is Inert else ()
        for key in (*averaged, *ROOTS) if entry is None else (entry,):
            part: Any = root.get(key)
            if type(part) not in (dict, Inert) or next(leaves(part), None) is None:
                continue
            chosen = [key]
            while len(chosen) < DEEPEST and (inner := _inner(part)):
                part = part[inner]
                chosen.append(inner)
            return part, ".".join(chosen)
    return root, ""


def _inner(part: Any) -> str:
    """The key of a model inside ``part`` that is all of it; "" where there are other tensors."""
    if type(part) is not dict or len(part) > MOST_BESIDE or not any(key in part for key in ROOTS):
        return ""
    holds: dict[int, bool] = {}  # by identity: what is shared is looked through once
    for value in part.values():
        if id(value) not in holds:
            holds[id(value)] = next(leaves(value), None) is not None
    held = [key for key, value in part.items() if key not in NOT_THE_MODEL and holds[id(value)]]
    found = [key for key in ROOTS if key in held and type(part[key]) in (dict, Inert)]
    return found[0] if found and all(key in ROOTS for key in held) else ""


def leaves(root: Any) -> Iterator[tuple[str, Leaf]]:
    """Every tensor with its dotted name; tensors of optimizers and schedulers are left out.

    A few parts, shared again and again, can stand for more names than any memory holds. So visits
    and letters are counted before names are made of them.

    Raises:
        Fault: nested too deep, a name is too long, or there are more of them than any model has.
    """
    # An explicit stack, so that no nesting is too deep for Python; ``open_`` are the containers
    # around the present one, so that a container inside itself is visited once.
    visits = letters = tensors = 0
    open_: set[int] = set()
    stack: list[tuple[str, Any, int]] = [("", root, 0)]
    while stack:
        name, value, depth = stack.pop()
        if depth < 0:  # leaving a container
            open_.discard(id(value))
            continue
        if isinstance(value, TensorRecord) or (isinstance(value, ArrayRecord) and value.dtype):
            tensors += 1
            if tensors > MOST_TENSORS:
                raise Fault(f"holds more than {MOST_TENSORS:,} tensors", "use another file")
            if len(name) > LONGEST_NAME:
                raise Fault(f"names a tensor by more than {LONGEST_NAME} letters", AGAIN)
            yield name, value
            continue
        if type(value) not in (dict, list, tuple, Inert) or id(value) in open_:
            continue
        if depth > DEEPEST:
            raise Fault(f"nests its data more than {DEEPEST} deep", "use another file")
        open_.add(id(value))
        stack.append((name, value, -1))
        visits += 1 + _work(value)
        if visits > MOST_VISITS:
            raise Fault("repeats its parts without end", "use another file")
        inside = []
        for key, part in _parts(value, top=depth == 0):
            if type(part) not in HOLDERS:
                continue
            # cut: only the name of a tensor has to be whole
            joined = f"{name}.{key}" if name and key else name or key
            joined = joined[: LONGEST_NAME + 1]
            letters += len(joined)
            if letters > MOST_LETTERS:
                raise Fault("repeats its parts without end", "use another file")
            inside.append((joined, part, depth + 1))
        stack.extend(reversed(inside))


def _work(value: Any) -> int:
    """How many things ``_parts`` looks at."""
    if type(value) is not Inert:
        return len(value)
    state = value.state
    if type(state) is not dict or "_parameters" not in state:
        return len(value.items) + len(value.elements)
    held: list[Any] = [state.get(name) for name in (*GROUPS, PASSING)]
    return sum(len(part) for part in held if type(part) in (dict, list, tuple, set))


def _parts(value: Any, top: bool) -> Iterator[tuple[str, Any]]:
    if type(value) is dict:
        for key, part in value.items():
            if not (top and key in NOT_THE_MODEL):
                yield _label(key), part
    elif type(value) in (list, tuple):
        for index, part in enumerate(value):
            yield str(index), part
    elif type(value.state) is dict and "_parameters" in value.state:
        yield from _module_parts(value.state)
    else:
        if type(value.state) in (dict, tuple, list):
            yield "", value.state
        for key, part in value.items:
            yield _label(key), part
        for index, part in enumerate(value.elements):
            yield str(index), part


def _module_parts(state: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """As ``nn.Module.state_dict``: no plain attributes, no buffers that are not persistent."""
    passing = state.get(PASSING, ())
    passing = passing if type(passing) in (set, list, tuple) else ()
    passing = {name for name in passing if type(name) is str}  # a list would be searched each time
    for group in GROUPS:
        held = state.get(group)
        for key, part in held.items() if type(held) is dict else ():
            if group != "_buffers" or key not in passing:
                yield _label(key), part


def _label(key: Any) -> str:
    if type(key) is str:
        return key[: LONGEST_NAME + 1]
    if type(key) in (int, float, bool, type(None)):
        return str(key)
    return f"<{type(key).__name__}>"


def dotted(root: Any) -> dict[str, Leaf]:
    """The tensors by name.

    Raises:
        Fault: two tensors have the same name, or one has none.
    """
    found: dict[str, Leaf] = {}
    for name, leaf in leaves(root):
        if name in found and found[name] is not leaf:
            raise Fault(f"holds two tensors named {printable(name)!r}", "use another file")
        found[name] = leaf
    return found


def plain_extras(root: Any, chosen: str) -> dict[str, Any]:
    """The numbers, texts and short lists beside the model, such as global_step and name."""
    if type(root) is not dict:
        return {}
    found, first = {}, chosen.partition(".")[0]
    for key, value in root.items():
        if type(key) is str and key != first and len(found) < 200 and _is_plain(value):
            found[key] = value
    return found


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return len(value) <= 64 and all(_is_scalar(v) for v in value)
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= 4096
    return value is None or type(value) in (int, float, bool)


def replace_leaves(
    value: Any, make: Any, depth: int = 0, done: dict[int, Any] | None = None
) -> Any:
    """The structure with ``make(record)`` for each tensor; shared parts stay shared.

    Raises:
        Fault: nested too deep.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)]
    if depth > DEEPEST:
        raise Fault(f"nests its data more than {DEEPEST} deep", "use another file")
    made: Any = value
    if isinstance(value, TensorRecord) or (isinstance(value, ArrayRecord) and value.dtype):
        made = done[id(value)] = make(value)
    elif isinstance(value, dict):
        done[id(value)] = value
        for key, part in value.items():
            value[key] = replace_leaves(part, make, depth + 1, done)
    elif isinstance(value, list):
        done[id(value)] = value
        value[:] = [replace_leaves(part, make, depth + 1, done) for part in value]
    elif isinstance(value, tuple):
        made = tuple([replace_leaves(part, make, depth + 1, done) for part in value])
        done[id(value)] = made
    elif isinstance(value, Inert):
        done[id(value)] = value
        value.args = replace_leaves(value.args, make, depth + 1, done)
        value.state = replace_leaves(value.state, make, depth + 1, done)
        value.elements[:] = [replace_leaves(e, make, depth + 1, done) for e in value.elements]
        value.items[:] = [(k, replace_leaves(v, make, depth + 1, done)) for k, v in value.items]
    elif isinstance(value, Global | ArrayRecord | Storage):
        made = done[id(value)] = Inert(getattr(value, "name", type(value).__name__))
    return made
