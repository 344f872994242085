"""A picture of coloured squares, a segmenter that finds them, an encoder that sees colours."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from darkroom.masks import Mask

HUES = {"red": (230, 20, 20), "green": (20, 210, 30), "blue": (30, 40, 240)}
PLACES = {"red": (10, 10), "green": (50, 20), "blue": (30, 60)}  # left, top of squares of 20


class Colours:
    """An encoder whose vectors are colours; a fourth number is that of everything else."""

    size, scale, name = 16, 20.0, "colours"

    def encode_image(self, images):
        return torch.stack([self.seen(np.asarray(image, np.float32)) for image in images])

    def seen(self, pixels):
        plain = pixels.reshape(-1, 3) - 128
        hue = F.normalize(torch.from_numpy(plain[np.abs(plain).max(1) > 40].sum(0) + 1e-3), dim=0)
        return F.normalize(torch.cat((hue, torch.tensor([0.5]))), dim=0)

    def encode_text(self, texts):
        vectors = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).repeat(len(texts), 1)
        for vector, text in zip(vectors, texts, strict=True):
            for name, hue in HUES.items():
                if name in text:
                    vector[:] = torch.tensor((*hue, 128.0)) - 128
        return F.normalize(vectors, dim=-1)


class Squares:
    """A segmenter that finds what is there, and a speck."""

    name = "squares"

    def __init__(self, places=PLACES):
        self.places = places

    def everything(self, image):
        assert image.size == (80, 90)
        for left, top in self.places.values():
            values = np.zeros((90, 80), bool)
            values[top : top + 20, left : left + 20] = True
            yield Mask(values, score=0.9, source="squares")
        speck = np.zeros((90, 80), bool)
        speck[0, 0] = True
        yield Mask(speck)


def drawn() -> Image.Image:
    """The picture, 80x90."""
    image = Image.new("RGB", (80, 90), (128, 128, 128))
    for name, (left, top) in PLACES.items():
        image.paste(HUES[name], (left, top, left + 20, top + 20))
    return image
