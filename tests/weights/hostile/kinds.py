"""What a kind of hostile file is, and the list that the other files add to."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MARKER = "darkroom-hostile-marker"  # what every payload would create in the present folder
Maker = Callable[[random.Random], "bytes | Callable[[Path], None]"]


@dataclass(frozen=True)
class Kind:
    name: str
    make: Maker
    suffix: str
    refused: bool  # must be refused; otherwise it may also load
    unsafe: bool  # must be called unsafe
    verify: bool  # read with verify=True


@dataclass(frozen=True)
class Case:
    kind: Kind
    path: Path


KINDS: list[Kind] = []


def kind(suffix=".ckpt", refused=True, unsafe=False, verify=False):
    def enter(make: Maker) -> Maker:
        KINDS.append(Kind(make.__name__, make, suffix, refused, unsafe, verify))
        return make

    return enter


ST = ".safetensors"
