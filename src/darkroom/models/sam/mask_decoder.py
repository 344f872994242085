"""SAM's mask decoder: a transformer in which prompts and picture attend to each other.

Shapes: P prompts of one object each, T tokens, C channels, h w places of the features, L = h * w,
K masks that it can tell: the first for sure prompts, the others candidates for an unsure one.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.sam.config import DecoderConfig, SamConfig
from darkroom.models.sam.layers import ChannelNorm, Perceptron
from darkroom.ops.attention import Attend, attend_torch

LAST_EPS = 1e-5  # of the last norm over tokens
AT_ONCE = 2  # prompts whose pictures are worked on together: 8 MB of ViT-B's features


class MaskDecoder(nn.Module):
    """Features and prompts to logits of masks, and how good each is."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        channels, decoder = config.channels, config.decoder
        count = decoder.candidates + 1
        self.iou_token = nn.Parameter(torch.randn(1, channels))
        self.mask_tokens = nn.Parameter(torch.randn(count, channels))
        self.blocks = nn.ModuleList(
            TwoWayBlock(channels, decoder, first=layer == 0) for layer in range(decoder.layers)
        )
        inner = channels // decoder.narrowing
        self.last_attention = NarrowAttention(channels, inner, decoder.heads)
        self.last_norm = nn.LayerNorm(channels, eps=LAST_EPS)
        self.up1 = nn.ConvTranspose2d(channels, channels // 4, 2, stride=2)
        self.up_norm = ChannelNorm(channels // 4)
        self.up2 = nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2)
        self.mask_heads = nn.ModuleList(
            Perceptron(channels, channels, channels // 8, 3) for _ in range(count)
        )
        self.iou_head = Perceptron(channels, decoder.iou_hidden, count, decoder.iou_layers)

    def forward(
        self, features: Tensor, places: Tensor, prompts: Tensor, which: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, K, 4 h, 4 w) of masks, and the IoU (P, K) that each is thought to have.

        Args:
            features: (1 or P, C, h, w), what masks of before add included.
            places: (1, C, h, w), the position of each place.
            prompts: (P, T, C).
            which: of the K masks.
        """
        picture, places, prompts = self._in_line(features, places, prompts)
        tokens = self._blocks()[0].listen(prompts, picture, prompts, places)
        tokens, picture = self._attended(tokens, picture, prompts, places)
        logits = self.painted(self.weights(tokens)[:, which], picture, features.shape[2:])
        return logits, self.iou_head(tokens[:, 0])[:, which]

    def above(
        self, features: Tensor, places: Tensor, prompts: Tensor, which: slice, least: float
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each prompt the masks whose IoU is above ``least``; the others are not painted.

        A few prompts are worked on at a time, so that their pictures fit into a CPU's cache.

        Args:
            features, places, prompts, which: as ``forward``'s, of one picture (1, C, h, w).

        Yields:
            Which prompt, the IoU (M,) of its masks, their logits (M, 4 h, 4 w), where M > 0.
        """
        picture, places, prompts = self._in_line(features, places, prompts)
        asked = self._blocks()[0].listen(prompts, picture, prompts, places)
        for start in range(0, len(prompts), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            tokens, pictures = self._attended(asked[part], picture, prompts[part], places)
            iou, weights = self.iou_head(tokens[:, 0])[:, which], self.weights(tokens)[:, which]
            for p in (iou > least).any(dim=1).nonzero().flatten().tolist():
                good = iou[p] > least
                logits = self.painted(
                    weights[p : p + 1, good], pictures[p, None], features.shape[2:]
                )
                yield start + p, iou[p, good], logits[0]

    def weights(self, tokens: Tensor) -> Tensor:
        """(P, T, C) after the transformer to (P, K, C / 8): how much of what each mask is."""
        heads = enumerate(self.mask_heads, start=1)
        return torch.stack([head(tokens[:, token]) for token, head in heads], dim=1)

    def painted(self, weights: Tensor, picture: Tensor, grid: Sequence[int]) -> Tensor:
        """Logits (P, K, 4 h, 4 w) of ``weights`` (P, K, C / 8) over pictures (P, L, C)."""
        picture = picture.transpose(1, 2).unflatten(2, tuple(grid))
        picture = F.gelu(self.up2(F.gelu(self.up_norm(self.up1(picture)))))
        return (weights @ picture.flatten(2)).unflatten(2, picture.shape[2:])

    def _blocks(self) -> "list[TwoWayBlock]":
        return [block for block in self.blocks if isinstance(block, TwoWayBlock)]

    def _in_line(
        self, features: Tensor, places: Tensor, prompts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Picture (1 or P, L, C), places (1, L, C), and prompts (P, T, C) after its own tokens."""
        picture, places = (x.flatten(2).transpose(1, 2).contiguous() for x in (features, places))
        own = torch.cat((self.iou_token, self.mask_tokens)).expand(len(prompts), -1, -1)
        return picture, places, torch.cat((own, prompts), dim=1)

    def _attended(
        self, tokens: Tensor, picture: Tensor, prompts: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (P, T, C) and pictures (P, L, C) after the transformer.

        Args:
            tokens: as they are after they have listened to the first block.
            picture: of all prompts, while nothing has told their pictures apart.
        """
        for i, block in enumerate(self._blocks()):
            if i:
                tokens = block.listen(tokens, picture, prompts, places)
            picture = block.tell(tokens, picture, prompts, places)
        h = self.last_attention(tokens + prompts, picture + places, picture)
        return self.last_norm(tokens + h), picture


class TwoWayBlock(nn.Module):
    """Tokens attend to each other and to the picture; after a feed-forward it attends to them.

    Args:
        first: the tokens are the prompts themselves yet.
    """

    def __init__(self, channels: int, config: DecoderConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        inner, heads = channels // config.narrowing, config.heads
        self.own = NarrowAttention(channels, channels, heads)
        self.norm1 = nn.LayerNorm(channels, eps=config.eps)
        self.to_picture = NarrowAttention(channels, inner, heads)
        self.norm2 = nn.LayerNorm(channels, eps=config.eps)
        self.up = nn.Linear(channels, config.hidden)
        self.down = nn.Linear(config.hidden, channels)
        self.norm3 = nn.LayerNorm(channels, eps=config.eps)
        self.to_tokens = NarrowAttention(channels, inner, heads)
        self.norm4 = nn.LayerNorm(channels, eps=config.eps)

    def listen(self, tokens: Tensor, picture: Tensor, prompts: Tensor, places: Tensor) -> Tensor:
        """Tokens (P, T, C) to what they are after each other and the picture (1 or P, L, C)."""
        if self.first:
            tokens = self.norm1(self.own(tokens, tokens, tokens))
        else:
            h = tokens + prompts
            tokens = self.norm1(tokens + self.own(h, h, tokens))
        tokens = self.norm2(tokens + self.to_picture(tokens + prompts, picture + places, picture))
        return self.norm3(tokens + self.down(F.relu(self.up(tokens))))

    def tell(self, tokens: Tensor, picture: Tensor, prompts: Tensor, places: Tensor) -> Tensor:
        """The picture (1 or P, L, C) to what it is after the tokens: (P, L, C)."""
        h = self.to_tokens(picture + places, tokens + prompts, tokens)
        return self.norm4(picture + h)


class NarrowAttention(nn.Module):
    """Attention in fewer channels than it is given.

    Args:
        inner: channels of q, k and v.
    """

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend: Attend = attend_torch  # swapped per instance
        self.q = nn.Linear(channels, inner)
        self.k = nn.Linear(channels, inner)
        self.v = nn.Linear(channels, inner)
        self.out = nn.Linear(inner, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Of queries (P, L, C) over keys and values (P, S, C); any may have 1 in place of P."""
        batch = max(len(queries), len(keys))
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(batch, -1, -1, -1)
            for project, x in ((self.q, queries), (self.k, keys), (self.v, values))
        )  # each (P, heads, L or S, inner / heads)
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(-2))
