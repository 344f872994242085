"""Functions run by several gloo processes on this machine, spawned once for all of a module."""

import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing

from darkroom.training import distributed

PRELOADED = [  # once for all processes; an optimizer imports the second
    "torch", "torch._dynamo", "torch.distributed", "darkroom.recipes", "darkroom.training.fit",
]  # fmt: skip


def run(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What ``function(*arguments)`` returns on each of ``count`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_process, args=(rank, count, port, queue, function, arguments))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    told = dict(queue.get() for _ in processes)
    for process in processes:
        process.join(60)
    for rank in range(count):
        assert not isinstance(told[rank], str), told[rank]
    return [told[rank][0] for rank in range(count)]


def _process(rank, count, port, queue, function, arguments):
    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    environment = {name: str(number) for name, number in numbers.items()}
    try:
        distributed.start(environment | {"MASTER_ADDR": "127.0.0.1"})
        queue.put((rank, (function(*arguments),)))
    except BaseException:
        queue.put((rank, traceback.format_exc()))
    else:
        distributed.stop()
