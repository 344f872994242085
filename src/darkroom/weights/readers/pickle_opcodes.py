"""Pickle's opcodes, one function each: it changes the machine's stack. Facts from ``pickletools``.

``COST`` bounds the memory that one execution of an opcode can take, and never is below 64, which
bounds the time.
"""

import codecs
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from darkroom.weights.readers.faults import AGAIN, Fault
from darkroom.weights.readers.pickle_globals import BUILDERS
from darkroom.weights.readers.records import (
    ArrayRecord,
    Global,
    Inert,
    NumpyType,
    Storage,
    TensorRecord,
)

if TYPE_CHECKING:
    from darkroom.weights.readers.pickle_machine import Machine

STOP = 0x2E
Opcode = Callable[["Machine"], None]


def _unknown(machine: "Machine") -> None:
    raise machine.malformed()


OPCODES: list[Opcode] = [_unknown] * 256
COST = [64] * 256


def opcode(*codes: int, cost: int = 64) -> Callable[[Opcode], Opcode]:
    """List a function under its opcodes; ``cost`` bounds the memory that one of them can take."""

    def enter(function: Opcode) -> Opcode:
        for code in codes:
            OPCODES[code] = function
            COST[code] = cost
        return function

    return enter


def _constant(code: int, value: Any) -> None:
    OPCODES[code] = lambda m: m.stack.append(value)


_constant(ord("N"), None)
_constant(0x88, True)
_constant(0x89, False)
_constant(ord(")"), ())


def _number(code: int, form: str) -> None:
    unpacker = struct.Struct(form)

    def push(m: "Machine") -> None:
        m.stack.append(unpacker.unpack(m.take(unpacker.size))[0])

    OPCODES[code] = push


_number(ord("J"), "<i")
_number(ord("K"), "<B")
_number(ord("M"), "<H")
_number(ord("G"), ">d")


def _sized(code: int, form: str, make: Callable[[bytes], Any], price: int, most: int) -> None:
    """An opcode whose argument is a length and so many bytes."""
    unpacker = struct.Struct(form)

    def push(m: "Machine") -> None:
        count = unpacker.unpack(m.take(unpacker.size))[0]
        if count > most:
            raise (
                m.malformed()
                if most < 1 << 20
                else Fault(f"its pickle claims a string of {count:,} bytes", AGAIN)
            )
        m.stack.append(make(m.take(count, price)))

    OPCODES[code] = push


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogatepass")


def _old_text(piece: bytes) -> str:
    return piece.decode("latin-1")  # Python 2's str: names, or bytes of a NumPy array


def _integer(piece: bytes) -> int:
    return int.from_bytes(piece, "little", signed=True)


_sized(0x8C, "<B", _text, 5, 255)
_sized(ord("X"), "<I", _text, 5, 1 << 30)
_sized(0x8D, "<Q", _text, 5, 1 << 30)
_sized(ord("C"), "<B", bytes, 1, 255)
_sized(ord("B"), "<I", bytes, 1, 1 << 30)
_sized(0x8E, "<Q", bytes, 1, 1 << 30)
_sized(0x96, "<Q", bytes, 1, 1 << 30)
_sized(ord("U"), "<B", _old_text, 2, 255)
_sized(ord("T"), "<i", _old_text, 2, 1 << 30)
_sized(0x8A, "<B", _integer, 2, 255)
_sized(0x8B, "<i", _integer, 2, 255)


@opcode(0x80)
def _protocol(m: "Machine") -> None:
    version = m.take(1)[0]
    if version > 5:
        raise Fault(f"is a pickle of the unknown protocol {version}", AGAIN)


@opcode(0x95)
def _frame(m: "Machine") -> None:
    size = struct.unpack("<Q", m.take(8))[0]
    if m.at + size > len(m.data):
        raise Fault("ends in the middle of its pickle", AGAIN)


@opcode(ord("I"))
def _int_line(m: "Machine") -> None:
    text = m.line(300)
    m.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))


@opcode(ord("L"))
def _long_line(m: "Machine") -> None:
    m.stack.append(int(m.line(300).removesuffix(b"L")))


@opcode(ord("F"))
def _float_line(m: "Machine") -> None:
    m.stack.append(float(m.line(300)))


