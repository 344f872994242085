"""Folders of captioned pictures, in memory."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.errors import CheckpointError


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures of one size with what is known of each."""

    pixels: Tensor  # (N, 4, H, W) uint8, RGB not multiplied by alpha
    rows: list[dict]  # the row of ``metadata.jsonl`` of each

    def __len__(self) -> int:
        return len(self.rows)


def image_folder(folder: Path, size: int) -> CaptionedPictures:
    """Read a folder with ``metadata.jsonl`` (``file_name``, ``text``, anything else).

    Pictures are scaled to ``size`` x ``size`` with premultiplied alpha, by area averaging.

    Raises:
        CheckpointError: if there is no metadata, or nothing to train on.
    """
    index = folder / "metadata.jsonl"
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: no metadata.jsonl; expected a folder of pictures with one"
        )
    rows = [json.loads(line) for line in index.read_text("utf-8").splitlines() if line.strip()]
    if not rows:
        raise CheckpointError(f"{index}: lists no pictures")
    pixels = np.stack([_read(folder / row["file_name"], size) for row in rows])
    return CaptionedPictures(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), rows)


def _read(path: Path, size: int) -> np.ndarray:
    with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
        premultiplied = image.convert("RGBA").convert("RGBa")
        small = premultiplied.resize((size, size), Image.Resampling.BOX).convert("RGBA")
    return np.asarray(small)
