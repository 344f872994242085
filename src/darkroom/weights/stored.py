"""Networks whose weights stay as their file has them, and are converted while a layer computes.

A float16 file that is to compute in float32 then needs its own pages, and one layer more.
"""

from typing import Any

import torch
from torch import nn

LAYER = 1_000_000  # bytes; smaller weights are converted once

__all__ = ["computes_in", "convert_late"]


def convert_late(network: nn.Module, dtype: torch.dtype) -> None:
    """Have large layers convert their weight to ``dtype`` for each call; all else is converted now.

    For inference by one thread: between calls a large weight is as it is stored.
    """
    first = next(network.parameters(), None)  # by which a model tells what it computes in
    for module in network.modules():
        late = isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_floating_point() or parameter.dtype == dtype:
                continue
            large = parameter.nbytes >= LAYER and parameter is not first
            if late and name == "weight" and large:
                module.computes_in = dtype  # pyright: ignore[reportArgumentType]
                module.register_forward_pre_hook(_convert)
                module.register_forward_hook(_put_back, always_call=True)
            else:
                parameter.data = parameter.data.to(dtype)
        for buffer in module._buffers.values():
            if buffer is not None and buffer.is_floating_point():
                buffer.data = buffer.data.to(dtype)


def computes_in(module: nn.Module) -> torch.dtype | None:
    """What a layer's weight is converted to when it is called; None where it is that already."""
    return getattr(module, "computes_in", None)


def _convert(layer: Any, given: Any) -> None:
    layer._stored = layer.weight.data
    layer.weight.data = layer._stored.to(layer.computes_in)


def _put_back(layer: Any, given: Any, output: Any) -> None:
    layer.weight.data = layer._stored
    del layer._stored
