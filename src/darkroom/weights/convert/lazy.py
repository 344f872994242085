"""Tensors whose shape is known and whose values are made when they are asked for.

So a checkpoint of any size is renamed, reshaped, cast and merged before any of it is read; the
writer then asks for one tensor after the other, and nothing holds more than one of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

# Of these, a lazy tensor gives another one. Anything else is computed at once, from the values.
SHAPING = frozenset(
    {
        "__getitem__", "cat", "chunk", "clone", "contiguous", "detach", "flatten", "movedim",
        "narrow", "permute", "reshape", "split", "squeeze", "stack", "t", "transpose", "unflatten",
        "unsqueeze", "view",
    }
)  # fmt: skip
ASKING = frozenset(
    {
        "__len__", "dim", "element_size", "is_complex", "is_contiguous", "is_floating_point",
        "ndimension", "numel", "size", "stride",
    }
)  # fmt: skip
PLACE = torch.device("cpu")  # where the values come to be


class Lazy(Tensor):
    """A tensor of the meta device that knows how its values are made, each time anew."""

    _make: Callable[[], Tensor]

    @classmethod
    def made(cls, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], Tensor]) -> Self:
        """A tensor of this shape and dtype; ``make`` gives it, on the CPU."""
        return cls._around(torch.empty(shape, dtype=dtype, device="meta"), make)

    @classmethod
    def _around(cls, bare: Tensor, make: Callable[[], Tensor]) -> Self:
        lazy = torch.Tensor._make_subclass(cls, bare)
        lazy._make = make
        return lazy

    @classmethod
    def __torch_function__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        with torch._C.DisableTorchFunctionSubclass():
            if name == "__get__":
                asked = func.__self__.__name__
                if asked == "device":
                    return PLACE
                if asked == "is_meta":
                    return False
                if asked not in ("T", "mT", "data"):
                    return func(*args, **kwargs)
            elif name in ("to", "float"):
                return _cast(func, args, kwargs)
            elif name == "requires_grad_":
                func(*args, **kwargs)
                return args[0]
            elif name in ASKING:
                return func(*args, **kwargs)
            if name in SHAPING or name == "__get__":
                return cls._later(func, args, kwargs)
            return func(*real(args), **real(kwargs))

    @classmethod
    def _later(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        found = func(*_bare(args), **_bare(kwargs))
        if isinstance(found, Tensor):
            return cls._around(found, lambda: func(*real(args), **real(kwargs)))
        return tuple(
            cls._around(one, lambda i=i: func(*real(args), **real(kwargs))[i])
            for i, one in enumerate(found)
        )


def real(value: Any) -> Any:
    """``value``, which may be nested, with every lazy tensor in it made."""
    if not isinstance(value, Tensor):
        return tree_map(_one, value)
    return _one(value)


def _one(value: Any) -> Any:
    return value._make() if isinstance(value, Lazy) else value


def _bare(value: Any) -> Any:
    return tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, value)


def _cast(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """``to`` another dtype; a device is where the values will be, not where they are."""
    tensor = args[0]
    if not isinstance(tensor, Lazy):
        return func(*real(args), **real(kwargs))
    asked = [*args[1:], *kwargs.values()]
    like = next((value.dtype for value in asked if isinstance(value, Tensor)), tensor.dtype)
    dtype = next((value for value in asked if isinstance(value, torch.dtype)), like)
    if func.__name__ == "float":
        dtype = torch.float32
    if dtype == tensor.dtype:
        return tensor
    return Lazy.made(tuple(tensor.shape), dtype, lambda: real(tensor).to(dtype))


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of a file, lazily. Making one lets go of the pages of the one before.

    Args:
        tensors: what ``read_tensors`` gives.
        shapes: of each name; what ``read_header`` gives as ``tensors``.
    """

    def __init__(self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Any]) -> None:
        self._tensors, self._shapes = tensors, shapes

    def __getitem__(self, name: str) -> Tensor:
        info = self._shapes[name]
        dtype = getattr(torch, info.dtype)
        return Lazy.made(tuple(info.shape), dtype, lambda: self._read(name))

    def _read(self, name: str) -> Tensor:
        release = getattr(self._tensors, "release", None)
        if release is not None:
            release()
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
