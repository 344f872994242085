"""SAM's prompt encoder: points, boxes and masks of before to what the decoder attends to.

Shapes: P prompts of one object each, N points of a prompt, C channels, h w places of the features.
Coordinates are (x, y) in pixels of the picture as the image encoder sees it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.sam.config import SamConfig
from darkroom.models.sam.layers import ChannelNorm

INSIDE, OUTSIDE, NONE = 1, 0, -1  # what a point says; NONE fills up


class PromptEncoder(nn.Module):
    """Prompts to tokens (P, T, C), and to something to add to the features."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.size, self.grid = config.size, config.grid
        self.position = FourierFeatures(config.channels)

        def learnt() -> nn.Parameter:
            return nn.Parameter(torch.randn(1, config.channels))

        self.outside, self.inside = learnt(), learnt()
        self.first_corner, self.last_corner = learnt(), learnt()
        self.no_point, self.no_mask = learnt(), learnt()
        self.mask = MaskEncoder(config.mask_channels, config.channels)

    def tokens(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> Tensor:
        """The tokens of points and boxes, in this order.

        Args:
            points: (P, N, 2), ``labels`` (P, N) with them: 1 inside the object, 0 outside, -1 none.
            boxes: (P, 4): left, top, right, bottom. Without them a point that says nothing is added
                to the others, as SAM was trained.

        Returns:
            (P, N + 1, C), (P, 2, C) or (P, N + 2, C).
        """
        parts: list[Tensor] = []
        if points is not None:
            assert labels is not None
            if boxes is None:
                points, labels = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=NONE)
            where, kind = self._places(points), labels[..., None]
            where = torch.where(kind == NONE, self.no_point, where)
            where = torch.where(kind == OUTSIDE, where + self.outside, where)
            parts.append(torch.where(kind == INSIDE, where + self.inside, where))
        if boxes is not None:
            corners = torch.stack((self.first_corner, self.last_corner), dim=1)
            parts.append(self._places(boxes.unflatten(1, (2, 2))) + corners)
        return torch.cat(parts, dim=1)

    def dense(self, masks: Tensor | None = None) -> Tensor:
        """What is added to the features.

        Args:
            masks: (P, 1, 4 h, 4 w) logits of an earlier answer.

        Returns:
            (P, C, h, w); without masks (1, C, 1, 1).
        """
        return self.no_mask[..., None, None] if masks is None else self.mask(masks)

    def places(self) -> Tensor:
        """The position of every place of the features: (1, C, h, w)."""
        middles = torch.arange(self.grid, device=self.no_mask.device) + 0.5
        rows, columns = torch.meshgrid(middles, middles, indexing="ij")
        unit = torch.stack((columns, rows), dim=-1) / self.grid
        return self.position(unit).permute(2, 0, 1)[None].to(self.no_mask.dtype)

    def _places(self, points: Tensor) -> Tensor:
        return self.position((points + 0.5) / self.size).to(self.no_mask.dtype)


class FourierFeatures(nn.Module):
    """Sines and cosines of random frequencies (Tancik et al., arXiv:2006.10739)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, channels // 2))

    def forward(self, places: Tensor) -> Tensor:
        """(..., 2) in [0, 1], across and down, to (..., C)."""
        frequencies = self.get_buffer("frequencies").float()
        angles = 2 * math.pi * ((2 * places.float() - 1) @ frequencies)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class MaskEncoder(nn.Module):
    """Logits of a mask to features a quarter as high and wide."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, hidden // 4, 2, stride=2)
        self.norm1 = ChannelNorm(hidden // 4)
        self.conv2 = nn.Conv2d(hidden // 4, hidden, 2, stride=2)
        self.norm2 = ChannelNorm(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(P, 1, 4 h, 4 w) to (P, C, h, w)."""
        x = F.gelu(self.norm1(self.conv1(x)))
        return self.conv3(F.gelu(self.norm2(self.conv2(x))))
