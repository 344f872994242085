"""CamVid: street scenes with the class of every pixel (Brostow et al., 2009), as SegNet cut it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from darkroom.errors import DataError
from darkroom.images import undecoded
from darkroom.training.data.labelled import FORMATS, SUFFIXES, damaged
from darkroom.training.data.reading import attempts, left_out

Split = Literal["train", "val", "test"]
VOID = 11  # a pixel of which nothing is said
CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
COLOURS = (  # of each class, as the set's own pictures show it
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


@dataclass(frozen=True)
class Scenes:
    """Images of one size, and the class of every pixel."""

    pixels: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N, H, W) uint8; VOID where nothing is said
    names: tuple[str, ...]
    remarks: tuple[str, ...] = ()  # what is to be said of the set: scenes were left out

    def __len__(self) -> int:
        return len(self.pixels)


def camvid(folder: Path, split: Split = "train") -> Scenes:
    """Read ``folder/train`` and ``folder/trainannot``, or those of another split.

    A picture's labels have its name and end with ``.png``: greyscale, the class's number in each
    pixel, 11 where nothing is said. Scenes of which a file is damaged are left out.

    Raises:
        DataError: a file is missing, of another size than the others, or no label map; or more
            than half of the scenes are damaged.
    """
    photos, maps = folder / split, folder / f"{split}annot"
    if not photos.is_dir() or not maps.is_dir():
        raise DataError(f"{folder}: no {split}/ and {split}annot/; expected CamVid's six folders")
    paths = {path.stem: path for path in photos.iterdir() if path.suffix.lower() in SUFFIXES}
    labels = {path.stem: path for path in maps.iterdir() if path.suffix.lower() == ".png"}
    if not paths:
        raise DataError(f"{photos}: no images")
    for alone, where in ((paths.keys() - labels, maps), (labels.keys() - paths, photos)):
        if alone:
            raise DataError(
                f"{where}: nothing for {len(alone)} of {split}, such as {min(alone)}; "
                "every picture needs its label map"
            )
    found = sorted(paths)
    pairs = list(
        attempts(lambda name: (_read(paths[name], "RGB"), _read(labels[name], None)), found)
    )
    lost = [paths[name].name for name, pair in zip(found, pairs, strict=True) if pair is None]
    remarks = left_out(lost, len(found), photos)
    names = tuple(name for name, pair in zip(found, pairs, strict=True) if pair is not None)
    pixels, classes = zip(*(pair for pair in pairs if pair is not None), strict=True)
    size = pixels[0].shape[:2]
    for name, image, kind in zip(names, pixels, classes, strict=True):
        if image.shape[:2] != size or kind.shape != size:
            raise DataError(
                f"{paths[name]}: {_size(image)} with labels {_size(kind)}; "
                f"expected {_size(pixels[0])} as in the first one"
            )
        if kind.max() > VOID:
            raise DataError(
                f"{labels[name]}: class {kind.max()}; expected 0 to {len(CLASSES) - 1}, "
                f"or {VOID} for void"
            )
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Scenes(stacked, torch.from_numpy(np.stack(classes)), names, remarks)


def _read(path: Path, mode: str | None) -> np.ndarray:
    try:
        with undecoded(path, FORMATS) as image:
            if mode is None and image.mode not in ("L", "P"):
                raise DataError(f"{path}: a {image.mode} picture; labels are greyscale or palette")
            return np.array(image.convert(mode) if mode else image)
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise damaged(path, error) from error


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}" if image.ndim >= 2 else str(image.shape)
