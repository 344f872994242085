"""How well pictures and sentences find each other, for the reports of recipes that train it."""

import json
from collections.abc import Callable, Sequence

import torch
from PIL import Image

from darkroom.atomic import atomic_write
from darkroom.images import ImageLike, grid
from darkroom.recipes.runs import Run
from darkroom.training import distributed
from darkroom.training.contrastive import chance, recall
from darkroom.training.crops import scaled
from darkroom.training.data.labelled import Images
from darkroom.vision.encoder import Encoder, squared

AT = (1, 5, 10)
SHOWN = 128  # pixels of a side, of the pictures in the report


def captions_of(photographs: Images) -> Sequence[tuple[str, ...]]:
    """The captions of each image."""
    assert photographs.captions is not None  # flickr8k reads them
    return photographs.captions


def measure(encoder: Encoder, photographs: Images) -> tuple[list[float], list[float]]:
    """Recall at 1, 5 and 10: text to image, image to text."""
    groups = captions_of(photographs)
    image = encoder.images(scaled(photographs.pixels, encoder.size))
    text = encoder.texts([sentence for group in groups for sentence in group])
    counts = torch.tensor([len(group) for group in groups])
    return recall(image, text, torch.arange(len(groups)).repeat_interleave(counts), AT)


def show(
    run: Run,
    encoder: Encoder,
    photographs: Images,
    source: Callable[[int], ImageLike],
    split: str,
    query: str,
) -> None:
    """Recall beside chance as a table and as ``recall.json``, and the nine best of a query.

    Args:
        photographs: of the encoder's size, with captions.
        source: number of a photograph -> its file, for the grid.
        split: what the photographs are called.
    """
    groups = captions_of(photographs)
    found = measure(encoder, photographs)
    luck = chance(len(groups), round(sum(map(len, groups)) / len(groups)), AT)
    names = ("text to image", "image to text")
    rows = [
        row
        for name, values, lucky in zip(names, found, luck, strict=True)
        for row in ((name, *map(_percent, values)), ("by chance", *map(_percent, lucky)))
    ]
    title = f"Recall on {len(groups):,} images with {sum(map(len, groups)):,} captions ({split})"
    run.table(title, ["", *(f"at {k}" for k in AT)], rows)
    facts = {
        "split": split,
        "images": len(groups),
        "at": AT,
        "recall": dict(zip(names, found, strict=True)),
        "chance": dict(zip(names, luck, strict=True)),
    }
    if distributed.first():
        with atomic_write(run.folder / "recall.json") as file:
            file.write((json.dumps(facts, indent=2) + "\n").encode())
    scores = encoder.images(photographs.pixels) @ encoder.texts([query])[0]
    best = scores.topk(min(9, len(groups))).indices.tolist()
    cells = [
        Image.fromarray(squared(source(i), SHOWN, encoder.crop).permute(1, 2, 0).numpy())
        for i in best
    ]
    run.picture("matches", grid(cells, 3), f"the best of {len(groups):,} for “{query}”")


def _percent(value: float) -> str:
    return f"{value:.1%}"
