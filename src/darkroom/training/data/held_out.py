"""What is kept aside to measure on: decided by a name alone, whatever else is in the set.

So two recipes on the same pictures keep the same ones aside, and a picture stays on its side when
others come or go. Variants of one thing (skin tones, man and woman, direction) stay together.
"""

import hashlib
import re
from collections.abc import Iterable

WHO = re.compile(r"\b(man|woman|person|men|women|people|boy|girl|mx|mr|mrs)\b\.?")


def family(name: str) -> str:
    """What the variants of a named emoji have in common: "man judge: dark skin tone" -> "judge"."""
    plain = name.partition(":")[0].lower()
    rest = " ".join(WHO.sub(" ", plain).split())
    return rest.removeprefix("and ") or "person"


def held_out(name: str, share: float = 0.1, seed: int = 0) -> bool:
    """Whether a name is among the ``share`` of all names that training does not see.

    Args:
        seed: another one keeps others aside.

    Raises:
        ValueError: share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: expected 0 to 1")
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split(
    names: Iterable[str], share: float = 0.1, seed: int = 0, families: bool = True
) -> tuple[list[int], list[int]]:
    """The numbers of those to learn from, and of those kept aside; both may be empty.

    Args:
        families: variants stay together; False = each name for itself, as of photographs.
    """
    parts: tuple[list[int], list[int]] = ([], [])
    for i, name in enumerate(names):
        parts[held_out(family(name) if families else name, share, seed)].append(i)
    return parts
