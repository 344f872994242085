"""Training states on disk: one safetensors file, written whole or not at all."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from darkroom import foreign
from darkroom.errors import CheckpointError, DarkroomError
from darkroom.training import distributed
from darkroom.weights.files import read_header, read_tensors
from darkroom.weights.save import write_tensors, writing_order

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_state(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Write tensors and a JSON object to one file, atomically, a tensor at a time.

    Of several processes the first one writes. Shards are gathered on the way: then all call it.

    Raises:
        DarkroomError: when the disk is full; what was there under that name stays.
    """
    if not distributed.first():
        for name in writing_order(tensors):
            distributed.whole(tensors[name])
        return
    try:
        write_tensors(path, tensors, {"darkroom": json.dumps(plain)}, distributed.whole)
    except OSError as error:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        refuse_if_full(error, path, size)
        raise


def refuse_if_full(error: OSError, path: Path, size: float) -> None:
    """If ``error`` means a full disk, say so in one line, with what to do."""
    if error.errno in FULL:
        kept = "what was saved before is kept" if path.exists() else "nothing was saved"
        raise DarkroomError(
            f"{path}: no room for {size / 1e6:.3g} MB ({error.strerror}); {kept}: free some space "
            "and give the same command again, or choose another --out"
        ) from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write_state`` wrote.

    Raises:
        CheckpointError: if the file is no training state.
    """
    plain = read_facts(path)
    return {name: tensor.clone() for name, tensor in read_tensors(path).items()}, plain


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON object of ``write_state``. Raises as ``read_state``."""
    try:
        return foreign.parse_json(read_header(path).metadata["darkroom"], "it", CheckpointError)
    except (CheckpointError, KeyError) as error:
        raise CheckpointError(f"{path}: not a training state ({error}); delete it") from error
