"""A small convolutional network that reads handwritten digits; its features judge drawn ones.

Shapes: B batch, H W height and width, D features.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count, Size


@dataclass(frozen=True, kw_only=True)
class DigitClassifierConfig:
    classes: Count = 10
    channels: tuple[Size, Size, Size] = (24, 48, 64)
    features: Size = 128  # D


class DigitClassifier(nn.Module):
    """Images of 28x28 (set in the middle of 32x32) or 32x32 -> logits."""

    def __init__(self, config: DigitClassifierConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c = config.channels

        def layer(in_channels: int, out_channels: int, size: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())

        self.convolutions = nn.Sequential(
            layer(1, a, 5, 2), layer(a, b, 3, 2), layer(b, c, 3, 1), nn.MaxPool2d(2)
        )
        self.embed = nn.Linear(c * 4 * 4, config.features)
        self.output = nn.Linear(config.features, config.classes)

    def features(self, x: Tensor) -> Tensor:
        """What is seen in each image: (B, D), from 0.

        Args:
            x: (B, 1, H, W) in [0, 1], white on black; H = W = 28 or 32.

        Raises:
            ValueError: for another shape.
        """
        if x.shape[1:] == (1, 28, 28):
            x = F.pad(x, (2, 2, 2, 2))
        if x.shape[1:] != (1, 32, 32):
            raise ValueError(f"digits of (B, 1, 28, 28) or (B, 1, 32, 32), got {tuple(x.shape)}")
        return self.embed(self.convolutions(x).flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        """(B, classes) logits."""
        return self.output(self.features(x))
