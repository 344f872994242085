"""A dual encoder small enough to learn from nothing on a CPU (after Radford et al., 2103.00020).

A convolutional image tower and a causal text tower meet in one space of unit vectors.
Shapes: B batch, S tokens, E embedding.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size
from darkroom.models.clip_text import ClipTextModel, TextConfig

SHARPEST = math.log(100.0)  # where CLIP clips its log-scale


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    size: Size = 64  # pixels, height and width
    mean: tuple[float, float, float] = (0.4580, 0.4463, 0.4039)  # of Flickr8k, in [0, 1]
    deviation: tuple[float, float, float] = (0.2709, 0.2625, 0.2770)
    channels: tuple[Size, ...] = (32, 64, 128, 256)  # of each stage; each halves the resolution
    blocks: tuple[Count, ...] = (1, 1, 1, 1)
    groups: Size = 8  # of the GroupNorms
    embedding: Size = 256
    dropout: float = 0.1  # before the projections
    text: TextConfig = field(
        default_factory=lambda: TextConfig(
            vocabulary=4096, positions=40, channels=192, layers=2, heads=3, hidden=768, end=4095
        )
    )


class ContrastiveModel(nn.Module):
    """Images and texts to unit vectors; the learned scale and bias belong to the losses."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config)
        self.text = ClipTextModel(config.text)
        for table in (self.text.token, self.text.position):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.image_projection = nn.Linear(config.channels[-1], config.embedding, bias=False)
        self.text_projection = nn.Linear(config.text.channels, config.embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.zeros(()))  # of the sigmoid loss

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, at most 100."""
        return self.log_scale.clamp(max=SHARPEST).exp()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) in [0, 1] -> (B, E), of length one, float32."""
        mean = pixels.new_tensor(self.config.mean)[:, None, None]
        deviation = pixels.new_tensor(self.config.deviation)[:, None, None]
        features = self.dropout(self.image((pixels - mean) / deviation))
        return F.normalize(self.image_projection(features).float(), dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        """(B, S) token ids with begin and end -> (B, E), of length one, float32."""
        features = self.dropout(self.text(ids, ends_alone=True).pooled)
        return F.normalize(self.text_projection(features).float(), dim=-1)


class ImageTower(nn.Module):
    """Residual stages at half, a quarter, an eighth ... of the resolution, then the mean."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        width = 3
        for channels, blocks in zip(config.channels, config.blocks, strict=True):
            stages.append(nn.Conv2d(width, channels, 3, stride=2, padding=1))
            stages += [Block(channels, config.groups) for _ in range(blocks)]
            width = channels
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        return self.norm(self.stages(x).mean((2, 3)))


class Block(nn.Module):
    """Two normalised 3x3 convolutions around a skip (He et al., arXiv:1512.03385)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, channels)
        nn.init.zeros_(self.norm2.weight)  # every block begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))
