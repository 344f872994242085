"""How much memory a run will need, before it starts.

The network runs once without data (tensors on the ``meta`` device), and the bytes that are alive at
each operation are counted. What the count cannot see, scratch space inside an operation, is in
``OVERHEAD``.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from darkroom import machine
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import NotEnoughMemoryError
from darkroom.generation.decode import TILE
from darkroom.ops.packed import Packed
from darkroom.weights.assemble import on_meta

OVERHEAD = 1.5  # over the counted bytes: 1.16 to 1.81 measured on a CPU, see test_generation_memory


@dataclass(frozen=True)
class Estimate:
    """Bytes. ``weights`` are there already; ``activations`` is what a run needs beside them."""

    weights: int
    network: int  # one call of the U-Net on its whole batch
    decoding: int  # one picture, or one tile of it
    activations: int  # the larger of both, with the overhead

    @property
    def total(self) -> int:
        return self.weights + self.activations


def estimate(
    model: LatentDiffusion,
    size: tuple[int, int],
    batch: int,
    *,
    tokens: int = 77,
    tile: bool = False,
) -> Estimate | None:
    """What a run needs; None when the model cannot run without data.

    Args:
        size: (height, width) in pixels.
        batch: images times conditionings in one call of the U-Net.
        tokens: length of the encoded text.
        tile: decode in tiles.
    """
    factor, channels = model.autoencoder.factor, model.autoencoder.channels
    height, width = size[0] // factor, size[1] // factor
    try:
        network = _network(model, (batch, channels, height, width), tokens)
        if tile:
            height, width = min(height, TILE), min(width, TILE)
        decoding = _decoding(model, (1, channels, height, width))
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return None  # a part that is no plain module: a stand-in
    if tile:
        decoding += 4 * 4 * size[0] * size[1]
    return _sum(model, network, decoding)


def bound(
    model: LatentDiffusion, size: tuple[int, int], batch: int, *, tile: bool = False
) -> Estimate | None:
    """At least what ``estimate`` says, from the widths alone: no time, no imports.

    Counted activations are proportional to pixels and batch: 15 to 24 numbers per latent and
    channel of the finest level for the U-Net, 2.5 to 4.2 per pixel and channel for the decoder.
    """
    unet: Any = getattr(model.unet, "config", None)
    autoencoder: Any = getattr(model.autoencoder, "config", None)
    try:
        widths = unet.channels[0], max(autoencoder.channels[:2])
    except (AttributeError, TypeError, IndexError):
        return None
    factor, pixels = model.autoencoder.factor, size[0] * size[1]
    number = torch.finfo(model.dtype).bits // 8
    network = 30 * widths[0] * batch * pixels // factor**2 * number
    side = factor * TILE
    decoded = min(size[0], side) * min(size[1], side) if tile else pixels
    decoding = (6 * widths[1] + 12) * decoded * 4 + tile * 16 * pixels
    return _sum(model, network, decoding)


def available(device: torch.device | str) -> int | None:
    """Bytes that are free now on a device; None where the system does not say."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    if device.type != "cpu":
        return None
    known = machine.memory()
    return known.available if known else None


def check(need: Estimate, free: int, advice: str) -> None:
    """Refuse a run that cannot fit.

    Raises:
        NotEnoughMemoryError: naming what is needed, what is free and what would help.
    """
    if need.activations > free:
        raise NotEnoughMemoryError(
            f"needs about {in_gb(need.activations)} beside the {in_gb(need.weights)} of weights, "
            f"{in_gb(free)} are free: {advice}"
        )


def _sum(model: LatentDiffusion, network: int, decoding: int) -> Estimate:
    weights = sum(_bytes(part) for part in (model.unet, model.autoencoder, model.text_encoder))
    return Estimate(weights, network, decoding, round(OVERHEAD * max(network, decoding)))


def _network(model: LatentDiffusion, shape: tuple[int, ...], tokens: int) -> int:
    config: Any = model.unet.config
    batch, _, height, width = shape
    dtype = model.dtype
    x = torch.empty(batch, config.in_channels, height, width, dtype=dtype, device="meta")
    t = torch.empty(batch, device="meta")
    text = torch.empty(batch, tokens, config.text_channels, dtype=dtype, device="meta")
    vector = None
    if config.vector_channels:
        vector = torch.empty(batch, config.vector_channels, dtype=dtype, device="meta")
    return peak(unpacked(model.unet), lambda unet: unet(x, t, text, vector, None))


def _decoding(model: LatentDiffusion, shape: tuple[int, ...]) -> int:
    autoencoder: Any = model.autoencoder
    dtype = next(autoencoder.parameters()).dtype
    latents = torch.empty(shape, dtype=dtype, device="meta")
    image = 3 * 4 * shape[2] * shape[3] * autoencoder.factor**2  # the float32 copy
    return peak(unpacked(autoencoder), lambda module: module.decode(latents)) + image


def unpacked(module: Any) -> Any:
    """``module``, or its twin without data where it holds packed weights: those need data."""
    if not any(isinstance(part, Packed) for part in module.modules()):
        return module
    dtype = next(module.parameters()).dtype
    with on_meta():
        return type(module)(module.config).to(dtype).eval()


@torch.no_grad()
def peak(module: nn.Module, call: Callable[[Any], Any]) -> int:
    """The most bytes of activations alive at once while ``call(module)`` runs, without data."""
    called = _Called(module, call)
    state = {
        name: tensor.to("meta")
        for name, tensor in (*called.named_parameters(), *called.named_buffers())
    }
    with _Counter(state.values()) as counter:
        torch.func.functional_call(called, state, ())
    return counter.peak


class _Called(nn.Module):
    """Makes any method of a module a ``forward``, which ``functional_call`` wants."""

    def __init__(self, module: nn.Module, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self) -> Any:
        return self.call(self.module)


class _Counter(TorchFunctionMode):
    """Adds up the storages that functions return, and subtracts those that die."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in weights)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            q, v = args[0], args[2]  # on ``meta`` it would take its quadratic form; devices fuse it
            result = q.new_empty(*q.shape[:-1], v.shape[-1])
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.alive -= size


def _bytes(part: Any) -> int:
    if not isinstance(part, nn.Module):
        return 0
    tensors = [*part.parameters(), *part.buffers()]
    tensors += [module.packed for module in part.modules() if isinstance(module, Packed)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def in_gb(size: int) -> str:
    """As text: 1.50 GB."""
    return f"{size / 1e9:,.2f} GB"
