"""COCO's run lengths of a mask, packed into text (pycocotools' compressed form)."""

from collections.abc import Sequence

__all__ = ["pack", "unpack"]


def pack(runs: Sequence[int]) -> str:
    """COCO's packing: from the fourth on, a run's difference to the last but one of its kind.

    Numbers go in groups of five bits, lowest first; bit 5 says that more follow, bit 4 of the
    last one is the sign; 48 makes each printable.
    """
    text = []
    for i, run in enumerate(runs):
        rest, more = run - runs[i - 2] if i > 2 else run, True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return "".join(text)


def unpack(text: bytes) -> list[int]:
    """The inverse of ``pack``.

    Raises:
        ValueError: the text is cut off, or has other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        if not 48 <= byte < 112 or shift > 60:
            raise ValueError(f"{chr(byte)!r} in the counts")
        value |= (byte - 48 & 31) << shift
        shift += 5
        if byte - 48 & 32:
            continue
        if byte - 48 & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the counts are cut off")
    return runs
