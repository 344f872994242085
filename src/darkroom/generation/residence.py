"""Which weights are resident on a CPU: those at work.

Files are mapped (``weights.files``), so on a CPU a float32 file's weights are pages that the system
has anyway. What a run has done with is unmapped and mapped again when it is touched: nothing is
copied, read again or lost, and what was written to stays where it is.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from darkroom import machine

LEAST = 100_000_000  # bytes of a network, below which there is nothing to gain
LAYER = 1_000_000  # bytes of a layer, likewise
SHARE = 1 / 4  # of a U-Net's weights, that do not stay after their layer: SD 1.5 fits 3.9 GB

__all__ = ["rest", "spare"]


def rest(*networks: object) -> None:
    """Unmap the weights of networks that are done for now, and return freed memory.

    Only on a CPU, only for what is large.
    """
    large = [one for one in networks if isinstance(one, nn.Module) and size_of(one) >= LEAST]
    for network in large:
        for tensor in _tensors(network):
            _rest(tensor)
    if any(next(network.parameters()).device.type == "cpu" for network in large):
        machine.trim()  # of activations, where freed memory is kept


def spare(network: nn.Module, share: float = SHARE) -> None:
    """Have the largest layers unmap their weights after each use, so that not all are resident.

    Args:
        share: of all weights, at least so many; 0 has all stay, 1 has none. A second call replaces
            the first.
    """
    before, handles = getattr(network, "_spared", (0.0, []))
    if before == share:
        return
    for handle in handles:
        handle.remove()
    total, chosen = size_of(network), 0
    handles = []
    layers = [layer for layer in network.modules() if _is_layer(layer) and _own(layer) >= LAYER]
    for layer in sorted(layers, key=_own, reverse=True) if total >= LEAST else ():
        if chosen >= share * total:
            break
        chosen += _own(layer)
        handles.append(layer.register_forward_hook(_done))
    network._spared = (share, handles)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def size_of(network: nn.Module) -> int:
    """Bytes of its weights."""
    return sum(tensor.nbytes for tensor in _tensors(network))


def _done(layer: nn.Module, given: Any, output: Any) -> None:
    for tensor in _tensors(layer):
        _rest(tensor)


def _rest(tensor: Tensor) -> None:
    if tensor.device.type == "cpu" and tensor.nbytes:
        machine.give_back(tensor.data_ptr(), tensor.nbytes)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _is_layer(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _own(layer: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in layer.parameters(recurse=False))
