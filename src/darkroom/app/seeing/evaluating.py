"""How often the likeliest label is right, over a data set of labelled pictures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.app.output import SUFFIXES
from darkroom.app.progress import Progress
from darkroom.app.terminal import say, table
from darkroom.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.training.data import Pictures
    from darkroom.vision.encoder import Encoder

CHUNK = 256  # files that are held at once, still compressed
COLUMNS = 20  # classes at most, of which a table is printed


def evaluate(
    path: Path,
    labels: Sequence[str],
    templates: Sequence[str],
    open_encoder: Callable[[], "Encoder"],
    matrix: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """Compare every picture with every label; print accuracy and which class is taken for which.

    Args:
        path: what ``open_data`` opens as a set with classes.
        labels: what stands for its classes, in their order; none = their names.
        matrix: where to draw the confusion matrix.
        quiet: print no table.

    Raises:
        DataError: it is no set with classes, or not one picture can be read.
        ValueError: labels are doubled, empty, or not as many as there are classes.
    """
    import torch

    from darkroom.training.data import open_data
    from darkroom.vision.classify import accuracy, confusion, open_labels

    data = open_data(path, "test")
    if data.labels is None or not data.classes:
        raise DataError(f"{path}: a {data.kind} without classes; expected class/picture.png")
    names = [label.replace("_", " ") for label in data.classes] if not labels else list(labels)
    if len(names) != len(data.classes):
        raise ValueError(
            f"{len(names)} labels for {len(data.classes)} classes: {', '.join(data.classes)[:200]}"
        )
    encoder = open_encoder()
    found = open_labels(encoder, names, templates)
    rows, truth, skipped = [], [], []
    with Progress("classify", len(data), "picture") as bar:
        for number, vector, problem in _vectors(encoder, data):
            if vector is None:
                bar.say(f"left out: {data.name(number)}: {problem}")
                skipped.append({"path": data.name(number), "problem": problem})
            else:
                rows.append(vector)
                truth.append(int(data.labels[number]))
            bar.advance()
    if not rows:
        raise DataError(f"{path}: none of its {len(data)} pictures can be read")
    probabilities, right = found.probabilities(torch.stack(rows)), torch.tensor(truth)
    table_of = confusion(right, probabilities.argmax(1), len(names))
    fields = {
        "data": str(path),
        "model": encoder.name,
        "pictures": len(rows),
        "labels": list(found.names),
        "templates": list(templates),
        "accuracy": accuracy(probabilities, right),
        "top5": accuracy(probabilities, right, 5),
        "chance": 1 / len(names),
        "confusion": table_of.tolist(),
        "skipped": skipped,
    }
    if not quiet:
        _print(found.names, fields)
    say(
        f"{len(rows):,} pictures: accuracy {fields['accuracy']:.1%} (by chance "
        f"{fields['chance']:.1%}), right label among the first five {fields['top5']:.1%}"
    )
    if matrix is not None:
        from darkroom.vision.plots import heat_map

        title = f"what it is (rows), what it is taken for: {fields['accuracy']:.1%} right"
        shown = heat_map(fields["confusion"], found.names, found.names, title=title, whole=True)
        write_picture(shown, matrix)
        fields["matrix"] = str(matrix)
    return fields


def write_picture(picture: "Image.Image", path: Path) -> None:
    """Write a picture in the format of its suffix, whole or not at all."""
    from darkroom.atomic import atomic_write

    with atomic_write(path) as file:
        picture.save(file, SUFFIXES[path.suffix.lower()])
    say(f"{path}: drawn")


def _vectors(encoder: "Encoder", data: "Pictures") -> Iterator[tuple[int, Any, str]]:
    """(number, vector (E,) or None, problem) of every item, in order."""
    from itertools import islice

    import torch

    from darkroom.vision.reading import read_ahead

    def files() -> Iterator[tuple[int, bytes]]:
        for start in range(0, len(data), CHUNK):
            numbers = range(start, min(start + CHUNK, len(data)))
            yield from zip(numbers, data.raw(numbers), strict=True)

    def read(item: tuple[int, bytes]) -> tuple[int, Any, str]:
        from darkroom.errors import ImageError
        from darkroom.images import undecoded

        number, file = item
        try:
            held = file[:2] in (b"P5", b"P6")  # pixels of a set that is held in memory
            source = undecoded(file, ("PPM",)) if held else file
            return number, encoder.read(source), ""
        except ImageError as error:
            return number, None, str(error)

    coming = read_ahead(read, files(), 128)
    while part := list(islice(coming, 64)):
        pixels = [picture for _, picture, _ in part if picture is not None]
        vectors = iter(encoder.images(torch.stack(pixels)) if pixels else ())
        for number, picture, problem in part:
            yield number, None if picture is None else next(vectors), problem


def _print(names: Sequence[str], fields: dict[str, Any]) -> None:
    """Accuracy of each class; the confusion matrix, if it is not too wide."""
    counts = fields["confusion"]
    rows = []
    for i, name in enumerate(names):
        of, others = sum(counts[i]), sorted(range(len(names)), key=lambda j: -counts[i][j])
        wrong = next((j for j in others if j != i and counts[i][j]), None)
        most = f"{names[wrong]} ({counts[i][wrong]})" if wrong is not None else ""
        rows.append((name, str(of), f"{counts[i][i] / max(of, 1):.1%}", most))
    table(("CLASS", "PICTURES", "RIGHT", "MOST OFTEN TAKEN FOR"), rows)
    if len(names) <= COLUMNS:
        cells = [(name, *map(str, row)) for name, row in zip(names, counts, strict=True)]
        table(("", *(name[:5] for name in names)), cells)
