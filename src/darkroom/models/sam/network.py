"""Segment anything (Kirillov et al., arXiv:2304.02643), and MobileSAM (arXiv:2306.14289).

Shapes: B batch, S pixels of a side, C channels, h w places of the features, P prompts of one object
each, N points of a prompt, K masks for each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.models.sam.config import SamConfig, VitConfig
from darkroom.models.sam.image_encoder import ImageEncoder
from darkroom.models.sam.mask_decoder import MaskDecoder
from darkroom.models.sam.prompt_encoder import PromptEncoder
from darkroom.models.sam.tiny_vit import TinyVit

MEAN = (123.675, 116.28, 103.53)  # of red, green and blue, from 0 to 255
DEVIATION = (58.395, 57.12, 57.375)


class Sam(nn.Module):
    """Pictures to features once, features and prompts to masks as often as wanted."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        vit = isinstance(config.encoder, VitConfig)
        self.image_encoder = ImageEncoder(config) if vit else TinyVit(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def normalised(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) from 0 to 255, sides at most S, to what ``encode`` takes: (B, 3, S, S).

        Zeros fill what is below and on the right.
        """
        mean, deviation = (
            pixels.new_tensor(values, dtype=self._dtype())[:, None, None]
            for values in (MEAN, DEVIATION)
        )
        size = self.config.size
        across, down = size - pixels.shape[-1], size - pixels.shape[-2]
        return F.pad((pixels.to(self._dtype()) - mean) / deviation, (0, across, 0, down))

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, 3, S, S) to features (B, C, h, w).

        Raises:
            ValueError: pictures of another size.
        """
        size = self.config.size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(f"pictures of (B, 3, {size}, {size}), got {tuple(pixels.shape)}")
        return self.image_encoder(pixels)

    def decode(
        self,
        features: Tensor,
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        candidates: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The masks of P prompts: logits (P, K, 4 h, 4 w), above 0 inside, and their IoU (P, K).

        Args:
            features: (P, C, h, w), or (1, C, h, w) where all prompts are of one picture.
            points: (P, N, 2), x and y in pixels of the S x S picture.
            labels: (P, N), of the points: 1 inside the object, 0 outside, -1 no point at all.
            boxes: (P, 4): left, top, right, bottom, likewise.
            masks: (P, 1, 4 h, 4 w): logits of an earlier answer.
            candidates: 1 = the one mask of a sure prompt; the config's number (3) = those of an
                unsure one; None = both, the one first.

        Raises:
            ValueError: no prompt at all, points without labels, shapes that do not fit, or another
                number of candidates.
        """
        several = self.config.decoder.candidates
        which = {1: slice(0, 1), several: slice(1, None), None: slice(None)}
        if candidates not in which:
            raise ValueError(f"{candidates} candidates; expected 1, {several} or None for both")
        self._check(features, points, labels, boxes, masks)
        if points is None and boxes is None:
            assert masks is not None
            tokens = features.new_empty(len(masks), 0, self.config.channels)
        else:
            tokens = self.prompt_encoder.tokens(points, labels, boxes)
        features = features + self.prompt_encoder.dense(masks)
        places = self.prompt_encoder.places()
        return self.mask_decoder(features, places, tokens, which[candidates])

    def enlarged(self, logits: Tensor, scaled: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Logits (P, K, 4 h, 4 w) in a picture's own pixels: see ``enlarged``."""
        return enlarged(logits, self.config.size, scaled, size)

    def _check(
        self,
        features: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> None:
        config = self.config
        given = [x for x in (points, boxes, masks) if x is not None]
        if not given:
            raise ValueError("a prompt needs points, a box or a mask")
        if (points is None) != (labels is None):
            raise ValueError("points and labels go together; one is missing")
        prompts = len(given[0])
        low = 4 * config.grid
        for name, tensor, shape in (
            ("points", points, (prompts, -1, 2)),
            ("labels", labels, (prompts, points.shape[1] if points is not None else -1)),
            ("boxes", boxes, (prompts, 4)),
            ("masks", masks, (prompts, 1, low, low)),
            ("features", features, (-1, config.channels, config.grid, config.grid)),
        ):
            if tensor is None:
                continue
            fits = tensor.ndim == len(shape) and all(
                wanted in (-1, length) for length, wanted in zip(tensor.shape, shape, strict=True)
            )
            if not fits:
                wanted = ", ".join("any" if length < 0 else str(length) for length in shape)
                raise ValueError(f"{name} of shape {tuple(tensor.shape)}, expected ({wanted})")
        if len(features) not in (1, prompts):
            raise ValueError(f"features of {len(features)} pictures for {prompts} prompts")

    def _dtype(self) -> torch.dtype:
        return self.prompt_encoder.no_mask.dtype


def enlarged(logits: Tensor, padded: int, scaled: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Logits (P, K, 4 h, 4 w) in a picture's own pixels: (P, K, *size), bilinear, twice.

    Args:
        padded: pixels S of a side of what the model sees.
        scaled: height and width of the picture within them.
        size: its own height and width.
    """
    whole = F.interpolate(logits, (padded, padded), mode="bilinear")
    return F.interpolate(whole[..., : scaled[0], : scaled[1]], size, mode="bilinear")
