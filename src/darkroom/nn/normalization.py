"""Normalisation with its activation, as the U-Nets and the autoencoder use them together."""

from torch import Tensor, nn

from darkroom.ops.normalization import GroupNormSilu, group_norm_silu_torch


class NormSilu(nn.GroupNorm):
    """GroupNorm, then SiLU."""

    compute: GroupNormSilu = staticmethod(group_norm_silu_torch)  # swapped per instance

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        return self.compute(input, self.weight, self.bias, self.num_groups, self.eps)
