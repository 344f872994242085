"""Flickr8k (Hodosh et al., 2013): 8,091 photographs with five captions each, as Kaggle packs it.

``Images/`` and ``captions.txt`` ("image,caption" with quotes); the official split lists
(``Flickr_8k.trainImages.txt`` and so on) lie beside them, or are missing.
"""

import csv
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from darkroom import foreign
from darkroom.errors import DataError, DataWarning
from darkroom.images import undecoded
from darkroom.training.data import words
from darkroom.training.data.labelled import FORMATS, Images, damaged, read_square
from darkroom.training.data.reading import left_out, read_many

Split = Literal["train", "dev", "test", "book-train", "book-validation", "all"]


def flickr8k(
    folder: Path, size: int, split: Split = "all", *, crop: bool = True, first: int = 0
) -> Images:
    """The photographs of one split, (N, 3, size, size), with all their captions.

    Args:
        folder: holds ``Images/`` and ``captions.txt``.
        split: one of the official 6,000 / 1,000 / 1,000; of the book's 80 / 20; or everything.
        crop: cut to the middle square; else squeeze to a square, as the book does.
        first: only so many images of the split (the book's "debug" takes 100); 0 = all.

    Raises:
        DataError: the captions are missing or damaged, the split is not there, or more than half
            of its pictures are damaged.
    """
    captions = read_captions(folder)
    names = split_names(folder, split, captions, first)
    paths = [folder / "Images" / name for name in names]

    def decode(path: Path) -> np.ndarray:
        return read_square(path, size) if crop else squeezed(path, size)

    pixels, kept, remarks = read_many(decode, paths, names, folder)
    names = [names[i] for i in kept]
    return Images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        captions=tuple(captions[name] for name in names),
        names=tuple(names),
        remarks=remarks,
    )


def read_captions(folder: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each image, in the order of ``captions.txt``.

    Raises:
        DataError: the file is missing, or not of this kind.
    """
    path = folder / "captions.txt"
    try:
        text = words.decoded(foreign.read_bytes(path, DataError))
        rows = list(csv.reader(text.splitlines(keepends=True)))
    except (DataError, csv.Error) as error:
        raise DataError(
            f"{path}: not readable ({error}); expected Kaggle's Flickr8k: Images/ and captions.txt"
        ) from None
    if not rows or rows[0] != ["image", "caption"]:
        raise DataError(f'{path}: expected "image,caption" as its first line')
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or "/" in row[0] or "\\" in row[0] or not row[0]:
            raise DataError(f"{path}: line {number} is not an image's name and a caption")
        captions.setdefault(row[0], []).append(row[1].strip())
    lost = [name for name, texts in captions.items() if any(map(words.is_lost, texts))]
    for remark in left_out(lost, len(captions), folder, words.LOST):
        warnings.warn(remark, DataWarning, stacklevel=2)
    kept = {name: words.kept(texts) for name, texts in captions.items()}
    return {name: texts for name, texts in kept.items() if texts}


def split_names(
    folder: Path, split: Split, captions: dict[str, tuple[str, ...]], first: int = 0
) -> list[str]:
    """Which images are in a split, in the order of ``captions.txt``.

    Raises:
        DataError: the official list is missing, or names an image without captions.
    """
    known = list(captions)
    if split == "all":
        names = known
    elif split.startswith("book-"):
        if odd := next((name for name in known if len(captions[name]) != 5), ""):
            raise DataError(
                f"{folder / 'captions.txt'}: {odd} has {len(captions[odd])} captions; the book's "
                "split counts rows by fives"
            )
        validation = book_validation(len(known[: first or None]))
        wanted = split == "book-validation"
        return [n for i, n in enumerate(known[: first or None]) if (i in validation) == wanted]
    else:
        path = folder / f"Flickr_8k.{split}Images.txt"
        if not path.is_file():
            raise DataError(
                f"{path}: missing; the official split lists come with Flickr8k_text.zip, or take "
                'the split "book-train"'
            )
        listed = set(foreign.read_text(path, DataError).split())
        if lacking := listed - captions.keys():
            raise DataError(f"{path}: no captions for {min(lacking)}; is it the same data set?")
        names = [name for name in known if name in listed]
    if not names:
        raise DataError(f"{folder}: the split {split!r} is empty")
    return names[: first or None]


def book_validation(images: int) -> set[int]:
    """The ids that the book keeps for validation: a fifth, drawn by numpy's seed 42.

    An id is row // 5 of ``captions.txt``, that is, the number of an image of five captions.
    """
    drawn = np.random.RandomState(42).choice(np.arange(images), int(0.2 * images), replace=False)
    return set(drawn.tolist())


def squeezed(path: Path, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the whole picture, its aspect not kept.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        with undecoded(path, FORMATS) as image:
            image.draft("RGB", (size, size))
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(small)
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise damaged(path, error) from error
