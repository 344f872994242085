"""Weights in pieces: each process keeps its share of every large layer (FSDP2).

Layers are sharded one by one, not a network as a whole, since recipes call parts of networks and
methods other than ``forward``. A layer's weights are there while its ``forward`` runs, and again
while its gradients are computed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

SMALLEST = 2048  # numbers in a layer; smaller ones are not worth a message of their own


class Shards:
    """The sharded layers of a model, and how to make them whole again.

    Args:
        device: with an index, or the process's current one of that type.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        names: dict[int, int] = {}  # of each parameter; a tied one belongs to no single layer
        for _, parameter in model.named_parameters(remove_duplicate=False):
            names[id(parameter)] = names.get(id(parameter), 0) + 1
        self.layers: list[tuple[nn.Module, type, dict]] = []
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            large = sum(p.numel() for p in own) >= SMALLEST and all(names[id(p)] == 1 for p in own)
            if next(module.children(), None) is None and large:
                for parameter in own:
                    parameter.data = parameter.data.contiguous()  # all that FSDP2 takes
                before = {
                    k: v.copy() if isinstance(v, dict) else v for k, v in vars(module).items()
                }
                before["_parameters"] = dict.fromkeys(module._parameters)
                self.layers.append((module, type(module), before))
                fully_shard(module, mesh=mesh, reshard_after_forward=True)

    @torch.no_grad()
    def join(self) -> None:
        """Ordinary layers again, with whole weights. All processes call it."""
        for module, kind, before in self.layers:
            parameters = dict(module.named_parameters(recurse=False))
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(before)
            for name, parameter in parameters.items():
                value = nn.Parameter(whole(parameter), parameter.requires_grad)
                module.register_parameter(name, value)
        self.layers = []


def is_shard(tensor: Tensor) -> bool:
    """Whether the rest of it lies elsewhere: a DTensor, whose import takes most of a second."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Any) -> Tensor:
    """What this process has of it, in the same memory."""
    return tensor.to_local() if is_shard(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """All of a tensor; of a shard all processes must ask for it."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def like(tensor: Tensor, other: Any) -> Tensor:
    """``tensor``, whole, placed as ``other`` lies."""
    tensor = tensor.to(other.device)
    if not is_shard(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # every process has all of it: nothing to send
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
