"""FastSAM's blocks for inference on a CPU: a convolution that activates what it puts out."""

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from darkroom.models.fastsam.blocks import ConvNorm
from darkroom.ops.packed import PackedConv2d


class PackedConvNorm(ConvNorm):
    """A ``ConvNorm`` without its normalisation, whose packed convolution ends with SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def folded(block: ConvNorm) -> nn.Conv2d:
    """One convolution, with a bias, that does what the convolution and its normalisation do.

    Raises:
        ValueError: in training mode, where the normalisation follows each batch.
    """
    if block.training:
        raise ValueError("fused=True needs a network in evaluation mode; call model.eval()")
    return fuse_conv_bn_eval(block.conv, block.norm)


def activated(block: ConvNorm) -> bool:
    """Let a packed convolution do the activation, too; False where there is none to do it."""
    conv = block.conv
    if isinstance(conv, PackedConv2d) and isinstance(block.norm, nn.Identity):
        conv.after = "swish"
        return True
    return False
