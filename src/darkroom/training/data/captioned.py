"""Folders of captioned pictures, in memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.errors import DataError
from darkroom.training.data.labelled import FORMATS
from darkroom.training.data.opening import image_folder_files, metadata_files, open_data
from darkroom.training.data.pictures import Item


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures of one size with what is known of each."""

    pixels: Tensor  # (N, 4, H, W) uint8, RGB not multiplied by alpha
    rows: list[dict]  # the metadata of each; ``text`` is there, ``tags`` is a list if it is

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, fraction: float, seed: int) -> tuple["CaptionedPictures", "CaptionedPictures"]:
        """A random ``fraction`` kept aside: (the rest, what is kept aside)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        aside = round(fraction * len(self))
        kept, held = sorted(order[aside:]), sorted(order[:aside])
        return self.of(kept), self.of(held)

    def of(self, numbers: list[int]) -> "CaptionedPictures":
        """Some of them."""
        return CaptionedPictures(self.pixels[numbers], [self.rows[i] for i in numbers])


def image_folder(folder: Path, size: int) -> CaptionedPictures:
    """Read Hugging Face's imagefolder: ``metadata.jsonl`` or ``.csv`` beside the pictures.

    Pictures are scaled to ``size`` x ``size`` with premultiplied alpha, by area averaging.

    Raises:
        DataError: if there is no metadata, nothing to train on, or a picture cannot be read.
    """
    metadata = metadata_files(folder) if folder.is_dir() else []
    if not metadata:
        raise DataError(
            f"{folder}: no metadata.jsonl or metadata.csv; expected a folder of pictures with one"
        )
    items = image_folder_files(folder, metadata).items
    pixels = np.stack([_read(item.path, size) for item in items])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return CaptionedPictures(images, [_row(item) for item in items])


def _row(item: Item) -> dict:
    row = {**item.row, "text": item.captions[0] if item.captions else ""}
    if isinstance(row.get("tags"), str):  # from a .csv
        row["tags"] = [tag.strip() for tag in row["tags"].split(",") if tag.strip()]
    return row


def captioned_pictures(path: Path, size: int) -> CaptionedPictures:
    """Any set that ``open_data`` knows: the first caption of each picture, or its class's name.

    Pictures without either are left out.

    Raises:
        DataError: it is no set, or there is nothing to train on.
    """
    if path.is_dir() and metadata_files(path):
        return image_folder(path, size)
    found = open_data(path)
    rows, numbers = [], []
    for i in range(len(found)):
        said = found.captions(i)
        if not said and found.labels is not None and found.labels[i] >= 0:
            said = (found.classes[int(found.labels[i])].replace("_", " "),)
        if said:
            rows.append({"text": said[0]})
            numbers.append(i)
    if not rows:
        raise DataError(f"{path}: no picture has a caption or a class; see `darkroom data check`")
    pixels = found.read(numbers, size)
    return CaptionedPictures(torch.cat((pixels, torch.full_like(pixels[:, :1], 255)), dim=1), rows)


def _read(path: Path, size: int) -> np.ndarray:
    try:
        with Image.open(path, formats=FORMATS) as image:
            premultiplied = image.convert("RGBA").convert("RGBa")
            small = premultiplied.resize((size, size), Image.Resampling.BOX).convert("RGBA")
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise DataError(f"{path}: not readable as an image ({error})") from error
    return np.asarray(small)
