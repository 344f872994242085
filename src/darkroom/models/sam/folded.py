"""SAM's mask decoder with fewer multiplications: the same sums, in another order.

A few tokens (T, with H heads of D channels) meet L places of C channels. To project the places
costs 2 L C H D multiplications; to bring what the tokens have into the places' channels instead
leaves 2 L C H T. With 7 tokens, 8 heads of 16 channels and 4,096 places of 256 channels, that is
2.3 times fewer.

Give a decoder and its attention these classes and take them back at will (``acceleration`` does):
parameters and their names are the same. Where gradients are recorded, they step aside.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.sam.mask_decoder import MaskDecoder, NarrowAttention
from darkroom.ops.linear import can_multiply, product


class FoldedAttention(NarrowAttention):
    """Where few tokens meet many places: the places are not projected."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """As ``NarrowAttention``'s."""
        asking, asked = queries.shape[1], keys.shape[1]
        width = self.q.out_features // self.heads
        few, many = min(asking, asked), max(asking, asked)
        if few >= width or many < 4 * width or torch.is_grad_enabled():
            return super().forward(queries, keys, values)
        if asking > asked:
            return self._spread(queries, keys, values)
        if len(keys) < len(queries):  # as if all prompts' tokens were those of one
            found = super().forward(queries.flatten(0, 1)[None], keys, values)
            return found[0].unflatten(0, queries.shape[:2])
        return self._gathered(queries, keys, values)

    def _gathered(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Of tokens (P, T, C) over places (P, L, C): v(Σ softmax(places · kᵀ(q)) places)."""
        q = self._in_heads(self.q, queries)  # (P, H, T, D)
        asked = (q * q.shape[-1] ** -0.5) @ self._by_head(self.k)  # (P, H, T, C)
        found = torch.stack([  # k's bias is the same for all places: no softmax sees it
            _times(torch.softmax(_times(some, key), dim=-1), value.t())
            for some, key, value in zip(asked.flatten(1, 2), keys, values, strict=True)
        ])  # fmt: skip
        found = found.unflatten(1, q.shape[1:3]) @ self._by_head(self.v).transpose(1, 2)
        return self.out(found.transpose(1, 2).flatten(2) + self.v.bias)

    def _spread(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Of places (1 or P, L, C) over tokens (P, T, C): softmax(places · qᵀ(k)) out(v)."""
        k, v = self._in_heads(self.k, keys), self._in_heads(self.v, values)  # (P, H, T, D)
        k = k * k.shape[-1] ** -0.5
        asked = (k @ self._by_head(self.q)).flatten(1, 2)  # (P, H T, C)
        own = k @ self.q.bias.unflatten(0, (self.heads, -1))[..., None]  # (P, H, T, 1)
        told = v @ self.out.weight.t().unflatten(0, (self.heads, -1))  # (P, H, T, C)
        told = told.flatten(1, 2).transpose(1, 2)  # (P, C, H T)
        found = []
        for p, places in enumerate(queries.expand(len(k), -1, -1)):
            scores = _times(asked[p], places).unflatten(0, k.shape[1:3]) + own[p]  # (H, T, L)
            shares = torch.softmax(scores, dim=1).flatten(0, 1)
            found.append(_times(shares.t(), told[p].contiguous(), self.out.bias))
        return torch.stack(found)

    def _in_heads(self, project: nn.Linear, x: Tensor) -> Tensor:
        return project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _by_head(self, project: nn.Linear) -> Tensor:
        return project.weight.unflatten(0, (self.heads, -1))  # (H, D, C)


class FoldedDecoder(MaskDecoder):
    """A transposed convolution whose squares do not overlap is a linear layer.

    Its squares are put into their places at the end, when they are of masks, not of channels.
    """

    def painted(self, weights: Tensor, picture: Tensor, grid: Sequence[int]) -> Tensor:
        """As ``MaskDecoder``'s."""
        if torch.is_grad_enabled():
            return super().painted(weights, picture, grid)
        height, width = grid
        masks = []
        for weight, x in zip(weights, picture, strict=True):
            x = _squares(self.up1, x)  # (L * 4, C / 4)
            x = F.gelu(F.layer_norm(x, x.shape[-1:], self.up_norm.weight, self.up_norm.bias,
                                    self.up_norm.eps))  # fmt: skip
            x = _times(weight, F.gelu(_squares(self.up2, x)))  # (K, L * 16)
            x = x.unflatten(1, (height, width, 2, 2, 2, 2)).permute(0, 1, 3, 5, 2, 4, 6)
            masks.append(x.reshape(len(weight), 4 * height, 4 * width))
        return torch.stack(masks)


def _squares(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """(L, in) to (4 L, out): each place's square, its upper row first."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * out, in)
    assert layer.bias is not None
    return _times(x, weight, layer.bias.repeat(4)).view(-1, layer.out_channels)


def _times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X wᵀ + b, by what is faster on a CPU."""
    if x.dtype is torch.float32 and x.device.type == "cpu" and can_multiply():
        return product(x, weight, bias)
    return F.linear(x, weight, bias)


FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    NarrowAttention: FoldedAttention,
    MaskDecoder: FoldedDecoder,
}
