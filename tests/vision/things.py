"""Pictures that say what they show, and a dual encoder at random."""

import torch
from PIL import Image

from darkroom.models.clip_text import TextConfig
from darkroom.models.contrastive import ContrastiveConfig, ContrastiveModel
from darkroom.text.tokenizer_training import train_tokenizer
from darkroom.vision.encoder import Encoder

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}
SHAPES = ("square", "bar", "cross")
TEMPLATES = ("a {} {}", "the {} {} .", "one {} {} on white", "picture of a {} {}", "a small {} {}")


def draw(colour: str, shape: str, shift: int = 0, size: int = 32) -> Image.Image:
    """A shape on white, moved right by ``shift`` pixels."""
    picture = Image.new("RGB", (size, size), "white")
    boxes = {
        "square": [(8, 8, 24, 24)],
        "bar": [(4, 13, 28, 19)],
        "cross": [(13, 4, 19, 28), (4, 13, 28, 19)],
    }
    for left, top, right, bottom in boxes[shape]:
        picture.paste(COLOURS[colour], (left + shift, top, right + shift, bottom))
    return picture


def captions(colour: str, shape: str) -> list[str]:
    """Five sentences on one picture."""
    return [template.format(colour, shape) for template in TEMPLATES]


def encoder(size: int = 16) -> Encoder:
    """A tiny network that has learned nothing."""
    texts = [text for colour in COLOURS for shape in SHAPES for text in captions(colour, shape)]
    tokenizer = train_tokenizer(texts, 560, max_length=16)
    text = TextConfig(
        vocabulary=len(tokenizer), positions=16, channels=16, layers=1, heads=2, hidden=32,
        end=tokenizer.eos,
    )  # fmt: skip
    config = ContrastiveConfig(size=size, channels=(8, 16), blocks=(0, 1), embedding=8, text=text)
    torch.manual_seed(3)
    return Encoder(ContrastiveModel(config).eval(), tokenizer, size)
