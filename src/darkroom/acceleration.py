"""Speed, applied to one model from outside and taken back again.

Nothing here changes what a network computes beyond rounding; each option is tested against the
plain model. ``dtype`` alone trades accuracy, and only when asked. What is ``recommended`` measures
the rows of ``ops`` where it runs (``ops.speeds``) and leaves all parameters as they are, so a model
can be saved, trained, copied, moved and given adapters as before.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.models.fastsam.blocks import ConvNorm
from darkroom.models.fastsam.fused import PackedConvNorm, activated, folded
from darkroom.models.fastsam.network import FastSAM
from darkroom.models.sam.folded import FOLDED
from darkroom.models.sam.image_encoder import RelativeAttention
from darkroom.models.sam.network import Sam
from darkroom.nn.attention import Attention
from darkroom.nn.normalization import NormSilu
from darkroom.ops.attention import BACKENDS
from darkroom.ops.linear import OneDnnLinear, can_multiply
from darkroom.ops.measured import MeasuredConv2d, MeasuredLinear
from darkroom.ops.normalization import GROUP_NORM_SILU
from darkroom.ops.packed import Packed, can_pack, pack
from darkroom.ops.relative_attention import RELATIVE, attend_relative_torch


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """Which changes to make. The defaults make none."""

    attention: str = "torch"  # a row of ops.attention.BACKENDS; "measured": the quickest here
    group_norm_silu: str = "torch"  # a row of ops.normalization.GROUP_NORM_SILU
    products: str = "torch"  # of linear layers: "onednn" or "measured", in training, too
    convolutions: str = "torch"  # or "measured"
    dtype: torch.dtype | None = None  # of weights and activations; None = as they are
    channels_last: bool = False  # convolutions over (B, H, W, C) in memory
    packed: bool = False  # weights in oneDNN's own order: float32 on a CPU, inference alone
    folded: bool = False  # segment-anything's decoder: fewer multiplications, inference alone
    fused: bool = False  # FastSAM's batch normalisation in its convolutions, inference alone
    compile: str | None = None  # a backend of torch.compile, such as "inductor"


class Accelerated:
    """What ``accelerate`` did to a model; leaving a ``with`` block takes it back, too.

    The weights that a change of dtype replaced are kept here for ``undo``: drop this object to
    free them.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Put everything back, bit for bit. A second call changes nothing."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()


def accelerate(
    model: nn.Module | LatentDiffusion | PixelDiffusion, plan: Acceleration
) -> Accelerated:
    """Change ``model`` in place as ``plan`` says.

    Attach adapters before, and undo before training or detaching them: packed weights are no
    parameters, and what is fused cannot be saved.

    Raises:
        ValueError: for an unknown row, packing that this machine or these weights refuse, or a
            network to be fused that is in training mode. The model is then as it was.
    """
    for name, rows in ((plan.attention, BACKENDS), (plan.group_norm_silu, GROUP_NORM_SILU)):
        if name not in rows:
            raise ValueError(f"no operation called {name!r}; there are {', '.join(rows)}")
    for what, name, rows in (
        ("products", plan.products, LINEAR),
        ("convolutions", plan.convolutions, CONVOLUTION),
    ):
        if name not in rows:
            raise ValueError(f"no {what} called {name!r}; there are {', '.join(rows)}")
    if plan.products == "onednn" and not can_multiply():
        raise ValueError('products="onednn" needs a PyTorch with oneDNN; use products="torch"')
    if plan.packed and not can_pack():
        raise ValueError("packed=True needs a PyTorch with oneDNN on a CPU; use packed=False")
    if plan.packed and plan.folded:
        raise ValueError("folded=True reads weights that packed=True hides; use one of them")
    done = Accelerated()
    try:
        for module in modules(model):
            _swap(module, plan, done)
            if plan.fused:
                _fuse(module, done)
            if plan.dtype is not None:
                _cast(module, plan.dtype, done)
            if plan.channels_last:
                _order(module, torch.channels_last, done)
            if plan.packed:
                _pack(module, done)
            if plan.packed and plan.fused:
                _activate(module, done)
            if plan.compile is not None:
                _compile(module, plan.compile, done)
    except BaseException:
        done.undo()
        raise
    return done


LINEAR: dict[str, type[nn.Linear]] = {
    "torch": nn.Linear,
    "onednn": OneDnnLinear,
    "measured": MeasuredLinear,
}
CONVOLUTION: dict[str, type[nn.Conv2d]] = {"torch": nn.Conv2d, "measured": MeasuredConv2d}


def recommended(model: nn.Module | LatentDiffusion | PixelDiffusion) -> Acceleration:
    """What is faster for ``model``, where it is, at equal numbers.

    On a CPU each operation of float32 takes the row that was measured to be the quickest for its
    shape, and PyTorch's where none is. Parameters stay as they are.
    """
    place = next((p.device for m in modules(model) for p in m.parameters()), torch.device("cpu"))
    if place.type != "cpu":
        return Acceleration(channels_last=True, fused=isinstance(model, FastSAM))
    return Acceleration(
        attention="measured",
        products="measured",
        convolutions="measured",
        folded=isinstance(model, Sam),
        fused=isinstance(model, FastSAM),
        channels_last=isinstance(model, FastSAM),
    )


