"""Pictures that stay on the disk until a step asks for them by number.

A training step is its number (docs/decisions/0002), so a set is a sequence: item i is always the
same picture. What holds the bytes (files, tar shards, memory) is the subclass's affair.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darkroom.errors import DataError
from darkroom.training.data.labelled import Images, read_square


class Pictures(ABC):
    """A sequence of pictures with what is known of each."""

    kind: str  # what the set was recognised as
    classes: tuple[str, ...] = ()  # the name of each label
    labels: Tensor | None = None  # (N,) int64; -1 where an item has none
    captioned: bool = False  # whether its items are meant to have captions

    @abstractmethod
    def __len__(self) -> int:
        """Items of one epoch; a picture that is to be repeated counts as often."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What people find item ``i`` by."""

    @abstractmethod
    def raw(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The files of items, still compressed, in the order asked for."""

    def captions(self, i: int) -> tuple[str, ...]:
        """What is said of item ``i``: nothing, one sentence or more."""
        return ()

    def unique(self) -> range | Sequence[int]:
        """The items without repetitions."""
        return range(len(self))

    def stretches(self) -> Sequence[int]:
        """Lengths of the runs of items that lie beside each other on the disk: the shards."""
        return (len(self),)

    def read(self, indices: Sequence[int] | Tensor, size: int) -> Tensor:
        """(B, 3, size, size) uint8 RGB: upright, on white, shorter side scaled, middle kept.

        Raises:
            DataError: a picture cannot be read; names it.
        """
        numbers = [int(i) for i in indices]
        pixels = np.empty((len(numbers), size, size, 3), np.uint8)
        for row, data in enumerate(self.raw(numbers)):
            try:
                pixels[row] = read_square(io.BytesIO(data), size)
            except DataError as error:
                name = self.name(numbers[row])
                raise DataError(f"{name}: {error}; `darkroom data check` lists all such") from None
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Item:
    """One picture file."""

    path: Path
    captions: tuple[str, ...] = ()
    label: int = -1
    repeats: int = 1
    row: Mapping[str, Any] = field(default_factory=dict)  # whatever else is known


class Files(Pictures):
    """One file for each picture."""

    def __init__(
        self,
        kind: str,
        root: Path,
        items: Sequence[Item],
        classes: tuple[str, ...] = (),
        captioned: bool = False,
    ) -> None:
        if not items:
            raise DataError(f"{root}: no pictures in this {kind}; check the path")
        self.kind, self.root, self.items, self.classes = kind, root, items, classes
        self.captioned = captioned
        repeats = torch.tensor([item.repeats for item in items])
        self.which = torch.arange(len(items)).repeat_interleave(repeats)
        if classes:
            self.labels = torch.tensor([item.label for item in items])[self.which]

    def __len__(self) -> int:
        return len(self.which)

    def item(self, i: int) -> Item:
        """All that is known of item ``i``."""
        return self.items[int(self.which[i])]

    def name(self, i: int) -> str:
        path = self.item(i).path
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def raw(self, indices: Sequence[int]) -> Iterator[bytes]:
        for i in indices:
            try:
                data = self.item(i).path.read_bytes()
            except OSError as error:
                raise DataError(f"{self.name(i)}: cannot be read ({error.strerror})") from None
            yield data

    def captions(self, i: int) -> tuple[str, ...]:
        return self.item(i).captions

    def unique(self) -> Sequence[int]:
        repeats = torch.tensor([item.repeats for item in self.items])
        return (repeats.cumsum(0) - repeats)[repeats > 0].tolist()


class Held(Pictures):
    """Pictures in memory (MNIST and the like), for what wants a ``Pictures``."""

    def __init__(self, kind: str, images: Images) -> None:
        self.kind, self.images = kind, images
        self.labels, self.classes = images.labels, images.classes
        self.captioned = images.captions is not None

    def __len__(self) -> int:
        return len(self.images)

    def name(self, i: int) -> str:
        return f"image {i}"

    def raw(self, indices: Sequence[int]) -> Iterator[bytes]:
        """As PNM files: a header and the pixels."""
        for i in indices:
            pixels = self.images.pixels[i]
            channels, height, width = pixels.shape
            head = f"{'P5' if channels == 1 else 'P6'} {width} {height} 255\n".encode()
            yield head + pixels[:3].permute(1, 2, 0).contiguous().numpy().tobytes()

    def captions(self, i: int) -> tuple[str, ...]:
        return self.images.captions[i] if self.images.captions else ()
