"""Train a dual encoder on captioned pictures from nothing, and search pictures with words.

``mode = "correct"`` (this page): unit vectors, a learned temperature, InfoNCE (Radford et al.,
arXiv:2103.00020) or SigLIP (Zhai et al., arXiv:2303.15343), augmentation, any captioned set;
Flickr8k with its official split.
``mode = "book"`` (``book.py``): what "Modern Computer Vision with PyTorch", chapter 16, prints.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from darkroom.config import Count, Size
from darkroom.errors import ConfigError
from darkroom.models.contrastive import ContrastiveConfig, ContrastiveModel
from darkroom.recipes.clip import book
from darkroom.recipes.clip.book import BookOptions
from darkroom.recipes.clip.composing import Composer, Composing, frames
from darkroom.recipes.clip.composing import read as read_cut_outs
from darkroom.recipes.clip.reading import read
from darkroom.recipes.clip.retrieval import measure, show
from darkroom.recipes.runs import Run
from darkroom.text.tokenizer import Tokenizer
from darkroom.text.tokenizer_training import train_tokenizer
from darkroom.training import distributed
from darkroom.training.contrastive import infonce, siglip
from darkroom.training.crops import cut, draw_crops
from darkroom.training.fit import Draw, FitOptions, FitStep, Training
from darkroom.training.stream import BUFFER, Batch, held, stream
from darkroom.vision.encoder import Encoder, token_ids, trimmed


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "clip"``."""

    # any captioned set; or Flickr8k as Kaggle packs it, in the correct mode with the official lists
    data: Path
    out: Path  # the run: state, log, report, and the finished model in ``out/model``
    mode: Literal["correct", "book"] = "correct"
    loss: Literal["infonce", "siglip"] = "infonce"
    stream: bool = False  # pictures stay on the disk; those in shards always do
    held_out: float = 0.1  # fraction kept aside to measure on, of a set without lists of its own
    vocabulary: Size = 3000  # tokens learned from the captions
    margin: float = 1.5  # photographs are kept so much larger than the network sees them
    least_area: float = 0.4  # of a random crop
    forget: float = 0.0  # fraction of a caption's tokens that a step leaves out
    query: str = "dogs on the grass"  # for the grid of nine in the report
    evaluate_every: Count = 500  # steps
    save_every: Size = 500  # steps
    compose: Composing | None = None  # cut-outs over grounds, instead of pictures as they are
    half: bool = False  # write the finished model in float16
    model: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    book: BookOptions = field(default_factory=BookOptions)
    fit: FitOptions = field(default_factory=FitOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError("held_out must be in [0, 1)")
        if self.margin < 1 or not 0 < self.least_area <= 1 or not 0 <= self.forget < 1:
            raise ConfigError("margin must be at least 1, least_area in (0, 1], forget in [0, 1)")


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model`` and its recall."""
    yield from (book.train(config) if config.mode == "book" else _train(config))


def _train(config: Config) -> Iterator[FitStep]:
    torch.manual_seed(config.fit.seed)
    size = config.model.size
    side = round(size * config.margin)
    learnt = read_cut_outs(config) if config.compose else read(config, side)
    if len(learnt.captions) < config.fit.batch:
        raise ConfigError(
            f"{config.data}: {len(learnt.captions)} pictures to learn from; lower fit.batch to that"
        )
    held_out = learnt.measured(side, False).images
    texts = [text for group in learnt.captions for text in group]
    around = frames(config.compose) if config.compose else []
    tokenizer = train_tokenizer(texts + around, config.vocabulary, config.model.text.positions)
    text = replace(config.model.text, vocabulary=len(tokenizer), end=tokenizer.eos)
    model = ContrastiveModel(replace(config.model, text=text))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.loss == "siglip":  # where the paper begins
        model.log_scale.data.fill_(math.log(10))
        model.bias.data.fill_(-10)
    training = Training(model, config.fit)
    run = Run(config.out, "clip", config, training, config.save_every)
    run.held = held_out.pixels.nbytes + (0 if learnt.pixels is None else learnt.pixels.nbytes)
    run.remark(*learnt.remarks, *held_out.remarks)
    batches: Iterator[Batch] = iter(())
    if learnt.streamed is not None:
        run.streamed, run.held = learnt.streamed, run.held + held(training, side)
        buffer = BUFFER if learnt.streamed.sharded else 0
        batches = stream(learnt.streamed, side, training, buffer=buffer)
    captions = Captions(learnt.captions, token_ids(tokenizer, texts, text.positions), tokenizer.eos)
    composer = Composer(config, learnt, tokenizer) if config.compose else None
    run.held += composer.nbytes if composer else 0

    def batch(draw: Draw) -> tuple[Tensor, Tensor]:
        if composer:
            return composer(draw)
        g, count = draw.generator, config.fit.batch
        mine = slice(draw.part, None, draw.parts)
        if learnt.pixels is None:
            chosen, pixels = next(batches)
        else:
            chosen = torch.randperm(len(learnt.pixels), generator=g)[:count][mine]  # none twice
            pixels = learnt.pixels[chosen]
        boxes, mirrored = draw_crops(count, side, config.least_area, g)
        ids = captions.draw(chosen, config.forget, count, mine, g)
        return cut(pixels, boxes[mine], mirrored[mine], size), ids

    def loss(draw: Draw) -> Tensor:
        pixels, ids = batch(draw)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        ids = trimmed(ids, tokenizer.eos)
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
    shown = learnt.measured(encoder.size, True)
    show(run, encoder, shown.images, shown.source, shown.name, config.query)
    if distributed.first():
        if config.half:
            encoder.model.half()
        encoder.save(config.out / "model")
    run.finish()


def finished(training: Training, config: ContrastiveConfig, tokenizer: Tokenizer) -> Encoder:
    """The network with its averaged weights, ready to look at pictures."""
    model = ContrastiveModel(config)
    model.load_state_dict(training.averaged())
    return Encoder(model.to(training.options.place).eval(), tokenizer, config.size)


class Captions:
    """The tokens of every caption, and which are whose."""

    def __init__(self, captions: Sequence[Sequence[str]], ids: Tensor, end: int) -> None:
        self.ids, self.end = ids, end
        self.count = torch.tensor([len(group) for group in captions])
        self.start = self.count.cumsum(0) - self.count

    def draw(
        self, images: Tensor, forget: float, batch: int, mine: slice, g: torch.Generator
    ) -> Tensor:
        """One caption of each image (B, S), some of its tokens left out.

        Args:
            images: (B,) numbers: what ``mine`` is of a whole ``batch``, for which all is drawn.
        """
        which = (torch.rand(batch, generator=g)[mine] * self.count[images]).long()
        ids = self.ids[self.start[images] + which]
        gone = (torch.rand(batch, ids.shape[1], generator=g) < forget)[mine]
        gone[:, 0] = False  # the begin token
        gone &= ids != self.end
        order = gone.int().argsort(dim=1, stable=True)  # what is gone moves to the end of its row
        return torch.where(gone, self.end, ids).gather(1, order)
