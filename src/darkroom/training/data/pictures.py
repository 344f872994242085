"""Pictures that stay on the disk until a step asks for them by number.

A training step is its number (docs/decisions/0002), so a set is a sequence: item i is always the
same picture. What holds the bytes (files, tar shards, memory) is the subclass's affair.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom import foreign
from darkroom.errors import DataError
from darkroom.images import MAX_BYTES, undecoded
from darkroom.training.data import words
from darkroom.training.data.labelled import FORMATS, Images, damaged, read_square
from darkroom.training.data.reading import DamagedError, attempts, left_out

MOST_ITEMS = 10_000_000  # with their repeats; an index holds 8 bytes for each
CHUNK = 256  # files that are held at once, still compressed


class Pictures(ABC):
    """A sequence of pictures with what is known of each."""

    kind: str  # what the set was recognised as
    classes: tuple[str, ...] = ()  # the name of each label
    labels: Tensor | None = None  # (N,) int64; -1 where an item has none
    captioned: bool = False  # whether its items are meant to have captions
    cut_outs: bool = False  # whether transparency means something, and no edge may be cut off
    sharded: bool = False  # whether it lies in shards, which recipes stream without being asked
    where: str = ""  # the path that it was opened by

    def __init__(self) -> None:
        self.lost: dict[str, None] = {}  # names of what could not be read so far, in any thread

    @abstractmethod
    def __len__(self) -> int:
        """Items of one epoch; a picture that is to be repeated counts as often."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What people find item ``i`` by."""

    @abstractmethod
    def raw(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The files of items, still compressed, in the order asked for.

        Raises:
            DamagedError: the file of one cannot be read.
            DataError: more than one item's file cannot be read.
        """

    def captions(self, i: int) -> tuple[str, ...]:
        """What is said of item ``i``: nothing, one sentence or more."""
        return ()

    def has_lost_words(self, i: int) -> bool:
        """Whether item ``i`` has captions that cannot be decoded; they are not in ``captions``."""
        return False

    def all_captions(self) -> list[tuple[str, ...]]:
        """What is said of each item; no picture is read for it."""
        return [self.captions(i) for i in range(len(self))]

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
                pixels[row] = read_square(data, size)
            except DamagedError as error:
                name = self.name(numbers[row])
                raise DataError(f"{name}: {error}; `darkroom data check` lists all such") from None
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def readable(
        self, indices: Sequence[int] | Tensor, size: int, channels: int = 3
    ) -> tuple[Tensor, list[int]]:
        """Those of ``indices`` that can be read, and which items they are; by several threads.

        Args:
            channels: 3 = as ``read``; 4 = RGBA, not multiplied by alpha, which of cut-outs is
                their own: they are squeezed to the size instead of cut to it.

        Returns:
            (K, channels, size, size) uint8; K numbers of items.

        Raises:
            DataError: more than half of the set cannot be read.
        """
        numbers = [int(i) for i in indices]
        pixels = np.empty((len(numbers), size, size, channels), np.uint8)
        kept: list[int] = []
        for i in range(0, len(numbers), CHUNK):
            part = numbers[i : i + CHUNK]
            images = attempts(
                lambda data: self._decoded(data, size, channels), self._files_of(part)
            )
            for number, image in zip(part, images, strict=True):
                if image is None:
                    self._lose(number)
                else:
                    pixels[len(kept)] = image
                    kept.append(number)
        return torch.from_numpy(pixels[: len(kept)]).permute(0, 3, 1, 2), kept

    def hold(self, size: int, channels: int = 3) -> tuple[Tensor, list[int]]:
        """``readable`` of every item.

        Raises:
            DataError: not one can be read, or as ``readable``.
        """
        pixels, kept = self.readable(range(len(self)), size, channels)
        if not kept:
            names = [self.name(i) for i in range(len(self))]
            left_out(names, len(names), self.where)
        return pixels.contiguous(), kept

    def readable_or_next(
        self, indices: Sequence[int] | Tensor, size: int, channels: int = 3
    ) -> tuple[Tensor, Tensor]:
        """Each of ``indices``, or the next item of the set that can be read: pixels, and which.

        Args and errors as of ``readable``.

        Returns:
            (B, channels, size, size) uint8; (B,) int64.
        """
        numbers = [int(i) for i in indices]
        pixels = np.empty((len(numbers), size, size, channels), np.uint8)
        for row, data in enumerate(self._files_of(numbers)):
            tried = 0
            while True:
                try:
                    pixels[row] = self._decoded(data, size, channels)
                    break
                except DamagedError:
                    self._lose(numbers[row])
                tried += 1
                if tried == len(self):
                    raise DataError(f"{self.where}: not one picture can be read")
                numbers[row] = (numbers[row] + 1) % len(self)
                (data,) = self._files_of(numbers[row : row + 1])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor(numbers)

    def remarks(self) -> tuple[str, ...]:
        """What is to be said of what could not be read so far: one sentence, or none.

        Raises:
            DataError: it is more than half of the set.
        """
        return left_out(list(self.lost), len(self.unique()), self.where)

    def split(self, fraction: float, seed: int) -> tuple["Part", "Part"]:
        """A random ``fraction`` kept aside: (the rest, what is kept aside)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        aside = round(fraction * len(self))
        return Part(self, order[aside:].sort().values), Part(self, order[:aside].sort().values)

    def spread(self, most: int) -> "Part":
        """At most so many items, evenly apart."""
        count = min(most, len(self))
        return Part(self, torch.arange(count) * len(self) // max(count, 1))

    def _decoded(self, data: bytes, size: int, channels: int) -> np.ndarray:
        if channels == 3:
            return read_square(data, size)
        if self.cut_outs:
            return squeezed_cut_out(data, size)
        opaque = np.full((size, size, 4), 255, np.uint8)
        opaque[..., :3] = read_square(data, size)
        return opaque

    def _files_of(self, numbers: Sequence[int]) -> list[bytes]:
        """``raw``, with nothing in place of a file that cannot be read."""
        try:
            return list(self.raw(numbers))
        except DamagedError:
            if len(numbers) == 1:
                return [b""]
        return [data for i in numbers for data in self._files_of([i])]

    def _lose(self, number: int) -> None:
        """Remember an item that cannot be read."""
        name = self.name(number)
        if name not in self.lost:
            self.lost[name] = None
            self.remarks()  # raises when they are too many


class Part(Pictures):
    """Some items of a set, numbered anew; what cannot be read is remembered by the whole set.

    Args:
        numbers: (N,) of items of the whole, rising.
    """

    def __init__(self, whole: Pictures, numbers: Tensor) -> None:
        self.whole, self.numbers, self.lost = whole, numbers, whole.lost
        self.kind, self.classes, self.captioned = whole.kind, whole.classes, whole.captioned
        self.cut_outs, self.sharded, self.where = whole.cut_outs, whole.sharded, whole.where
        if whole.labels is not None:
            self.labels = whole.labels[numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, i: int) -> str:
        return self.whole.name(int(self.numbers[i]))

    def raw(self, indices: Sequence[int]) -> Iterator[bytes]:
        return self.whole.raw([int(self.numbers[i]) for i in indices])

    def captions(self, i: int) -> tuple[str, ...]:
        return self.whole.captions(int(self.numbers[i]))

    def has_lost_words(self, i: int) -> bool:
        return self.whole.has_lost_words(int(self.numbers[i]))

    def stretches(self) -> Sequence[int]:
        ends = torch.tensor(self.whole.stretches()).cumsum(0)
        before = torch.searchsorted(self.numbers, ends)
        return before.diff(prepend=torch.zeros(1, dtype=torch.long)).tolist()

    def remarks(self) -> tuple[str, ...]:
        return self.whole.remarks()


def squeezed_cut_out(data: Path | bytes, size: int) -> np.ndarray:
    """(size, size, 4) uint8 RGBA: scaled with premultiplied alpha, by area averaging.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        with undecoded(data, FORMATS) as image:
            premultiplied = image.convert("RGBA").convert("RGBa")
            small = premultiplied.resize((size, size), Image.Resampling.BOX).convert("RGBA")
    except Exception as error:  # Pillow's readers raise almost anything on damage
        raise damaged(data, error) from error
    return np.asarray(small)


@dataclass(frozen=True)
class Item:
    """One picture file."""

    path: Path
    captions: tuple[str, ...] = ()  # as ``words.decoded`` makes them
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
        super().__init__()
        self.kind, self.root, self.items, self.classes = kind, root, items, classes
        self.captioned = captioned
        repeats = torch.tensor([item.repeats for item in items])
        if repeats.sum() > MOST_ITEMS:
            raise DataError(
                f"{root}: {len(items):,} pictures, repeated {repeats.sum():,} times altogether; "
                f"expected at most {MOST_ITEMS:,}: lower the numbers before the _"
            )
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
            yield foreign.read_bytes(self.item(i).path, DamagedError, MAX_BYTES)

    def captions(self, i: int) -> tuple[str, ...]:
        return words.kept(self.item(i).captions)

    def has_lost_words(self, i: int) -> bool:
        return any(map(words.is_lost, self.item(i).captions))

    def unique(self) -> Sequence[int]:
        repeats = torch.tensor([item.repeats for item in self.items])
        return (repeats.cumsum(0) - repeats)[repeats > 0].tolist()


class Held(Pictures):
    """Pictures in memory (MNIST and the like), for what wants a ``Pictures``."""

    def __init__(self, kind: str, images: Images) -> None:
        super().__init__()
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

    def remarks(self) -> tuple[str, ...]:
        return self.images.remarks
