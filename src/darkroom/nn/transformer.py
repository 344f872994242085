"""The transformer block that both towers of CLIP are made of."""

import torch
from torch import Tensor, nn

from darkroom.nn.attention import Attention
from darkroom.ops.activation import gelu, quick_gelu


class Block(nn.Module):
    """Self-attention and a feed-forward, each normalised before and around a skip.

    Args:
        channels: C.
        heads: of the attention; must divide ``channels``.
        hidden: width of the feed-forward.
        quick_gelu: x sigmoid(1.702 x), as OpenAI trained; False = exact GELU.
        eps: of the LayerNorms.
        causal: each token looks at itself and at those before it.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        hidden: int,
        *,
        quick_gelu: bool,
        eps: float = 1e-5,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attention = Attention(channels, heads, bias=True)
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.quick_gelu = quick_gelu
        self.causal = causal

    def forward(self, x: Tensor, rows: int | None = None, place: Tensor | None = None) -> Tensor:
        """(B, L, C) to the same shape, or to what some rows become.

        A last layer of which one row is used has little more to do than its keys and values.

        Args:
            rows: the first so many: (B, rows, C); not where ``causal``.
            place: (B,), the one of each: (B, 1, C).
        """
        h = self.norm1(x)
        x = x[:, :rows] + self.attention(h[:, :rows], h, causal=self.causal)
        if place is not None:
            x = x[torch.arange(len(x), device=x.device), place][:, None]
        h = self.up(self.norm2(x))
        return x + self.down(quick_gelu(h) if self.quick_gelu else gelu(h))
