"""Training states on disk: one safetensors file, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from darkroom.atomic import atomic_write
from darkroom.errors import CheckpointError


def write_state(path: Path, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Write tensors and a JSON object to one file, atomically."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(contiguous, {"darkroom": json.dumps(plain)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write_state`` wrote.

    Raises:
        CheckpointError: if the file is no training state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            plain = json.loads((file.metadata() or {})["darkroom"])
            return {name: file.get_tensor(name) for name in file.keys()}, plain  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not a training state ({error}); delete it") from error