@opcode(ord("S"))
def _string_line(m: "Machine") -> None:
    text = m.line(1 << 20)
    if len(text) < 2 or text[:1] not in b"'\"" or text[-1:] != text[:1]:
        raise m.malformed()
    decoded: bytes = codecs.escape_decode(text[1:-1])[0]  # pyright: ignore[reportAttributeAccessIssue]
    m.stack.append(_old_text(decoded))


@opcode(ord("V"))
def _unicode_line(m: "Machine") -> None:
    m.stack.append(m.line(1 << 20).decode("raw-unicode-escape"))


@opcode(ord("("), cost=160)
def _mark(m: "Machine") -> None:
    m.marks.append(m.stack)
    m.stack = []


@opcode(ord("0"))
def _pop(m: "Machine") -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.to_mark()


@opcode(ord("1"))
def _pop_mark(m: "Machine") -> None:
    m.to_mark()


@opcode(ord("2"))
def _dup(m: "Machine") -> None:
    m.stack.append(m.stack[-1])


@opcode(ord("]"), cost=88)
def _empty_list(m: "Machine") -> None:
    m.stack.append([])


@opcode(ord("}"), cost=88)
def _empty_dict(m: "Machine") -> None:
    m.stack.append({})


@opcode(0x8F, cost=256)
def _empty_set(m: "Machine") -> None:
    m.stack.append(set())


@opcode(ord("l"), cost=88)
def _list(m: "Machine") -> None:
    items = m.to_mark()
    m.stack.append(items)


@opcode(ord("t"))
def _tuple(m: "Machine") -> None:
    items = tuple(m.to_mark())
    m.stack.append(items)


def _short_tuple(code: int, count: int) -> None:
    def push(m: "Machine") -> None:
        if len(m.stack) < count:
            raise m.malformed()
        m.stack[-count:] = [tuple(m.stack[-count:])]

    OPCODES[code] = push
    COST[code] = 88


_short_tuple(0x85, 1)
_short_tuple(0x86, 2)
_short_tuple(0x87, 3)


@opcode(0x91, cost=256)
def _frozenset(m: "Machine") -> None:
    items = m.to_mark()
    m.charge(100 * len(items))
    m.stack.append(frozenset(m.key(item) for item in items))


@opcode(0x90)
def _add_items(m: "Machine") -> None:
    items = m.to_mark()
    target = m.stack[-1]
    m.charge(100 * len(items))
    if type(target) is set:
        target.update(m.key(item) for item in items)
    elif type(target) is Inert:
        target.elements.extend(items)
    else:
        raise m.malformed()


def _extend(m: "Machine", target: Any, items: list[Any]) -> None:
    if type(target) is list:
        target.extend(items)
    elif type(target) is Inert:
        target.elements.extend(items)
    else:
        raise m.malformed()


@opcode(ord("a"))
def _append(m: "Machine") -> None:
    item = m.stack.pop()
    _extend(m, m.stack[-1], [item])


@opcode(ord("e"))
def _appends(m: "Machine") -> None:
    items = m.to_mark()
    _extend(m, m.stack[-1], items)


def _fill(m: "Machine", target: Any, items: list[Any]) -> None:
    """Add key, value, key, value, ... to a dict or to something inert."""
    if len(items) % 2:
        raise m.malformed()
    m.charge(60 * len(items))
    pairs = zip(items[::2], items[1::2], strict=True)
    if type(target) is dict:
        for key, value in pairs:
            target[m.key(key)] = value
    elif type(target) is Inert:
        target.items.extend(pairs)
    else:
        raise m.malformed()


@opcode(ord("s"))
def _set_item(m: "Machine") -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _fill(m, m.stack[-1], [key, value])


@opcode(ord("u"))
def _set_items(m: "Machine") -> None:
    items = m.to_mark()
    _fill(m, m.stack[-1], items)


@opcode(ord("d"), cost=88)
def _dict(m: "Machine") -> None:
    items = m.to_mark()
    m.stack.append({})
    _fill(m, m.stack[-1], items)


@opcode(ord("p"), cost=128)
def _put_line(m: "Machine") -> None:
    m.memo[int(m.line(20))] = m.stack[-1]


