"""CLIP as "Modern Computer Vision with PyTorch", chapter 16, trains it on Flickr8k.

ResNet-50 and DistilBERT, a projection on each, the soft-target loss at temperature 1 on vectors
whose length is free, pixels divided by 255 and nothing more, no augmentation, three learning rates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from darkroom.config import Size
from darkroom.errors import ModelMismatchError
from darkroom.models.distilbert import DistilBert
from darkroom.models.dual_encoder import DualEncoder, DualEncoderConfig
from darkroom.models.resnet import ResNet
from darkroom.recipes.clip.retrieval import captions_of, show
from darkroom.recipes.runs import Run
from darkroom.text.wordpiece import WordPiece
from darkroom.training import distributed
from darkroom.training.contrastive import soft_targets
from darkroom.training.data.flickr8k import flickr8k
from darkroom.training.data.labelled import Images
from darkroom.training.fit import Draw, FitStep, Group, Training, step_generator
from darkroom.training.saving import read_state, write_state
from darkroom.vision.encoder import Encoder
from darkroom.weights.load import load

if TYPE_CHECKING:
    from darkroom.recipes.clip import Config


@dataclass(frozen=True, kw_only=True)
class BookOptions:
    """The table ``[book]``."""

    size: Size = 224  # pixels of a side; the aspect is not kept
    length: int = 200  # tokens, at most
    temperature: float = 1.0
    image_lr: float = 1e-4
    text_lr: float = 1e-5
    head_lr: float = 1e-3
    head_decay: float = 1e-3  # weight decay of the projections; the towers have none
    patience: int = 1  # epochs without a better validation loss, before the rates fall
    factor: float = 0.8
    image_weights: Path | None = None  # a ResNet of timm or torchvision
    text_weights: Path | None = None  # a folder or file of DistilBERT
    tokenizer: Path | None = None  # its vocab.txt; None = learned from the captions
    vocabulary: int = 30_522  # tokens to learn, at most
    first: int = 0  # only so many images, as the book's "debug"; 0 = all
    validation_rows: int = 0  # of the validation loss, the first so many; 0 = all
    model: DualEncoderConfig = field(default_factory=DualEncoderConfig)


class Rows:
    """Image and caption, one row for each caption, in the order of ``captions.txt``."""

    def __init__(self, photographs: Images, tokenizer: WordPiece, length: int) -> None:
        groups = captions_of(photographs)
        self.pixels = photographs.pixels
        counts = torch.tensor([len(group) for group in groups])
        self.image = torch.arange(len(groups)).repeat_interleave(counts)
        texts = [text for group in groups for text in group]
        self.ids, self.mask = tokenizer.batch(texts, length)  # all of them, up front

    def __len__(self) -> int:
        return len(self.image)

    def images(self, rows: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1]."""
        return self.pixels[self.image[rows]].float() / 255


def train(config: "Config") -> Iterator[FitStep]:
    """Train, yielding every step; at the end write the best model to ``out/model``."""
    book, batch = config.book, config.fit.batch
    torch.manual_seed(config.fit.seed)
    photographs, held_out = (
        flickr8k(config.data, book.size, split, crop=False, first=book.first)
        for split in ("book-train", "book-validation")
    )
    tokenizer = _tokenizer(book, photographs)
    rows, validation = (Rows(p, tokenizer, book.length) for p in (photographs, held_out))
    model = network(book, len(tokenizer))
    projections = [model.image_projection, model.text_projection]
    groups = [
        Group([model.image], book.image_lr),
        Group([model.text], book.text_lr),
        Group(projections, book.head_lr, book.head_decay),
    ]
    training = Training(model, config.fit, groups)
    run = Run(config.out, "clip", config, training, config.save_every)
    run.held = rows.pixels.nbytes + validation.pixels.nbytes
    run.remark(*photographs.remarks, *held_out.remarks)
    epoch = math.ceil(len(rows) / batch)  # steps
    best_file = config.out / "best.safetensors"
    best = min((row.get("validation_loss", math.inf) for row in run.rows()), default=math.inf)

    def loss(draw: Draw) -> Tensor:
        number, step = divmod(draw.step, epoch)
        order = torch.randperm(len(rows), generator=step_generator(config.fit.seed, number))
        chosen = order[torch.arange(step * batch, (step + 1) * batch) % len(rows)]
        chosen = draw.share(chosen).cpu()
        return pair_loss(model, rows, chosen, book.temperature, draw.device)

    for step in run.steps(loss):
        ended = training.step % epoch == 0
        if run.due(config.evaluate_every) or ended:
            value = validation_loss(model, validation, book, batch)
            run.note(validation_loss=value)
            if value < best:
                best = value
                write_state(best_file, training.averaged(), {"step": training.step, "loss": value})
            if ended:
                training.plateau(value, book.patience, book.factor)
        yield step
    encoder = _finished(training, model.config, tokenizer, best_file, book.size)
    images = config.data / "Images"
    show(
        run, encoder, held_out, lambda i: images / held_out.names[i], "book-validation",
        config.query,
    )  # fmt: skip
    if distributed.first():
        encoder.save(config.out / "model")
    run.finish()


