"""CLIP's image tower as a transformer over patches (Dosovitskiy et al., arXiv:2010.11929).

Shapes: B batch, L tokens, C width, P projection.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.nn.transformer import Block


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    size: Size = 224  # pixels, height and width
    patch: Size = 32  # pixels, height and width; what is left at the right and below is not seen
    channels: Size = 768
    layers: Count = 12
    heads: Size = 12
    hidden: Size = 3072  # width of the feed-forward
    quick_gelu: bool = True  # x * sigmoid(1.702 x), as OpenAI trained; False = exact GELU
    projection: Count = 512  # P, the width of the space that pictures and texts share; 0 = none
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels do not split into {self.heads} heads")

    @property
    def tokens(self) -> int:
        """Patches, and the one that becomes the output."""
        return (self.size // self.patch) ** 2 + 1


class VisionTransformer(nn.Module):
    """Pixels to one feature, by a token of its own that looks at all patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.channels, config.patch
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.token = nn.Parameter(width**-0.5 * torch.randn(width))
        self.position = nn.Parameter(width**-0.5 * torch.randn(config.tokens, width))
        self.norm_before = nn.LayerNorm(width, eps=config.eps)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.hidden, quick_gelu=config.quick_gelu, eps=config.eps)
            for _ in range(config.layers)
        )
        self.norm_after = nn.LayerNorm(width, eps=config.eps)
        self.projection = (
            nn.Linear(width, config.projection, bias=False) if config.projection else None
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size), normalised, to (B, P), or to (B, C) without a projection."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(pixels), 1, -1), patches), dim=1)
        x = self.norm_before(x + self.position)
        last = len(self.blocks) - 1
        for n, block in enumerate(self.blocks):
            x = block(x, 1 if n == last else None)
        x = self.norm_after(x[:, 0])
        return x if self.projection is None else self.projection(x)
