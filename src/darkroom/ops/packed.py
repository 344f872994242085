"""Convolutions and linear layers whose weights lie in oneDNN's own order: CPU, float32.

PyTorch reorders a weight at every call. Reordered once, a 3x3 convolution of 1280 channels was
3.4 times as fast at 8x8 and 1.7 times at 16x16, as fast at 32x32 and up, and a linear layer 1.2 to
1.4 times (one thread, AVX-512). A packed layer records no gradient.
"""

import torch
from torch import Tensor, nn

from darkroom.ops.linear import OneDnnLinear
from darkroom.ops.measured import MeasuredConv2d, MeasuredLinear


def can_pack() -> bool:
    """Whether this PyTorch has what packing needs."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise")
    names += ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def pack(module: nn.Module) -> "PackedConv2d | PackedLinear | None":
    """The packed twin of a layer, which takes its weight out; None where there is nothing to gain.

    Raises:
        ValueError: when the layer's weight is not float32 on a CPU.
    """
    if type(module) in (nn.Linear, OneDnnLinear, MeasuredLinear):
        assert isinstance(module, nn.Linear)
        _check(module.weight)
        return PackedLinear(module)
    if type(module) in (nn.Conv2d, MeasuredConv2d):
        assert isinstance(module, nn.Conv2d)
        if module.groups == 1 and module.padding_mode == "zeros":
            _check(module.weight)
            return PackedConv2d(module)
    return None


def _check(weight: Tensor) -> None:
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(f"packing needs float32 on a CPU, got {weight.dtype} on {weight.device}")


class Packed(nn.Module):
    """What both have in common: the layer, without its weight while this one has it."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, packed: Tensor) -> None:
        super().__init__()
        self._layer = [layer]  # in a list: its parameters are not this module's
        self._format = layer.weight.shape, layer.weight.stride()
        self.packed = packed  # an opaque tensor: neither a parameter nor a buffer
        self.bias = layer.bias
        self._forward_hooks = layer._forward_hooks  # shared: adapters come and go on either
        self._forward_pre_hooks = layer._forward_pre_hooks
        layer.weight.data = packed.new_empty(0, layout=torch.strided)  # frees it

    @property
    def layer(self) -> nn.Conv2d | nn.Linear:
        """What this stands for."""
        return self._layer[0]

    def weight_data(self) -> Tensor:
        """The weight in its ordinary order, bit for bit."""
        return torch.empty_strided(*self._format).copy_(self.packed.to_dense())

    def unpack(self) -> None:
        """Give the layer its weight back. This one is of no use after."""
        self._layer[0].weight.data = self.weight_data()

    def check(self, x: Tensor) -> None:
        """Refuse what would silently lose a gradient."""
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("packed weights record no gradient: undo the acceleration to train")

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight_data()


class PackedConv2d(Packed):
    """A Conv2d."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.geometry = list(layer.padding), list(layer.stride), list(layer.dilation), 1
        # without a size, 1x1 convolutions get an order in which they are up to eight times slower
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            layer.weight.data, *self.geometry, [1, layer.in_channels, 32, 32]
        )
        super().__init__(layer, packed)
        self.after = "none"  # what is done to the output, by oneDNN's name: "swish" is SiLU

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, *self.geometry, self.after, [], ""
        )


class PackedLinear(Packed):
    """A Linear."""

    def __init__(self, layer: nn.Linear) -> None:
        # 256 rows: the order chosen for them was within 5 % of the best from 64 to 4,096 rows
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data, 256)
        super().__init__(layer, packed)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
