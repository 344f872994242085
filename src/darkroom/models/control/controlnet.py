"""ControlNet (Zhang et al., arXiv:2302.05543, section 3): a second way down that sees a hint.

Shapes as in ``models/unet.py``; F is ``ControlNetConfig.factor``, 8 for Stable Diffusion.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Size
from darkroom.models.unet import (
    Stage,
    UNet,
    UNetConfig,
    residual,
    transformer,
    way_down,
)
from darkroom.nn.embedding import Embedder, sinusoid

COPIED = ("time", "vector", "input", "down", "middle", "middle_out")  # from the U-Net


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig:
    """Sizes of the U-Net whose way down is copied, and of what encodes the hint."""

    unet: UNetConfig = field(default_factory=UNetConfig)  # out_channels has no meaning here
    conditioning_channels: Size = 3  # of the hint
    hint_channels: tuple[Size, ...] = (16, 32, 96, 256)  # halved in size between two of them
    pooled: bool = False  # residuals are means over the picture, as a "shuffle" network's

    @property
    def factor(self) -> int:
        """How many pixels of the hint one latent stands for, along each side."""
        return 2 ** (len(self.hint_channels) - 1)


class ControlNet(nn.Module):
    """What to add to a U-Net's skips and middle, so that the picture follows a hint.

    Every convolution that leads out begins at zero: a new network changes nothing.
    """

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        self.config, sizes = config, config.unet
        c, embed = sizes.channels, sizes.channels[0] * 4
        self.time = Embedder(c[0], embed)
        self.vector = Embedder(sizes.vector_channels, embed) if sizes.vector_channels else None
        self.input = nn.Conv2d(sizes.in_channels, c[0], 3, padding=1)
        self.hint = HintEncoder(config.conditioning_channels, config.hint_channels, c[0])
        self.down, widths = way_down(sizes)
        self.middle = Stage(
            residual(sizes, c[-1], c[-1]), transformer(sizes, -1, sizes.middle_depth)
        )
        self.middle_out = Stage(residual(sizes, c[-1], c[-1]))
        self.zero = nn.ModuleList(zero_convolution(width, width, 1) for width in widths)
        self.zero_middle = zero_convolution(c[-1], c[-1], 1)

    @classmethod
    def from_unet(cls, unet: UNet, factor: int = 8) -> "ControlNet":
        """A network to be trained: the weights of ``unet``, copied; zero convolutions at zero.

        Args:
            unet: one with input channels beside the latents (a mask, a depth) gives those of the
                latents.
            factor: pixels per latent of the autoencoder, a power of 2.
        """
        if factor < 1 or factor & (factor - 1):
            raise ValueError(f"factor {factor}: expected 1, 2, 4, 8, 16 ... pixels per latent")
        widths = (16, 32, 96, 256, *([256] * factor.bit_length()))[: factor.bit_length()]
        latent = unet.config.out_channels
        sizes = replace(unet.config, in_channels=latent)
        net = cls(ControlNetConfig(unet=sizes, hint_channels=widths))
        like = next(unet.parameters())
        net.to(device=like.device, dtype=like.dtype)
        state = {k: v for k, v in unet.state_dict().items() if k.split(".")[0] in COPIED}
        state["input.weight"] = state["input.weight"][:, :latent]
        net.load_state_dict({**net.state_dict(), **state})
        return net

    def forward(
        self, x: Tensor, t: Tensor, text: Tensor, hint: Tensor, vector: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """What ``UNet.forward`` takes as ``residuals``: one tensor per skip, then the middle.

        Args:
            x: (B, C, H, W) scaled noisy latents, without any extra input channels.
            t: (B,) timesteps, may be fractional.
            text: (B, S, C) token features.
            hint: (B or 1, conditioning_channels, F*H, F*W) in [0, 1].
            vector: (B, C) pooled conditioning, for networks that take it.
        """
        return self.residuals(x, t, text, self.hint(hint), vector)

    def residuals(
        self, x: Tensor, t: Tensor, text: Tensor, hint: Tensor, vector: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """``forward`` with a hint that ``self.hint`` has encoded: the same for every step."""
        embed = self.time(sinusoid(t, self.config.unet.channels[0]).to(x.dtype))
        if self.vector is not None:
            embed = embed + self.vector(vector)

        x = self.input(x) + hint
        skips = [x]
        for stage in self.down:
            x = stage(x, embed, text)
            skips.append(x)
        x = self.middle_out(self.middle(x, embed, text), embed, text)

        out = [zero(skip) for zero, skip in zip(self.zero, skips, strict=True)]
        out.append(self.zero_middle(x))
        return (
            tuple(r.mean((2, 3), keepdim=True) for r in out) if self.config.pooled else tuple(out)
        )


class HintEncoder(nn.Module):
    """A picture to features of the latents' size: convolutions, every other one of stride 2."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], out_channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for fine, coarse in pairwise(widths):
            self.blocks.append(nn.Conv2d(fine, fine, 3, padding=1))
            self.blocks.append(nn.Conv2d(fine, coarse, 3, padding=1, stride=2))
        self.output = zero_convolution(widths[-1], out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.input(x))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.output(x)


def zero_convolution(in_channels: int, out_channels: int, size: int) -> nn.Conv2d:
    """A convolution that puts out zero until it is trained."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
