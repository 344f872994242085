"""Both towers and the scale between them. Shapes: B batch, S tokens, P the shared space."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from darkroom.models.clip.modified_resnet import AttentionResNet, AttentionResNetConfig
from darkroom.models.clip.view import View
from darkroom.models.clip.vision_transformer import VisionConfig, VisionTransformer
from darkroom.models.clip_text import ClipTextModel, TextConfig


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Sizes of the towers; both project to the same width.

    Raises:
        ValueError: they do not, or the view is of another size than the image tower's.
    """

    image: VisionConfig | AttentionResNetConfig
    text: TextConfig
    view: View = field(default_factory=View)

    def __post_init__(self) -> None:
        if self.image.projection != self.text.projection or not self.text.projection:
            raise ValueError(
                f"pictures become {self.image.projection} numbers and texts "
                f"{self.text.projection}; expected as many"
            )
        if self.view.size != self.image.size:
            raise ValueError(f"a view of {self.view.size} pixels for a tower of {self.image.size}")


class Clip(nn.Module):
    """Pictures and texts to vectors whose cosines, times ``scale``, are logits."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.image: VisionTransformer | AttentionResNet = (
            VisionTransformer(config.image)
            if isinstance(config.image, VisionConfig)
            else AttentionResNet(config.image)
        )
        self.text = ClipTextModel(config.text)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """The inverse temperature; 100 in OpenAI's."""
        return self.log_scale.exp()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) in [0, 1] to embeddings (B, P), whose length is not 1."""
        return self.image(self.config.view.normalised(pixels))

    def encode_text(self, ids: Tensor) -> Tensor:
        """(B, S) token ids with begin and end to embeddings (B, P), whose length is not 1.

        What follows the end of a text is never looked at.
        """
        projected = self.text(ids, ends_alone=True).projected
        assert projected is not None
        return projected

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of pictures and of texts, each (B, P)."""
        return self.encode_image(pixels), self.encode_text(ids)
