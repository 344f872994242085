"""CLIP's text tower (Radford et al., arXiv:2103.00020): a causal transformer over token ids.

Shapes: B batch, S tokens, C width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.nn.transformer import Block


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    vocabulary: Size = 49_408
    positions: Size = 77  # longest sequence, begin and end tokens included
    channels: Size = 768
    layers: Count = 12
    heads: Size = 12
    hidden: Size = 3072  # width of the feed-forward
    quick_gelu: bool = True  # x * sigmoid(1.702 x), as OpenAI trained; False = exact GELU
    projection: Count = 0  # width of the projected pooled output; 0 = no projection
    end: Count = 49_407  # the token whose feature is the pooled output
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels do not split into {self.heads} heads")


CLIP_L = TextConfig()
OPENCLIP_H = TextConfig(
    channels=1024, layers=23, heads=16, hidden=4096, quick_gelu=False
)  # SD 2.x ships it without its last layer
OPENCLIP_BIGG = TextConfig(
    channels=1280, layers=32, heads=20, hidden=5120, quick_gelu=False, projection=1280
)


class TextOutput(NamedTuple):
    """What the tower computes; each conditioning recipe takes what it needs."""

    hidden: tuple[Tensor, ...]  # layers + 1 tensors (B, S, C): the embeddings, then each layer
    last: Tensor  # (B, S, C): the last one, normalised
    pooled: Tensor  # (B, C): ``last`` at the first end token
    projected: Tensor | None  # (B, projection), where the tower has a projection


class ClipTextModel(nn.Module):
    """Token ids to features."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.channels)
        self.position = nn.Embedding(config.positions, config.channels)
        self.blocks = nn.ModuleList(
            Block(
                config.channels,
                config.heads,
                config.hidden,
                quick_gelu=config.quick_gelu,
                eps=config.eps,
                causal=True,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.channels, eps=config.eps)
        self.projection = (
            nn.Linear(config.channels, config.projection, bias=False) if config.projection else None
        )

    def forward(
        self, ids: Tensor, embeds: Tensor | None = None, *, ends_alone: bool = False
    ) -> TextOutput:
        """Run the tower.

        Args:
            ids: (B, S) token ids, with begin and end tokens.
            embeds: (B, S, C) token embeddings to use in place of those of ``ids`` (textual
                inversion); positions are still added, and ``ids`` still tell where the end is.
            ends_alone: the last layer has less to do: ``last`` is (B, 1, C), of the end tokens, and
                ``hidden`` is without it.
        """
        x = self.token(ids) if embeds is None else embeds
        x = x + self.position.weight[: ids.shape[1]]
        end = (ids == self.config.end).int().argmax(dim=-1)  # the first one
        hidden = [x]
        for n, block in enumerate(self.blocks, 1):
            if ends_alone and n == len(self.blocks):
                x = block(x, place=end)
                end = torch.zeros_like(end)
                break
            x = block(x)
            hidden.append(x)
        last = self.norm(x)
        pooled = last[torch.arange(len(ids), device=ids.device), end]
        projected = None if self.projection is None else self.projection(pooled)
        return TextOutput(tuple(hidden), last, pooled, projected)