@opcode(ord("q"), cost=128)
def _put_1(m: "Machine") -> None:
    m.memo[m.take(1)[0]] = m.stack[-1]


@opcode(ord("r"), cost=128)
def _put_4(m: "Machine") -> None:
    m.memo[struct.unpack("<I", m.take(4))[0]] = m.stack[-1]


@opcode(0x94, cost=128)
def _memoize(m: "Machine") -> None:
    m.memo[len(m.memo)] = m.stack[-1]


@opcode(ord("g"))
def _get_line(m: "Machine") -> None:
    m.stack.append(m.memo[int(m.line(20))])


@opcode(ord("h"))
def _get_1(m: "Machine") -> None:
    m.stack.append(m.memo[m.take(1)[0]])


@opcode(ord("j"))
def _get_4(m: "Machine") -> None:
    m.stack.append(m.memo[struct.unpack("<I", m.take(4))[0]])


@opcode(ord("c"), cost=160)
def _global(m: "Machine") -> None:
    module, name = _text(m.line()), _text(m.line())
    m.stack.append(m.name(module, name))


@opcode(0x93, cost=160)
def _stack_global(m: "Machine") -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.name(module, name))


@opcode(0x82, 0x83, 0x84)
def _extension(m: "Machine") -> None:
    raise Fault("its pickle names code by a registry number", "do not use this file", unsafe=True)


@opcode(0x97, 0x98)
def _buffer(m: "Machine") -> None:
    raise Fault("its pickle keeps its data in another file", "use another file")


@opcode(ord("R"), 0x81, cost=160)
def _reduce(m: "Machine") -> None:
    """REDUCE calls a function and NEWOBJ makes an object of a class: the same thing, for us."""
    args, function = m.stack.pop(), m.stack.pop()
    m.stack.append(m.call(function, args))


@opcode(0x92, cost=160)
def _new_with_keywords(m: "Machine") -> None:
    keywords, args, function = m.stack.pop(), m.stack.pop(), m.stack.pop()
    if type(keywords) is not dict or type(args) is not tuple or type(function) is not Global:
        raise m.malformed()
    made = m.inert(function.name, args)
    made.state = keywords
    m.stack.append(made)


@opcode(ord("i"), cost=160)
def _inst(m: "Machine") -> None:
    module, name = _text(m.line()), _text(m.line())
    args = tuple(m.to_mark())
    m.stack.append(m.call(m.name(module, name), args))


@opcode(ord("o"), cost=160)
def _obj(m: "Machine") -> None:
    items = m.to_mark()
    m.stack.append(m.call(items[0], tuple(items[1:])))


@opcode(ord("b"))
def _build(m: "Machine") -> None:
    """Fill an object with its state. Only ours are filled; a tensor's attributes are dropped."""
    state = m.stack.pop()
    target = m.stack[-1]
    if type(target) is Inert:
        target.state = state
    elif type(target) is ArrayRecord:
        fill_array(m, target, state)
    elif type(target) is NumpyType:
        if type(state) is tuple and len(state) > 1:
            target.little = state[1] != ">"
    elif type(target) not in (dict, TensorRecord, Storage):
        raise m.malformed()


def fill_array(m: "Machine", array: ArrayRecord, state: Any) -> None:
    """NumPy's ``__setstate__``: (version, shape, dtype, is column-major, bytes)."""
    if type(state) is not tuple or len(state) != 5:
        raise m.malformed()
    _, shape, kind, column_major, data = state
    made = BUILDERS["numpy._core.numeric._frombuffer"](
        m, (data, kind, shape, "F" if column_major else "C")
    )
    array.dtype, array.shape = made.dtype, made.shape
    array.data, array.column_major = made.data, made.column_major


@opcode(ord("P"))
def _persistent_line(m: "Machine") -> None:
    if m.persistent is None:
        raise Fault("its pickle refers to data outside of itself", AGAIN)
    m.stack.append(m.persistent(m.line().decode("ascii")))


@opcode(ord("Q"), cost=400)
def _persistent(m: "Machine") -> None:
    if m.persistent is None:
        raise Fault("its pickle refers to data outside of itself", AGAIN)
    m.stack.append(m.persistent(m.stack.pop()))
