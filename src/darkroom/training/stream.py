"""Which pictures a step sees, and their pixels, loaded ahead of it.

The order of an epoch is a function of (seed, epoch), so a step's pictures are a function of its
number: nothing has to be saved or wound forward when a run goes on.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from darkroom.training import distributed
from darkroom.training.data.pictures import Pictures
from darkroom.training.fit import Training
from darkroom.training.prefetch import prefetch

AHEAD = 2  # batches that are loaded while one is in use
BUFFER = 2048  # of shards: neighbours that are shuffled together


class Order:
    """All items once an epoch, in an order of its own each epoch.

    Args:
        buffer: 0 = any order. Else "local": the shards are shuffled, each is cut into stretches of
            about ``buffer`` items, and a stretch is shuffled within itself. So reading goes through
            one shard after the other, as slow disks and networks want it.
    """

    def __init__(self, pictures: Pictures, batch: int, seed: int, buffer: int = 0) -> None:
        self.count, self.batch, self.seed, self.buffer = len(pictures), batch, seed, buffer
        self.stretches = list(pictures.stretches())
        self._known: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def step(self, step: int) -> Tensor:
        """The (batch,) items of a step; an epoch's end may lie within it."""
        positions = torch.arange(step * self.batch, (step + 1) * self.batch)
        epochs = positions // self.count
        parts = [
            self.epoch(int(epoch))[positions[epochs == epoch] % self.count]
            for epoch in epochs.unique()
        ]
        return torch.cat(parts)

    def epoch(self, epoch: int) -> Tensor:
        """All items in the order of one epoch."""
        known, order = self._known
        if known != epoch:
            order = self._shuffled(epoch)
            self._known = (epoch, order)
        return order

    def _shuffled(self, epoch: int) -> Tensor:
        g = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        if not self.buffer:
            return torch.randperm(self.count, generator=g)
        starts = torch.tensor([0, *self.stretches]).cumsum(0).tolist()
        order = []
        for shard in torch.randperm(len(self.stretches), generator=g).tolist():
            pieces = torch.arange(starts[shard], starts[shard + 1]).split(self.buffer)
            order += [piece[torch.randperm(len(piece), generator=g)] for piece in pieces]
        return torch.cat(order)


class Batch(NamedTuple):
    """What one pass through the network sees: this process's share."""

    indices: Tensor  # (B,) items of the set
    pixels: Tensor  # (B, channels, H, W) uint8


def stream(
    pictures: Pictures,
    size: int,
    training: Training,
    *,
    buffer: int = 0,
    channels: int = 3,
    ahead: int = AHEAD,
    workers: int = 2,
) -> Iterator[Batch]:
    """The batches of a training from where it stands, one for each call of its loss.

    ``batch = next(batches)`` in the loss takes the place of ``draw.share``: of each step's pictures
    a process reads the rows that its passes see, and no others. In place of a picture that cannot
    be read comes the next one of the set that can, so what a step sees stays a function of its
    number; ``pictures.lost`` has the names.

    Args:
        buffer: see ``Order``.
        channels: see ``Pictures.readable``.
        ahead, workers: see ``prefetch``.
    """
    options = training.options
    order = Order(pictures, options.batch, options.seed, buffer)
    world, rank = distributed.world(), distributed.rank()
    parts = options.accumulate * world

    def load(number: int) -> Batch:
        step, part = divmod(number, parts)
        wanted = order.step(step)[part::parts]
        pixels, indices = pictures.readable_or_next(wanted, size, channels)
        return Batch(indices, pixels)

    passes = range(training.step * parts + rank, options.steps * parts, world)
    return prefetch(load, passes, ahead, workers)


def held(training: Training, size: int, channels: int = 3) -> int:
    """Bytes of pixels that ``stream`` has in memory at most."""
    options = training.options
    return (AHEAD + 1) * options.batch // options.accumulate * channels * size * size