def for_training() -> Acceleration:
    """What is faster in training on a CPU, where it is, at equal numbers: as is measured there."""
    if not is_wanted():
        return Acceleration()
    return Acceleration(attention="measured", products="measured", convolutions="measured")


def hasten(
    model: nn.Module | LatentDiffusion | PixelDiffusion, *, inference_alone: bool = False
) -> None:
    """What opening a model does for its speed, at equal numbers.

    It is ``recommended``; on a CPU the C library keeps freed memory, too (``keep_freed_memory``).
    ``DARKROOM_ACCELERATE=0`` in the environment says no to both.

    Args:
        inference_alone: parameters may be changed, so that the model can no longer be saved or
            trained. Without it they stay as they are.
    """
    if not is_wanted():
        return
    plan = recommended(model)
    if not inference_alone:
        plan = replace(plan, fused=False)
    accelerate(model, plan)
    if plan.products == "measured":
        keep_freed_memory()


def is_wanted() -> bool:
    """False where ``DARKROOM_ACCELERATE`` is 0."""
    return os.environ.get("DARKROOM_ACCELERATE", "") != "0"


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory rather than return and fetch it page by page.

    A setting of the whole process: a U-Net's forward then has 25,000 page faults rather than
    665,000, and is 1.2 to 1.5 times as fast. What is freed stays with the process, to be used
    again. False, and nothing is done, where the C library is not glibc, where the user has set
    this otherwise (``MALLOC_...``, ``GLIBC_TUNABLES``), or with ``DARKROOM_ACCELERATE=0``.
    """
    import ctypes
    import platform

    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    own = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    tuned = any(name in os.environ for name in own)
    if tuned or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not is_wanted():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    no_mapping = mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too
    no_trimming = mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink
    return bool(no_mapping and no_trimming)


def modules(model: nn.Module | LatentDiffusion | PixelDiffusion) -> Iterator[nn.Module]:
    """The networks of a model."""
    if isinstance(model, nn.Module):
        yield model
        return
    for name in ("unet", "autoencoder", "text_encoder", "depth"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            yield part


def _swap(model: nn.Module, plan: Acceleration, done: Accelerated) -> None:
    """Exchange functions on tensors, where a layer is asked for another than it has."""
    for module in model.modules():
        if isinstance(module, Attention):
            _set(module, "attend", BACKENDS[plan.attention], done)
        elif isinstance(module, RelativeAttention):
            row = RELATIVE.get(plan.attention, attend_relative_torch)
            _set(module, "attend", row, done)
        elif plan.folded and type(module) in FOLDED:
            _set(module, "__class__", FOLDED[type(module)], done)
        elif isinstance(module, NormSilu):
            _set(module, "compute", GROUP_NORM_SILU[plan.group_norm_silu], done)
        elif type(module) in LINEAR.values():
            _set(module, "__class__", LINEAR[plan.products], done)
        elif type(module) in CONVOLUTION.values():
            _set(module, "__class__", CONVOLUTION[plan.convolutions], done)


def _fuse(model: nn.Module, done: Accelerated) -> None:
    for module in model.modules():
        if isinstance(module, ConvNorm):
            conv = folded(module)
            _set(module, "norm", nn.Identity(), done)
            _set(module, "conv", conv, done)


def _activate(model: nn.Module, done: Accelerated) -> None:
    for module in model.modules():
        if isinstance(module, ConvNorm) and activated(module):
            _set(module, "__class__", PackedConvNorm, done)


def _set(owner: nn.Module, name: str, value: object, done: Accelerated) -> None:
    before = getattr(owner, name)
    if before is not value:
        setattr(owner, name, value)
        done._undo.append(lambda: setattr(owner, name, before))


def _cast(model: nn.Module, dtype: torch.dtype, done: Accelerated) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    before = [(tensor, tensor.data) for tensor in tensors if tensor.is_floating_point()]
    done._undo.append(lambda: _restore(before))
    model.to(dtype)


def _restore(before: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, data in before:
        tensor.data = data


def _order(model: nn.Module, order: torch.memory_format, done: Accelerated) -> None:
    strides = [(p, p.data.stride()) for p in model.parameters() if p.ndim == 4]

    def undo() -> None:
        for parameter, stride in strides:
            now = parameter.data
            before = torch.empty_strided(now.shape, stride, dtype=now.dtype, device=now.device)
            parameter.data = before.copy_(now)

    done._undo.append(undo)
    for parameter, _ in strides:
        parameter.data = parameter.data.contiguous(memory_format=order)


def _pack(model: nn.Module, done: Accelerated) -> None:
    places = [(o, n, c) for o in model.modules() for n, c in o._modules.items() if c is not None]
    twins: dict[nn.Module, Packed | None] = {}  # a layer may have several places
    for owner, name, layer in places:
        if layer not in twins:
            packed = twins[layer] = pack(layer)
            if packed is not None:
                done._undo.append(packed.unpack)
        if twins[layer] is not None:
            setattr(owner, name, twins[layer])
            done._undo.append(lambda o=owner, n=name, c=layer: setattr(o, n, c))


def _compile(model: nn.Module, backend: str, done: Accelerated) -> None:
    """Compile what is called: the module, or its parts where it is a holder of methods."""
    whole = type(model).forward is not nn.Module.forward
    for module in (model,) if whole else tuple(model.children()):
        module.compile(backend=backend)
        done._undo.append(lambda m=module: setattr(m, "_compiled_call_impl", None))
