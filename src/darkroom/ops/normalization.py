"""GroupNorm followed by SiLU: the reference and its drop-in replacements."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class GroupNormSilu(Protocol):
    """SiLU of the group-normalised x (B, C, ...) (Wu & He, arXiv:1803.08494), same shape.

    ``weight`` and ``bias`` are (C,); ``groups`` divides C.
    """

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor: ...


def group_norm_silu_reference(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> Tensor:
    """Written out. Every other row is tested against this."""
    grouped = x.unflatten(1, (groups, -1)).flatten(2)  # (B, groups, values)
    mean = grouped.mean(dim=2, keepdim=True)
    variance = (grouped - mean).square().mean(dim=2, keepdim=True)
    normal = ((grouped - mean) * torch.rsqrt(variance + eps)).view(x.shape)
    shape = (-1, *(1,) * (x.ndim - 2))
    y = normal * weight.view(shape) + bias.view(shape)
    return y * torch.sigmoid(y)


def group_norm_silu_torch(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> Tensor:
    """PyTorch's kernels (the default); the SiLU in place where no gradient is recorded."""
    y = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(y, inplace=not y.requires_grad)


GROUP_NORM_SILU: dict[str, GroupNormSilu] = {
    "reference": group_norm_silu_reference,
    "torch": group_norm_silu_torch,
}
