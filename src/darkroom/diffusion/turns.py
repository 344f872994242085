"""Networks that wait on the CPU while another one works on a device with less memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Move = Callable[[nn.Module, torch.device], object]


def take_turns(
    networks: Sequence[nn.Module], device: torch.device, move: Move = nn.Module.to
) -> None:
    """Keep networks on the CPU, and have the one that is called on ``device`` while it is at work.

    It stays there until another one is called; what it is given comes along.

    Args:
        move: brings a network to a device.
    """
    at_work: list[nn.Module] = []

    def come(network: nn.Module) -> Callable[[nn.Module, Any, Any], Any]:
        def before(called: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if at_work != [network]:
                for other in at_work:
                    move(other, torch.device("cpu"))
                move(network, device)
                at_work[:] = [network]
            values = tuple(_at(value, device) for value in given)
            return values, {name: _at(value, device) for name, value in named.items()}

        return before

    for network in networks:
        move(network, torch.device("cpu"))
        for part in _called(network):
            part.register_forward_pre_hook(come(network), with_kwargs=True)


def _called(network: nn.Module) -> list[nn.Module]:
    """What is called of a network: itself, or its parts where it is a holder of methods."""
    whole = type(network).forward is not nn.Module.forward
    return [network] if whole else list(network.children())


def _at(value: Any, device: torch.device) -> Any:
    """Tensors, alone or in lists, on a device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_at(one, device) for one in value)
    return value
