"""Pictures with words: what is said of each item of a set, without reading a picture."""

from dataclasses import dataclass
from typing import Any

import torch

from darkroom.errors import DataError
from darkroom.training.data import words
from darkroom.training.data.pictures import Files, Part, Pictures
from darkroom.training.data.reading import left_out


@dataclass(frozen=True)
class Captioned:
    """Those items of a set that have words."""

    pictures: Pictures
    captions: tuple[tuple[str, ...], ...]  # of each, one or more
    rows: tuple[dict[str, Any], ...]  # its first caption as ``text``, its ``tags``, its columns
    remarks: tuple[str, ...] = ()  # what is to be said of the others

    def __len__(self) -> int:
        return len(self.captions)

    def of(self, part: Part) -> "Captioned":
        """A part of its pictures."""
        numbers = part.numbers.tolist()
        captions = tuple(self.captions[i] for i in numbers)
        return Captioned(part, captions, tuple(self.rows[i] for i in numbers), self.remarks)


def captioned(found: Pictures) -> Captioned:
    """What is said of each picture: its captions, else its class's name.

    Pictures without either are left out, and those whose captions cannot be decoded.

    Raises:
        DataError: no picture has words, or more than half have some that cannot be decoded.
    """
    captions, numbers, lost = list[tuple[str, ...]](), list[int](), list[str]()
    for i, said in enumerate(found.all_captions()):
        if not said and found.has_lost_words(i):
            lost.append(found.name(i))
        elif not said and found.labels is not None and found.labels[i] >= 0:
            said = (found.classes[int(found.labels[i])].replace("_", " "),)
        if said:
            captions.append(said)
            numbers.append(i)
    remarks = left_out(lost, len(found), found.where, words.LOST)
    if not numbers:
        raise DataError(
            f"{found.where}: no picture has a caption or a class; see `darkroom data check`"
        )
    silent = len(found) - len(numbers) - len(lost)
    if silent:
        said = f"{silent:,} of {len(found):,} pictures, without a caption or a class, are left out"
        remarks = (*remarks, said)
    rows = tuple(_row(found, i, said[0]) for i, said in zip(numbers, captions, strict=True))
    pictures = Part(found, torch.tensor(numbers)) if len(numbers) < len(found) else found
    return Captioned(pictures, tuple(captions), rows, remarks)


def _row(found: Pictures, i: int, text: str) -> dict[str, Any]:
    own = found.item(i).row if isinstance(found, Files) else {}
    row = {k: v for k, v in own.items() if not (isinstance(v, str) and words.is_lost(v))}
    row["text"] = text
    if isinstance(row.get("tags"), str):  # from a .csv
        row["tags"] = [tag.strip() for tag in row["tags"].split(",") if tag.strip()]
    return row
