"""Changes written into the weights themselves: no cost at each call, and taken off bit for bit."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from darkroom.adapters.lora import LayerChange, target
from darkroom.errors import ModelMismatchError
from darkroom.machine import page_out
from darkroom.ops.packed import Packed


class Fused:
    """Changes by the path of the layer, added to the model's parameters until ``detach``.

    A changed parameter gets new memory, its own stays where it is: ``detach`` puts that back, so
    the model is bit for bit what it was. Until then both are held, the own one without memory
    where it is a mapped file. Leaving a ``with`` block detaches, too.

    Args:
        changes: each with its weight. All are differences of the weights as they are now; they
            add up in float32, in this order, and are rounded to the model's dtype once.

    Raises:
        ModelMismatchError: the model has no such layer, or its weights are packed.
    """

    def __init__(
        self, model: nn.Module, changes: Sequence[tuple[Mapping[str, LayerChange], float]]
    ) -> None:
        self.model = model
        self._before: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # itself, its own, the new
        by_path: dict[str, list[tuple[LayerChange, float]]] = {}
        for layers, weight in changes:
            for path, layer in layers.items():
                by_path.setdefault(path, []).append((layer, weight))
        places = {path: self._place(path) for path in by_path}
        try:
            for path, parts in by_path.items():
                self._change(places[path], parts)
        except BaseException:
            self.detach()
            raise

    def _place(self, path: str) -> nn.Module:
        layer = target(self.model, path)
        if isinstance(layer, Packed):
            raise ModelMismatchError(
                f"{path}: its weight is packed: undo the acceleration, fuse, then accelerate"
            )
        return layer

    @torch.no_grad()
    def _change(self, layer: nn.Module, parts: Sequence[tuple[LayerChange, float]]) -> None:
        weights = [(change.difference(layer), weight) for change, weight in parts]
        self._add(layer.weight, weights)  # pyright: ignore[reportArgumentType]
        shifts = [(change.bias_difference(), weight) for change, weight in parts]
        found = [(shift.detach(), weight) for shift, weight in shifts if shift is not None]
        if found:
            self._add(layer.bias, found)  # pyright: ignore[reportArgumentType]

    def _add(self, parameter: nn.Parameter, parts: Sequence[tuple[Tensor, float]]) -> None:
        own = parameter.data
        (first, weight), *others = parts
        total = torch.empty_like(own, dtype=torch.float32)
        torch.add(own.float(), first.to(total), alpha=weight, out=total)
        for difference, weight in others:
            total.add_(difference.to(total), alpha=weight)
        changed = total.to(own.dtype)
        self._before.append((parameter, own, changed))
        parameter.data = changed
        if own.device.type == "cpu":
            page_out(own.data_ptr(), own.nbytes)

    def detach(self) -> None:
        """Put the model's own parameters back, bit for bit. Again is no error.

        Raises:
            ModelMismatchError: something else has changed them since: take that off first.
        """
        for parameter, _, changed in self._before:
            if parameter.data_ptr() != changed.data_ptr():
                raise ModelMismatchError(
                    "the weights have been changed since these changes were fused: take the later "
                    "ones off first"
                )
        while self._before:
            parameter, own, _ = self._before.pop()
            parameter.data = own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.detach()
