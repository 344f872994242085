"""Images and sentences in one space: the CLIP of "Modern Computer Vision with PyTorch", ch. 16.

The idea is that of Radford et al., arXiv:2103.00020; the towers are a ResNet and DistilBERT.
Shapes: B batch, S tokens, P width of the shared space.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.config import Count
from darkroom.models.distilbert import DISTILBERT, DistilBert, DistilBertConfig
from darkroom.models.resnet import RESNET50, ResNet, ResNetConfig


@dataclass(frozen=True, kw_only=True)
class DualEncoderConfig:
    image: ResNetConfig = RESNET50  # without a classifier
    text: DistilBertConfig = DISTILBERT
    projection: Count = 256  # P
    dropout: float = 0.1  # of the projections, while training


BOOK_CLIP = DualEncoderConfig()


class DualEncoder(nn.Module):
    """An image tower, a text tower, and a projection on top of each.

    Raises:
        ValueError: when the image tower has a classifier.
    """

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        if config.image.classes:
            raise ValueError(f"the image tower has {config.image.classes} classes; expected 0")
        self.config = config
        self.image = ResNet(config.image)
        self.text = DistilBert(config.text)
        features = config.image.widths[-1]
        self.image_projection = Projection(features, config.projection, config.dropout)
        self.text_projection = Projection(config.text.channels, config.projection, config.dropout)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to embeddings (B, P), whose length is not 1."""
        return self.image_projection(self.image(pixels))

    def encode_text(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, S) token ids and their mask to embeddings (B, P), by the first token, [CLS]."""
        return self.text_projection(self.text(ids, mask)[:, 0])

    def forward(
        self, pixels: Tensor, ids: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embeddings of images and of sentences, each (B, P)."""
        return self.encode_image(pixels), self.encode_text(ids, mask)


class Projection(nn.Module):
    """(B, in) to (B, out): linear, then GELU and a second linear around a skip, normalised."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_channels, out_channels)
        self.linear2 = nn.Linear(out_channels, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.norm(x + self.dropout(self.linear2(F.gelu(x))))
