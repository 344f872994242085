"""A step's pictures are a function of its number; processes read their shares and no more."""

import pytest
import torch
from torch import nn

from darkroom.training import distributed
from darkroom.training.data.shards import Shards
from darkroom.training.fit import FitOptions, Training, fit
from darkroom.training.stream import Order, stream
from training.data.data_sets import shard


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return Shards(
        [
            shard(folder / f"{n}.tar", [f"{n}{i:03}" for i in range(7)], start=7 * n)
            for n in range(3)
        ],
        cache=None,
    )


@pytest.mark.parametrize("buffer", [0, 1, 3, 100])
def test_every_item_once_an_epoch(shards, buffer):
    order = Order(shards, 4, seed=3, buffer=buffer)
    seen = torch.cat([order.step(step) for step in range(21)])  # 84 = four epochs
    assert len(shards) == 21
    for epoch in seen.split(21):
        assert sorted(epoch.tolist()) == list(range(21))
    assert seen[:21].tolist() != seen[21:42].tolist()
    fresh = Order(shards, 4, seed=3, buffer=buffer)
    assert torch.equal(fresh.step(13), seen[52:56])  # without the steps before
    assert Order(shards, 50, seed=3).step(0).shape == (50,)  # more than an epoch


def test_local_order_goes_through_one_shard_after_the_other(shards):
    epoch = Order(shards, 4, seed=1, buffer=3).epoch(0)
    visited = [int(i) // 7 for i in epoch]
    assert [visited[i * 7 : i * 7 + 7] for i in range(3)] == [
        [visited[i * 7]] * 7 for i in range(3)
    ]
    assert sorted(epoch[:3].tolist()) == list(range(int(epoch[:3].min()), int(epoch[:3].max()) + 1))


def losses(shards, steps, start=0, state=None, **how):
    torch.manual_seed(0)
    options = FitOptions(steps=steps, batch=4, lr=1e-2, accumulate=how.pop("accumulate", 1))
    training = Training(nn.Linear(3 * 8 * 8, 1), options)
    if state:
        training.load(state)
    batches = stream(shards, 8, training, **how)
    seen = []

    def loss(draw):
        batch = next(batches)
        seen.append(batch.indices.tolist())
        pixels = batch.pixels.to(draw.device).float() / 255
        return (training.model(pixels.flatten(1)) - batch.indices[:, None] % 2).square().mean()

    values = [step.loss for step in fit(training, loss)]
    return values, seen, training


def test_prefetched_and_not_are_the_same(shards):
    plain = losses(shards, 8, ahead=0)
    assert losses(shards, 8, ahead=3)[:2] == plain[:2]
    halves, seen, _ = losses(shards, 8, ahead=2, accumulate=2)
    assert halves == pytest.approx(plain[0], rel=1e-5)
    assert [sorted(a + b) for a, b in zip(seen[::2], seen[1::2])] == [sorted(a) for a in plain[1]]


def test_a_resumed_run_goes_on_with_the_same_pictures(shards, tmp_path):
    whole = losses(shards, 8)[0]
    torch.manual_seed(0)
    cut = Training(nn.Linear(192, 1), FitOptions(steps=8, batch=4, lr=1e-2))
    steps = fit(cut, _loss(shards, cut))
    first = [next(steps).loss for _ in range(3)]
    cut.save(tmp_path / "state")
    steps.close()
    rest = losses(shards, 8, state=tmp_path / "state")[0]
    assert first + rest == whole


def _loss(shards, training):
    batches = stream(shards, 8, training)

    def loss(draw):
        batch = next(batches)
        pixels = batch.pixels.float() / 255
        return (training.model(pixels.flatten(1)) - batch.indices[:, None] % 2).square().mean()

    return loss


def test_a_process_reads_its_share_only(shards, monkeypatch):
    whole = losses(shards, 4)[1]
    read = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "world", lambda: 2)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        training = Training(nn.Linear(192, 1), FitOptions(steps=4, batch=4))
        read.append([batch.indices.tolist() for batch in stream(shards, 8, training)])
    for step, indices in enumerate(whole):
        assert read[0][step] == indices[::2]
        assert read[1][step] == indices[1::2]
