"""The tensors of a file as its network needs them: names unwrapped, scaled numbers multiplied."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from darkroom.weights.readers.faults import Fault, naming
from darkroom.weights.readers.quantized import UNQUANTISED, aside, packed, scales
from darkroom.weights.readers.wrappers import unwrapped

if TYPE_CHECKING:
    from torch import Tensor


class State(Mapping[str, "Tensor"]):
    """A view of what a file, or several, hold; nothing is read before it is asked for.

    Args:
        tensors: by the names in the file.
        infos: of each, what the header says.
        path: for messages.

    Raises:
        CheckpointError: the weights are quantised in a way that is not read.
    """

    def __init__(
        self,
        tensors: Mapping[str, "Tensor"],
        infos: Mapping[str, Any],
        path: str | os.PathLike[str],
    ) -> None:
        self._tensors = tensors
        self._names = unwrapped(infos)
        own = {new: infos[old] for new, old in self._names.items()}
        with naming(path):
            if what := packed(own):
                raise Fault(f"has weights in {what}; expected plain numbers", UNQUANTISED)
        self._scales = scales(own)
        self._infos = {
            name: replace(info, dtype="float32") if name in self._scales else info
            for name, info in own.items()
            if not aside(name, own)
        }

    @property
    def infos(self) -> Mapping[str, Any]:
        """Shape and dtype of each; reads nothing."""
        return self._infos

    def __getitem__(self, name: str) -> "Tensor":
        if name not in self._infos:
            raise KeyError(name)
        tensor = self._tensors[self._names[name]]
        if name not in self._scales:
            return tensor
        scale = self._tensors[self._names[self._scales[name]]].float()
        return tensor.float() * scale.reshape(-1, *(1,) * (tensor.ndim - 1))

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    @property
    def release(self) -> Callable[[], None]:
        """As ``Tensors.release``."""
        return getattr(self._tensors, "release", lambda: None)
