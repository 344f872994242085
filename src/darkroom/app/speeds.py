"""What ``darkroom doctor`` tells of the speed of operations, and measuring them beforehand.

The shapes are those of Stable Diffusion 1.5 at 512x512, one picture without guidance: found by a
run of its networks without data.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.models.autoencoder import SD_AUTOENCODER, Autoencoder
from darkroom.models.clip_text import CLIP_L, ClipTextModel
from darkroom.models.unet import SD15, UNet
from darkroom.nn.attention import Attention
from darkroom.ops import speeds
from darkroom.ops.attention import attend_measured
from darkroom.ops.measured import MeasuredConv2d, MeasuredLinear
from darkroom.tracing import trace
from darkroom.weights.assemble import on_meta


@dataclass(frozen=True)
class Operation:
    """A layer without weights of its own yet, and the shapes that go into it."""

    layer: nn.Linear | nn.Conv2d | None  # None: attention
    inputs: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) for shape in self.inputs)
        if isinstance(self.layer, nn.Linear):
            return f"linear {shapes} to {self.layer.out_features}"
        if isinstance(self.layer, nn.Conv2d):
            kernel = "x".join(map(str, self.layer.kernel_size))
            stride = f" by {self.layer.stride[0]}" if self.layer.stride[0] > 1 else ""
            return f"convolution {kernel}{stride} {shapes} to {self.layer.out_channels}"
        return f"attention {shapes}"

    @property
    def has_choice(self) -> bool:
        """False of convolutions that only PyTorch's row is for."""
        if not isinstance(self.layer, nn.Conv2d):
            return True
        layer: Any = self.layer
        layer.__class__ = MeasuredConv2d
        return layer.other_row(torch.empty(self.inputs[0], device="meta")) is not None

    def ready(self) -> tuple[nn.Module | None, tuple[Tensor, ...]]:
        """The layer with random weights, asking for the quickest row; its inputs."""
        inputs = tuple(torch.randn(shape) for shape in self.inputs)
        if self.layer is None:
            return None, inputs
        layer: Any = self.layer.to_empty(device="cpu").requires_grad_(False)
        for parameter in layer.parameters():
            parameter.uniform_(-0.02, 0.02)
        linear = isinstance(layer, nn.Linear)
        layer.__class__ = MeasuredLinear if linear else MeasuredConv2d
        return layer, inputs

    @torch.no_grad()
    def run(self) -> None:
        """Once, which measures what is not known; without memory of its own afterwards."""
        layer, inputs = self.ready()
        if layer is None:
            q, k, v = inputs
            attend_measured(q, k, v)
        else:
            layer(*inputs)
            layer.to("meta")


def operations() -> Iterator[Operation]:
    """Each shape once."""
    seen: set[str] = set()
    for network, call, inputs in _networks():
        modules = dict(network.named_modules())
        for block in trace(network, inputs, call=call):
            module = modules[block.name]
            shapes = tuple(value.shape for value in block.inputs)
            if isinstance(module, Attention) and shapes:
                found = Operation(None, _of_heads(module.heads, shapes))
            elif isinstance(module, nn.Linear | nn.Conv2d) and shapes:
                found = Operation(module, shapes)
            else:
                continue
            if found.name not in seen:
                seen.add(found.name)
                yield found


def measure_again() -> None:
    """Forget what is known, and measure."""
    speeds.here().forget()
    for operation in operations():
        if operation.has_choice:
            operation.run()


def told() -> dict[str, Any]:
    """What has been measured here, JSON-ready; the slowest first."""
    here = speeds.here()
    known = sorted(here.known().items(), key=lambda item: -next(iter(item[1].values())))
    file = here.file()
    return {
        "conditions": speeds.conditions(),
        "file": None if file is None else str(file),
        "margin": speeds.MARGIN,
        "operations": [
            {"operation": name, "row": speeds.winner(rows), "seconds": _finite(rows)}
            for name, rows in known
        ],
    }


def _finite(rows: speeds.Seconds) -> dict[str, float | None]:
    """None of a row that cannot run here."""
    return {row: seconds if math.isfinite(seconds) else None for row, seconds in rows.items()}


def _networks() -> Iterator[tuple[nn.Module, str, tuple[Tensor, ...]]]:
    with on_meta():
        unet, autoencoder, text = UNet(SD15), Autoencoder(SD_AUTOENCODER), ClipTextModel(CLIP_L)
    meta = torch.device("meta")
    latents = torch.empty(1, 4, 64, 64, device=meta)
    words = torch.empty(1, 77, CLIP_L.channels, device=meta)
    yield text.eval(), "forward", (torch.zeros(1, 77, dtype=torch.long, device=meta),)
    yield unet.eval(), "forward", (latents, torch.empty(1, device=meta), words)
    yield autoencoder.eval(), "decode", (latents,)


def _of_heads(heads: int, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes of q, k and v."""
    (batch, length, channels), others = shapes[0], shapes[-1][1]
    width = channels // heads
    q, k = (batch, heads, length, width), (batch, heads, others, width)
    return q, k, k
