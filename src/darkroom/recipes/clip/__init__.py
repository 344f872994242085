"""Train a dual encoder on Flickr8k from nothing, and search pictures with words.

``mode = "correct"`` (this page): unit vectors, a learned temperature, InfoNCE (Radford et al.,
arXiv:2103.00020) or SigLIP (Zhai et al., arXiv:2303.15343), augmentation, the official split.
``mode = "book"`` (``book.py``): what "Modern Computer Vision with PyTorch", chapter 16, prints.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from darkroom.errors import ConfigError
from darkroom.models.contrastive import ContrastiveConfig, ContrastiveModel
from darkroom.recipes.clip import book
from darkroom.recipes.clip.book import BookOptions
from darkroom.recipes.clip.retrieval import captions_of, measure, show
from darkroom.recipes.runs import Run
from darkroom.text.tokenizer import Tokenizer
from darkroom.text.tokenizer_training import train_tokenizer
from darkroom.training import distributed
from darkroom.training.contrastive import infonce, siglip
from darkroom.training.crops import cut, draw_crops
from darkroom.training.data.flickr8k import flickr8k
from darkroom.training.data.labelled import Images
from darkroom.training.fit import Draw, FitOptions, FitStep, Training
from darkroom.vision.encoder import Encoder, token_ids, trimmed


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "clip"``."""

    data: Path  # Flickr8k as Kaggle packs it; the correct mode needs the official lists beside it
    out: Path  # the run: state, log, report, and the finished model in ``out/model``
    mode: Literal["correct", "book"] = "correct"
    loss: Literal["infonce", "siglip"] = "infonce"
    vocabulary: int = 3000  # tokens learned from the captions
    margin: float = 1.5  # photographs are kept so much larger than the network sees them
    least_area: float = 0.4  # of a random crop
    forget: float = 0.0  # fraction of a caption's tokens that a step leaves out
    query: str = "dogs on the grass"  # for the grid of nine in the report
    evaluate_every: int = 500  # steps
    save_every: int = 500  # steps
    model: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    book: BookOptions = field(default_factory=BookOptions)
    fit: FitOptions = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        if self.margin < 1 or not 0 < self.least_area <= 1 or not 0 <= self.forget < 1:
            raise ConfigError("margin must be at least 1, least_area in (0, 1], forget in [0, 1)")


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model`` and its recall."""
    yield from (book.train(config) if config.mode == "book" else _train(config))


def _train(config: Config) -> Iterator[FitStep]:
    torch.manual_seed(config.fit.seed)
    size = config.model.size
    side = round(size * config.margin)
    photographs, held_out = (flickr8k(config.data, side, split) for split in ("train", "dev"))
    texts = [text for group in captions_of(photographs) for text in group]
    tokenizer = train_tokenizer(texts, config.vocabulary, config.model.text.positions)
    text = replace(config.model.text, vocabulary=len(tokenizer), end=tokenizer.eos)
    model = ContrastiveModel(replace(config.model, text=text))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.loss == "siglip":  # where the paper begins
        model.log_scale.data.fill_(math.log(10))
        model.bias.data.fill_(-10)
    training = Training(model, config.fit)
    run = Run(config.out, "clip", config, training, config.save_every)
    captions = Captions(photographs, token_ids(tokenizer, texts, text.positions), tokenizer.eos)

    def loss(draw: Draw) -> Tensor:
        g, batch = draw.generator, config.fit.batch
        chosen = torch.randperm(len(photographs), generator=g)[:batch]  # no image twice
        boxes, mirrored = draw_crops(batch, side, config.least_area, g)
        ids = captions.draw(chosen, config.forget, g)
        mine = slice(draw.part, None, draw.parts)
        pixels = cut(photographs.pixels[chosen[mine]], boxes[mine], mirrored[mine], size)
        ids = trimmed(ids[mine], tokenizer.eos)
        image = distributed.gather(model.encode_image(pixels.to(draw.device)))
        sentence = distributed.gather(model.encode_text(ids.to(draw.device)))
        if config.loss == "siglip":
            return siglip(image, sentence, model.scale, model.bias)
        return infonce(image, sentence, model.scale)

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            to_image, to_text = measure(finished(training, model.config, tokenizer), held_out)
            run.note(
                text_to_image_recall_at_10=to_image[-1],
                image_to_text_recall_at_10=to_text[-1],
                scale=model.scale.item(),
            )
        yield step
    encoder = finished(training, model.config, tokenizer)
    show(run, encoder, config.data, "test", config.query)
    if distributed.first():
        encoder.save(config.out / "model")
    run.finish()


def finished(training: Training, config: ContrastiveConfig, tokenizer: Tokenizer) -> Encoder:
    """The network with its averaged weights, ready to look at pictures."""
    model = ContrastiveModel(config)
    model.load_state_dict(training.averaged())
    return Encoder(model.to(training.options.place).eval(), tokenizer, config.size)


class Captions:
    """The tokens of every caption, and which are whose."""

    def __init__(self, photographs: Images, ids: Tensor, end: int) -> None:
        self.ids, self.end = ids, end
        self.count = torch.tensor([len(group) for group in captions_of(photographs)])
        self.start = self.count.cumsum(0) - self.count

    def draw(self, images: Tensor, forget: float, g: torch.Generator) -> Tensor:
        """One caption of each image (B, S), some of its tokens left out."""
        which = (torch.rand(len(images), generator=g) * self.count[images]).long()
        ids = self.ids[self.start[images] + which]
        gone = torch.rand(ids.shape, generator=g) < forget
        gone[:, 0] = False  # the begin token
        gone &= ids != self.end
        order = gone.int().argsort(dim=1, stable=True)  # what is gone moves to the end of its row
        return torch.where(gone, self.end, ids).gather(1, order)
