"""Gradient checkpointing, from outside: less memory for a second pass through each block.

What a block computes is thrown away after the forward pass and computed again when its gradient is
needed (Chen et al., arXiv:1604.06174).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def checkpoint_blocks(model: nn.Module) -> list[str]:
    """Checkpoint the blocks of ``model``; equal gradients, dropout included.

    A block is a member of a list (``nn.ModuleList``, ``nn.Sequential``) that has modules in it, but
    no further such list of blocks. Batch normalisation would count every batch twice: blocks with
    it stay as they are.

    Returns:
        The names of the blocks.
    """
    members = {
        f"{name}.{key}" if name else key: module
        for name, parent in model.named_modules()
        if isinstance(parent, LISTS)
        for key, module in parent.named_children()
        if next(module.children(), None) is not None
    }
    blocks = {
        name: module
        for name, module in members.items()
        if not any(other.startswith(f"{name}.") for other in members)
        and not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in module.modules())
    }
    for module in blocks.values():
        if not isinstance(module.forward, partial):
            module.forward = partial(_again, module.forward)
    return list(blocks)


def _again(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)
