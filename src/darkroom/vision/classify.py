"""Which of some labels fits a picture, without training (Radford et al., arXiv:2103.00020)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.arguments import items, shown, string, whole
from darkroom.errors import ArgumentError, ImageError
from darkroom.images import ImageLike, listed
from darkroom.vision.encoder import Encoder
from darkroom.vision.reading import read_ahead

TEMPLATES = ("a photo of a {}",)
ENSEMBLES = {  # what --template takes by name
    "plain": ("{}",),
    "photo": TEMPLATES,
    "photos": (
        "a photo of a {}",
        "a small photo of a {}",
        "a close view of a {}",
        "a blurred photo of a {}",
        "a photo of one {} outdoors",
        "a photo of many {}s",
        "a dark photo of the {}",
    ),
    "drawings": ("a drawing of a {}", "an icon of a {}", "a simple picture of a {}", "{} emoji"),
}
BATCH = 32  # pictures at a time


class Label(NamedTuple):
    """One label of a picture."""

    name: str
    probability: float
    cosine: float


class Classified(NamedTuple):
    """A picture and its labels, most likely first; or why it has none."""

    image: ImageLike
    labels: tuple[Label, ...]
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Labels:
    """What pictures are compared with: a vector for each label."""

    names: tuple[str, ...]
    vectors: Tensor  # (L, E), of length one
    scale: float  # of cosines to logits

    def probabilities(self, images: Tensor) -> Tensor:
        """Vectors of pictures (N, E) -> (N, L), if one of the labels is right."""
        return (self.scale * (images @ self.vectors.T)).softmax(dim=-1)

    def best(self, images: Tensor, top: int = 5) -> list[tuple[Label, ...]]:
        """Of vectors of pictures (N, E), the ``top`` likeliest labels each, or all there are."""
        found = self.probabilities(images).topk(min(top, len(self.names)))
        cosines = (images @ self.vectors.T).gather(1, found.indices)
        rows = (found.indices.tolist(), found.values.tolist(), cosines.tolist())
        return [
            tuple(Label(self.names[i], p, c) for i, p, c in zip(*row, strict=True))
            for row in zip(*rows, strict=True)
        ]


def label_vectors(
    encoder: Encoder, labels: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> Tensor:
    """(L, E) of length one: of each label, the mean of its vectors in the templates (an ensemble).

    Raises:
        ValueError: no labels, an empty one or one given twice; no template, or one without {}.
    """
    labels, templates = check_labels(labels), check_templates(templates)
    texts = [template.replace("{}", label) for label in labels for template in templates]
    vectors = encoder.encode_text(texts).view(len(labels), len(templates), -1)
    return F.normalize(vectors.mean(1), dim=-1)


def open_labels(
    encoder: Encoder, labels: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> Labels:
    """Labels ready to be compared with pictures. Raises as ``label_vectors`` does."""
    return Labels(
        tuple(check_labels(labels)), label_vectors(encoder, labels, templates), encoder.scale
    )


def classify(
    encoder: Encoder,
    images: ImageLike | Iterable[ImageLike],
    labels: Sequence[str] | Labels,
    *,
    templates: Sequence[str] = TEMPLATES,
    top: int = 5,
    batch: int = BATCH,
) -> Iterator[Classified]:
    """The likeliest labels of each picture, in order; one that cannot be read has a problem.

    Args:
        images: pictures as ``open_image`` takes them, several or one; an array (N, H, W, 3) is N.

    Raises:
        ValueError: as ``label_vectors``.
        ImageError: ``images`` is nothing of the kind.
    """
    if not hasattr(encoder, "encode_text"):
        raise ArgumentError(f"{shown(encoder)} is no encoder; say dr.open_encoder(name)")
    images = listed(images)
    top = whole("top", top, "a whole number from 1 up", least=1)
    batch = whole("batch", batch, "a whole number from 1 up", least=1)
    if not isinstance(labels, Labels):
        labels = open_labels(encoder, labels, templates)
    return _classify(encoder, images, labels, top, batch)


def _classify(
    encoder: Encoder, images: Iterable[ImageLike], labels: Labels, top: int, batch: int
) -> Iterator[Classified]:
    def read(image: ImageLike) -> tuple[ImageLike, Tensor | None, str]:
        try:
            return image, encoder.read(image), ""
        except ImageError as error:
            return image, None, str(error)

    coming = read_ahead(read, images, 2 * batch)
    while part := list(islice(coming, batch)):
        pixels = [picture for _, picture, _ in part if picture is not None]
        found = iter(labels.best(encoder.images(torch.stack(pixels)), top) if pixels else ())
        for image, picture, problem in part:
            yield Classified(image, () if picture is None else next(found), problem)


def check_labels(labels: Sequence[str]) -> list[str]:
    """Labels without the space around them. Raises ValueError as ``label_vectors`` does."""
    if isinstance(labels, str):
        raise ArgumentError(f"labels {labels!r}: a text; expected a list of texts")
    some = "a list of texts"
    found = [string("label", label).strip() for label in items("labels", labels, some)]
    if not found:
        raise ValueError("no labels; give at least one")
    if "" in found:
        raise ValueError(f"label {found.index('') + 1} of {len(found)} is empty; leave it out")
    if twice := [name for name, times in Counter(found).items() if times > 1]:
        raise ValueError(f"label {twice[0]!r} is given more than once; leave one out")
    return found


def check_templates(templates: Sequence[str]) -> list[str]:
    """Templates, names of ``ENSEMBLES`` replaced by what they stand for; ValueErrors as above."""
    some = "a list of texts, or a name"
    given = [templates] if isinstance(templates, str) else items("templates", templates, some)
    names = [string("template", one, some) for one in given]
    found = [template for one in names for template in ENSEMBLES.get(one, (one,))]
    if not found:
        raise ValueError("no templates; give at least one, such as 'a photo of a {}'")
    for template in found:
        if template.count("{}") != 1:
            names = ", ".join(ENSEMBLES)
            raise ValueError(
                f"template {template!r}: expected one {{}} for the label, or a name: {names}"
            )
    return found


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(C, C) int64: how many pictures of class i (rows) were taken for class j (columns)."""
    return torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)


def accuracy(probabilities: Tensor, truth: Tensor, top: int = 1) -> float:
    """The share of pictures whose class (N,) is among the ``top`` likeliest of (N, C)."""
    best = probabilities.topk(min(top, probabilities.shape[1])).indices
    return (best == truth[:, None]).any(1).float().mean().item()
