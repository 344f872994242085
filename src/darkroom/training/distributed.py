"""Training on several processes: each sees its share of a batch, and gradients are averaged.

With one process every function here does nothing, or what its name says to one process. Why this
is not DistributedDataParallel: docs/decisions/0006-own-data-parallel.md.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from darkroom.errors import ConfigError, DarkroomError
from darkroom.training.sharding import Shards, is_shard, like, local, whole

__all__ = [
    "any_of", "average_gradients", "blend", "by_kind", "clip_gradients", "collect",
    "compare", "first",
    "gather", "like", "local", "mean", "place", "rank", "running", "start", "stop", "wait",
    "whole", "world",
]  # fmt: skip

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # for another process: it may be evaluating
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
HOW = "start with `torchrun --nproc-per-node N -m darkroom.train CONFIG.toml`"


def start(environment: Mapping[str, str] = os.environ, patience: timedelta = PATIENCE) -> None:
    """Join the processes that torchrun has started; without torchrun do nothing.

    Raises:
        ConfigError: torchrun's environment is incomplete or contradicts itself, or not all
            processes came.
    """
    given = {name: environment[name] for name in NAMES if environment.get(name)}
    if not given.keys() & {"RANK", "LOCAL_RANK", "WORLD_SIZE"}:
        return
    if missing := [name for name in NAMES if name not in given]:
        raise ConfigError(f"the environment lacks torchrun's {', '.join(missing)}; {HOW}")
    for name, text in given.items():
        if name != "MASTER_ADDR" and not text.isdecimal():
            raise ConfigError(f"the environment's {name} is {text!r}, not a number; {HOW}")
    number, here, count = (int(given[name]) for name in NAMES[:3])
    if number >= count or here > number:
        raise ConfigError(
            f"the environment says RANK {number}, LOCAL_RANK {here}, WORLD_SIZE {count}: ranks "
            f"count from 0 to {count - 1}; {HOW}"
        )
    cuda = torch.cuda.is_available()
    if cuda and here >= torch.cuda.device_count():
        raise ConfigError(f"process {here} here finds {torch.cuda.device_count()} GPUs; {HOW}")
    if cuda:
        torch.cuda.set_device(here)
    address = f"tcp://{given['MASTER_ADDR']}:{given['MASTER_PORT']}"
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        address = "env://"  # torchrun keeps the meeting place itself
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            init_method=address,
            timeout=patience,
            rank=number,
            world_size=count,
        )
    except RuntimeError as error:
        raise ConfigError(
            f"process {number} waited {patience.total_seconds():.0f} s at {address} for all "
            f"{count} processes: is WORLD_SIZE the same for each, and is each running?"
        ) from error


def stop() -> None:
    """Part again; after work that went well."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _meeting() -> Iterator[None]:
    """Says in plain words that another process has not come."""
    try:
        yield
    except RuntimeError as error:
        raise DarkroomError(
            f"process {dist.get_rank()} has lost another one, whose own message says why; "
            "the last saved state is whole: the same command goes on from there"
        ) from error


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
        with _meeting():
            dist.barrier()


def collect(what: T) -> list[T]:
    """What each process says, in their order; plain data."""
    told = [what] * world()
    if running():
        with _meeting():
            dist.all_gather_object(told, what)
    return told


def compare(what: str) -> None:
    """Make sure that all processes are about to train the same.

    Raises:
        ConfigError: if ``what`` differs.
    """
    told = collect(what)
    for number, other in enumerate(told):
        if other != told[0]:
            raise ConfigError(
                f"process {number} is about to train something else than process 0: the same "
                "code and the same CONFIG.toml must be on every machine"
            )


@torch.no_grad()
def place(model: nn.Module, device: torch.device, sharded: bool) -> Shards | None:
    """Move a model to its device; of several processes, all get the weights of the first."""
    if not running():
        model.to(device)
        return None
    for module in model.modules():
        module._apply(lambda tensor: tensor.to(device), recurse=False)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            received = tensor.detach().contiguous()
            with _meeting():
                dist.broadcast(received, 0)
            tensor.copy_(received)
    return Shards(model, device) if sharded else None


def mean(value: Tensor) -> Tensor:
    """The mean of a value over the processes."""
    if not running():
        return value
    value = value.clone()
    with _meeting():
        dist.all_reduce(value)
    return value / world()


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether any process says so."""
    return mean(torch.tensor(float(flag), device=device)).item() > 0 if running() else flag


def gather(rows: Tensor) -> Tensor:
    """The rows (B / world, ...) of all processes, with gradient, in the order of the whole batch.

    For a loss between all pairs of a batch that each process took its ``Draw.share`` of. Of the
    parts of an accumulated batch, only those that are on their way at the same time meet.
    """
    return _Gather.apply(rows) if running() else rows  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [
            torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world())
        ]
        with _meeting():
            dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)  # row i of process r was row i * world + r

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.contiguous()
        with _meeting():
            dist.all_reduce(gradient)  # every process's loss depends on these rows
        return gradient[rank() :: world()]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], others: Sequence[Tensor] = ()) -> None:
    """Replace each gradient by its mean over the processes, all of them in one message.

    Shards have theirs from FSDP2. A parameter that another process alone has used gets its share.

    Args:
        others: tensors to average as well, in the same message.
    """
    if not running():
        return
    own = [p for p in parameters if not is_shard(p)]
    used = torch.tensor([float(p.grad is not None) for p in own])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    pieces = [*gradients, *others]
    if not pieces:
        return
    flat = torch.cat([*(piece.flatten() for piece in pieces), used.to(pieces[0].device)])
    with _meeting():
        dist.all_reduce(flat)
    flat /= world()
    *means, used = flat.split([*(piece.numel() for piece in pieces), len(own)])
    for piece, value in zip(pieces, means, strict=True):
        piece.copy_(value.view_as(piece))
    for parameter, gradient, somewhere in zip(own, gradients, used.tolist(), strict=True):
        if parameter.grad is None and somewhere:
            parameter.grad = gradient


def by_kind(tensors: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Ordinary tensors, and shards: torch's functions on lists take one kind at a time."""
    tensors = list(tensors)
    return [t for t in tensors if not is_shard(t)], [t for t in tensors if is_shard(t)]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> float:
    """The norm of all gradients; where it is above ``most``, scale them down to that. 0 = never.

    As ``torch.nn.utils.clip_grad_norm_``, bit for bit, which does not take shards and tensors
    together.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    ordinary, shards = by_kind(gradients)
    norm = nn.utils.get_total_norm(ordinary)
    if shards:
        square = nn.utils.get_total_norm([local(g) for g in shards]).square()
        with _meeting():
            dist.all_reduce(square)
        norm = (norm.to(square.device).square() + square).sqrt()
    if most and gradients:
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        ours = [local(gradient) for gradient in gradients]
        torch._foreach_mul_(ours, scale)  # pyright: ignore[reportPrivateImportUsage]
    return norm.item()


@torch.no_grad()
def blend(averages: Iterable[Tensor], values: Iterable[Tensor], weight: float) -> None:
    """``average += weight * (value - average)`` for each, in place."""
    ours, theirs = [local(average) for average in averages], [local(value) for value in values]
    torch._foreach_lerp_(ours, theirs, weight)  # pyright: ignore[reportPrivateImportUsage]
