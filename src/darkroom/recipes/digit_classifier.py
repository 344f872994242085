"""Train a small network to read handwritten digits; it judges what the other recipes draw."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.config import Count, Size, from_dict
from darkroom.models.digit_classifier import DigitClassifier, DigitClassifierConfig
from darkroom.recipes.runs import Run
from darkroom.training.data import Images, idx
from darkroom.training.fit import Draw, FitOptions, FitStep, Training
from darkroom.training.frechet import frechet_distance
from darkroom.training.saving import read_state


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "digit-classifier"``."""

    data: Path  # a folder with MNIST's four files
    out: Path  # the run: state, log, and the finished network in ``out/classifier.safetensors``
    shift: int = 2  # pixels, at most, in each direction
    evaluate_every: Count = 500  # steps
    save_every: Size = 500  # steps
    model: DigitClassifierConfig = field(default_factory=DigitClassifierConfig)
    fit: FitOptions = field(default_factory=FitOptions)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/classifier.safetensors``."""
    torch.manual_seed(config.fit.seed)
    digits, held_out = idx(config.data), idx(config.data, train=False)
    labels = _labels(digits)
    model = DigitClassifier(config.model)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    training = Training(model, config.fit)
    run = Run(config.out, "digit-classifier", config, training, config.save_every)
    run.held = digits.pixels.nbytes + held_out.pixels.nbytes

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        index = torch.randint(len(digits), (config.fit.batch,), generator=g)
        images = shifted(sized(digits.pixels[index], g), config.shift, g)
        return F.cross_entropy(model(draw.share(images)), draw.share(labels[index]))

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(accuracy=share_read(model, held_out))
        yield step
    run.text(f"{share_read(model, held_out):.2%} of {len(held_out):,} test digits are read right.")
    run.finish(classifier=model)


def sized(pixels: Tensor, g: torch.Generator) -> Tensor:
    """(B, 1, 28, 28) uint8 -> (B, 1, 32, 32) in [0, 1]: half of them padded, half enlarged."""
    images = pixels.float() / 255
    large = F.interpolate(images, size=(32, 32), mode="bilinear")
    padded = F.pad(images, (2, 2, 2, 2))
    return torch.where(torch.rand(len(images), 1, 1, 1, generator=g) < 0.5, large, padded)


def shifted(images: Tensor, most: int, g: torch.Generator) -> Tensor:
    """Each image moved by up to ``most`` whole pixels across and down; black moves in."""
    size = images.shape[-1]
    padded = F.pad(images, (most,) * 4)
    offset = torch.randint(2 * most + 1, (2, len(images), 1), generator=g)
    rows, columns = offset + torch.arange(size)
    return padded[torch.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None]][
        :, None
    ]


def load_classifier(path: Path) -> DigitClassifier:
    """The finished classifier of this recipe.

    Raises:
        CheckpointError: if the file is none.
    """
    tensors, plain = read_state(path)
    model = DigitClassifier(from_dict(DigitClassifierConfig, plain["config"], str(path)))
    model.load_state_dict(tensors)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def read(model: DigitClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Read digits.

    Args:
        images: (N, 1, H, W) in [0, 1], H = W = 28 or 32.

    Returns:
        The digits (N,) int64 and the features (N, D), on the CPU.
    """
    was, place = model.training, next(model.parameters()).device
    model.eval()
    features = torch.cat([model.features(part.to(place)) for part in images.split(500)])
    digits = model.output(features).argmax(1)
    model.train(was)
    return digits.cpu(), features.cpu()


def share_read(model: DigitClassifier, images: Images) -> float:
    """The fraction of labelled digits that is read right."""
    digits, _ = read(model, images.pixels.float() / 255)
    return (digits == _labels(images)).double().mean().item()


def judge(
    model: DigitClassifier, drawn: Tensor, wanted: Tensor | None, real: Images, held_out: Images
) -> dict[str, float]:
    """What a reader makes of drawn digits, beside what it makes of real ones.

    Args:
        drawn: (N, 1, H, W) in [0, 1], of the size of the real ones.
        wanted: (N,) the digits that were asked for, if any were.
        real: what was learned from; N of them are set against the held-out ones, as the drawn are.
        held_out: what the features of drawn digits are compared with.

    Returns:
        ``read_as_asked`` (a fraction), ``digits_drawn`` (how many of the ten appear), and the
        Frechet distances ``frechet``, ``frechet_real`` (of N real ones, drawn at random) and
        ``frechet_halves`` (of the held-out ones' halves).
    """
    digits, features = read(model, drawn)
    _, reference = read(model, held_out.pixels.float() / 255)
    chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[: len(drawn)]
    _, as_many = read(model, real.pixels[chosen].float() / 255)
    mixed = torch.randperm(len(reference), generator=torch.Generator().manual_seed(0))
    half, other = reference[mixed].chunk(2)
    found = {} if wanted is None else {"read_as_asked": (digits == wanted).double().mean().item()}
    return found | {
        "digits_drawn": len(digits.unique()),
        "frechet": frechet_distance(features, reference),
        "frechet_real": frechet_distance(as_many, reference),
        "frechet_halves": frechet_distance(half, other),
    }


def _labels(images: Images) -> Tensor:
    assert images.labels is not None  # idx reads them
    return images.labels
