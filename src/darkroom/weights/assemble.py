"""Build a network around tensors that exist already: nothing is initialised, nothing held twice."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from darkroom.errors import DarkroomError, LayoutError
from darkroom.weights.readers.quantized import UNQUANTISED

M = TypeVar("M", bound=nn.Module)
MOST_TENSORS = 20_000  # of a network; SDXL has 1,700
MOST_ELEMENTS = 10**11  # parameters; SDXL has 3e9


def assemble(
    model: Callable[[Any], M],
    config: Any,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    device: torch.device,
    after_each: Callable[[], None] = lambda: None,
) -> M:
    """Build ``model(config)`` on the meta device and give it ``tensors``, converted one by one.

    Tensors that have the dtype and device already are taken as they are: they may be views of a
    mapped file, private to this process. The network is in evaluation mode and records no
    gradients; a trainer turns them on where it wants them.

    Args:
        dtype: None leaves each tensor in its own.
        after_each: called when a tensor has been copied and its source is needed no more.

    Raises:
        LayoutError: names or shapes are not those of the model.
    """
    network = bare(model, config)
    wanted = dict(_named(network))
    for problem, names in (
        ("are missing", wanted.keys() - tensors.keys()),
        ("belong to no layer", tensors.keys() - wanted.keys()),
    ):
        if names:
            some = ", ".join(sorted(names)[:5])
            raise LayoutError(f"{type(network).__name__}: {len(names)} tensors {problem}: {some}")
    owners = dict(network.named_modules())
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise LayoutError(
                f"{type(network).__name__}: {name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(wanted[name].shape)}"
            )
        if wanted[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise LayoutError(
                f"{type(network).__name__}: {name} holds {kind} numbers, expected fp16, bf16 or "
                f"fp32; {UNQUANTISED}"
            )
        path, _, leaf = name.rpartition(".")
        converted = _placed(tensor, wanted[name], dtype, device)
        owner = owners[path]
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(converted, requires_grad=False)
        else:
            owner._buffers[leaf] = converted
        if converted is not tensor:
            after_each()
    if device.type != "meta":  # where a model is only looked into
        _refuse_meta(network)
    return network.eval()


def bare(model: Callable[[Any], M], config: Any) -> M:
    """``model(config)`` on the meta device.

    Raises:
        LayoutError: its sizes make no network, or a larger one than any.
    """
    try:
        with on_meta():
            return model(config)
    except (DarkroomError, MemoryError):
        raise
    except Exception as error:  # of torch's layers, by sizes that contradict each other
        said = " ".join(str(error).split())[:160]
        name = getattr(model, "__name__", "the network")
        raise LayoutError(f"{name}: its sizes make no network: {said}") from error


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Networks built inside have names and shapes, and no values."""
    with _Bare():
        yield


class _Bare(TorchFunctionMode):
    """Makes tensors on the meta device and draws no initial weights.

    One mode, because every call inside pays for each: ``torch.device("meta")`` around it costs a
    third more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.makers = _device_constructors()
        self.tensors = self.elements = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.makers and kwargs.get("device") is None:  # layers say device=None
            kwargs["device"] = "meta"
            made = func(*args, **kwargs)
            self._count(made)
            return made
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)

    def _count(self, made: Any) -> None:
        self.tensors += 1
        self.elements += made.numel() if isinstance(made, Tensor) else 0
        if self.tensors > MOST_TENSORS or self.elements > MOST_ELEMENTS:
            raise LayoutError(
                f"a network of more than {MOST_TENSORS:,} layers or {MOST_ELEMENTS:.0e} "
                "parameters: its sizes are those of no model"
            )


def _named(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What the state dict holds, by name; ``state_dict`` itself takes ten times as long."""
    for path, module in network.named_modules():
        start = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{start}{name}", parameter
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{start}{name}", buffer


def _placed(
    tensor: Tensor, wanted: Tensor, dtype: torch.dtype | None, device: torch.device
) -> Tensor:
    kind = (dtype or tensor.dtype) if wanted.is_floating_point() else wanted.dtype
    placed = tensor.to(device, kind)
    # a part of a fused matrix, or a transposed one, would make every later use slower
    return placed if placed.is_contiguous() else placed.contiguous()


def _refuse_meta(network: nn.Module) -> None:
    """A buffer outside the state dict would stay without values: a bug of the model's file."""
    left = [name for name, buffer in network.named_buffers() if buffer.is_meta]
    assert not left, f"{type(network).__name__} has buffers outside its state dict: {left[:5]}"


def release(tensors: Mapping[str, Tensor]) -> Callable[[], None]:
    """What gives back the memory of the pages that ``read_tensors`` has touched so far."""
    return getattr(tensors, "release", lambda: None)