def network(book: BookOptions, vocabulary: int) -> DualEncoder:
    """The towers, at random or with the weights that are given.

    Raises:
        ModelMismatchError: a file holds another network, or of another size.
    """
    text = replace(book.model.text, vocabulary=vocabulary)
    model = DualEncoder(replace(book.model, text=text))
    for path, tower, kind in (
        (book.image_weights, model.image, ResNet),
        (book.text_weights, model.text, DistilBert),
    ):
        if path:
            tower.load_state_dict(_weights(path, kind, tower.state_dict()))
    return model


def _weights(path: Path, kind: type, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a file's tensors that a tower has; a classifier on top is left aside."""
    given = load(path, dtype="float32", device="cpu")
    state = given.state_dict() if isinstance(given, kind) else {}
    wrong = [n for n, t in wanted.items() if n not in state or state[n].shape != t.shape]
    if wrong:
        raise ModelMismatchError(
            f"{path}: a {type(given).__name__}; [book.model] and the tokenizer ask for a "
            f"{kind.__name__} whose {wrong[0]} is {tuple(wanted[wrong[0]].shape)}"
        )
    return {name: state[name] for name in wanted}


def pair_loss(
    model: DualEncoder, rows: Rows, chosen: Tensor, temperature: float, device: torch.device
) -> Tensor:
    """The soft-target loss of some rows; of several processes, of all their rows together."""
    image = distributed.gather(model.encode_image(rows.images(chosen).to(device)))
    ids, mask = rows.ids[chosen].to(device), rows.mask[chosen].to(device)
    text = distributed.gather(model.encode_text(ids, mask))
    return soft_targets(image, text, temperature)


@torch.no_grad()
def validation_loss(model: DualEncoder, rows: Rows, book: BookOptions, batch: int) -> float:
    """The mean over rows, in batches in their order and without dropout."""
    place, was = next(model.parameters()).device, model.training
    model.eval()
    count = min(len(rows), book.validation_rows or len(rows))
    total = torch.zeros((), dtype=torch.float64)
    for chosen in torch.arange(count).split(batch):
        ids, mask = rows.ids[chosen].to(place), rows.mask[chosen].to(place)
        image, text = model(rows.images(chosen).to(place), ids, mask)
        total += len(chosen) * soft_targets(image, text, book.temperature).cpu()
    model.train(was)
    return total.item() / count


def _tokenizer(book: BookOptions, photographs: Images) -> WordPiece:
    if book.tokenizer:
        return WordPiece.from_folder(book.tokenizer)
    texts = [text for group in captions_of(photographs) for text in group]
    return WordPiece.train(texts, book.vocabulary)


def _finished(
    training: Training, config: DualEncoderConfig, tokenizer: WordPiece, best: Path, size: int
) -> Encoder:
    model = DualEncoder(config)
    model.load_state_dict(read_state(best)[0] if best.is_file() else training.averaged())
    return Encoder(model.to(training.options.place).eval(), tokenizer, size, crop=False)
