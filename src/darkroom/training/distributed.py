"""Training on several processes: each sees its share of a batch, and gradients are averaged.

With one process every function here does nothing.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch import distributed as dist


def running() -> bool:
    """Whether there is more than this process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if running() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if running() else 1


def first() -> bool:
    """Whether this process is the one that logs and saves."""
    return rank() == 0


def wait() -> None:
    """Until all processes are here."""
    if running():
        dist.barrier()


def mean(value: Tensor) -> Tensor:
    """The mean of a value over the processes."""
    if running():
        dist.all_reduce(value)
        value = value / world()
    return value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, all of them in one message."""
    if not running():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world()
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may lie in shards."""
    return tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """``tensor``, whole, placed as ``other`` lies."""
    return tensor.to(other.device)
