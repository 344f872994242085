"""DistilBERT (Sanh et al., arXiv:1910.01108): BERT's encoder with half its layers.

Shapes: B batch, S tokens, C channels. Unlike BERT it has no segment embeddings and no pooler.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size

EPS = 1e-12  # of every LayerNorm
DEVIATION = 0.02  # of new weights


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig:
    vocabulary: Size = 30_522
    positions: Size = 512  # longest sequence
    channels: Size = 768
    layers: Count = 6
    heads: Size = 12
    hidden: Size = 3072  # width of the feed-forward
    dropout: float = 0.1  # while training: of embeddings and feed-forwards
    attention_dropout: float = 0.1  # while training: of the attention's weights

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels do not split into {self.heads} heads")


DISTILBERT = DistilBertConfig()  # distilbert-base-uncased


class DistilBert(nn.Module):
    """Token ids to features.

    Raises:
        ValueError: when the heads do not divide the channels.
    """

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        if config.channels % config.heads:
            raise ValueError(f"{config.heads} heads do not divide {config.channels} channels")
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.channels)
        self.position = nn.Embedding(config.positions, config.channels)
        self.norm = nn.LayerNorm(config.channels, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=DEVIATION)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last layer's features (B, S, C).

        Args:
            ids: (B, S) token ids, S at most ``positions``.
            mask: (B, S), 0 or False where a token is padding that none may attend to.

        Raises:
            ValueError: when the sequence is too long.
        """
        length = ids.shape[1]
        if length > self.config.positions:
            raise ValueError(f"{length} tokens; this network takes {self.config.positions}")
        x = self.token(ids) + self.position.weight[:length]
        x = self.dropout(self.norm(x))
        attended = None if mask is None else mask.bool()[:, None, None]  # (B, heads, S, S)
        for block in self.blocks:
            x = block(x, attended)
        return x


class Block(nn.Module):
    """Self-attention and a feed-forward, each normalised after its skip."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.attention = MaskedAttention(config)
        self.norm1 = nn.LayerNorm(config.channels, eps=EPS)
        self.up = nn.Linear(config.channels, config.hidden)
        self.down = nn.Linear(config.hidden, config.channels)
        self.dropout = nn.Dropout(config.dropout)
        self.norm2 = nn.LayerNorm(config.channels, eps=EPS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))


class MaskedAttention(nn.Module):
    """Multi-head self-attention that leaves padding out."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.attention_dropout
        self.q = nn.Linear(config.channels, config.channels)
        self.k = nn.Linear(config.channels, config.channels)
        self.v = nn.Linear(config.channels, config.channels)
        self.out = nn.Linear(config.channels, config.channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``mask`` broadcasts to (B, heads, S, S); True where a token may be attended to."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.out(attended.transpose(1, 2).flatten(-2))
