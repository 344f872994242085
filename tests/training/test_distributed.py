"""Two gloo processes give the losses of one: data-parallel and sharded, saved and resumed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from darkroom.errors import ConfigError
from darkroom.training import distributed
from darkroom.training.fit import FitOptions, Training, fit
from two_processes import run

OPTIONS = FitOptions(steps=12, batch=8, lr=1e-2, warmup=3, ema=0.9, clip=0.5, device="cpu")


class Net(nn.Module):
    """Sharded and whole layers, a bare parameter, a layer used twice, a method that is called."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 65)  # 455 numbers: stays whole
        self.middle = nn.Linear(65, 65)  # 4290: in shards, unevenly
        self.last = nn.Linear(65, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def body(self, x):
        return self.middle(self.middle(self.first(x)).relu()).relu()

    def forward(self, x):
        return self.last(self.body(x)) * self.scale


def make(options, seed=0):
    torch.manual_seed(seed)
    model = Net()

    def loss(draw):
        x = draw.share(torch.randn(options.batch, 6, generator=draw.generator))
        output = model.last(model.body(x)) * model.scale
        return (output - x[:, :3].sin()).square().mean()

    return Training(model, options), loss


def train(options, load=None, save=None, at=6):
    """The losses, the norms and the averaged weights; another start on each process."""
    training, loss = make(options, seed=distributed.rank())
    if load:
        training.load(load)
    told = []
    for step in fit(training, loss):
        told.append((step.loss, step.gradient_norm))
        if save and training.step == at:
            training.save(save)
    shards = training.shards is not None
    share = sum(distributed.local(p).numel() for p in training.parameters)
    averaged = {name: value.tolist() for name, value in training.averaged().items()}
    return told, averaged, shards, share


def several(path):
    """All that two processes are asked for here, in one start."""
    result = {}
    for parallel in ("data", "sharded"):
        options = replace(OPTIONS, parallel=parallel)
        result[parallel] = train(options, save=path / f"{parallel}.safetensors")
        result[f"{parallel} accumulated"] = train(replace(options, accumulate=2))
        result[f"{parallel} checkpointed"] = train(replace(options, checkpointing=True))
    distributed.wait()  # for the first one to write
    for parallel in ("data", "sharded"):
        for other in ("one", "data", "sharded"):
            found = train(replace(OPTIONS, parallel=parallel), load=path / f"{other}.safetensors")
            result[f"{other} -> {parallel}"] = found
    result["unused"] = unused()
    result["batch norm"] = batch_norm()
    result["gathered"] = gathered()
    result["unsharded"] = unsharded()
    result["plateau"] = plateau()
    try:
        Training(nn.Linear(2, 2), replace(OPTIONS, lr=1e-3 * (1 + distributed.rank())))
    except ConfigError as error:
        result["compared"] = str(error)
    return result


def unused():
    """A layer that only the second process uses, and one that neither does."""
    model = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    training = Training(model, replace(OPTIONS, steps=1, clip=0.0))

    def loss(draw):
        used = model[0](torch.ones(1, 2)).sum()
        return used + (model[1](torch.ones(1, 2)).sum() if distributed.rank() else 0)

    before = [layer.weight.clone() for layer in model]
    list(fit(training, loss))
    moved = [not torch.equal(a, b.weight) for a, b in zip(before, model, strict=True)]
    return moved, model[1].weight.tolist()


def batch_norm():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    training = Training(model, replace(OPTIONS, steps=3))
    draw_noise = lambda draw: draw.share(torch.randn(8, 2, generator=draw.generator))  # noqa: E731
    list(fit(training, lambda draw: model(draw_noise(draw)).square().mean() + model[0].bias.sum()))
    return model[1].running_mean.tolist()


def contrastive(rows, everyone):
    return (rows @ everyone.T).logsumexp(1).mean() - everyone.square().mean()


def gathered():
    whole = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    rows = whole[distributed.rank() :: distributed.world()]
    contrastive(rows, distributed.gather(rows)).backward()
    order = torch.equal(distributed.gather(rows), whole)
    return order, distributed.mean(whole.grad).tolist()


def unsharded():
    training, loss = make(replace(OPTIONS, parallel="sharded"))
    list(fit(training, loss))
    averaged = training.averaged()
    training.unshard()
    kinds = {type(m).__name__ for m in training.model.modules()}
    training.model.load_state_dict(averaged)
    fine = all(torch.equal(averaged[n], t) for n, t in training.model.state_dict().items())
    return sorted(kinds), fine, training.model(torch.ones(1, 6)).tolist()


def plateau():
    training = Training(nn.Linear(2, 2), OPTIONS)
    training.plateau(float(distributed.rank()))
    return training.best


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("states")
    return (
        path,
        train(OPTIONS, save=path / "one.safetensors"),
        train(replace(OPTIONS, accumulate=4)),
    )


@pytest.fixture(scope="module")
def both(alone):
    return run(several, alone[0])


def near(found, expected, start=0):
    for (a, b), (c, d) in zip(found[0], expected[0][start:], strict=True):
        assert a == pytest.approx(c, rel=1e-5, abs=1e-5)
        assert b == pytest.approx(d, rel=1e-4, abs=1e-5)
    for name, value in expected[1].items():
        torch.testing.assert_close(
            torch.tensor(found[1][name]), torch.tensor(value), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_two_processes_give_the_losses_of_one(alone, both, parallel):
    for result in both:
        near(result[parallel], alone[1])
        near(result[f"{parallel} accumulated"], alone[2])
        near(result[f"{parallel} checkpointed"], alone[1])
        assert result[parallel][2] is (parallel == "sharded")
    assert both[0][parallel][1] == both[1][parallel][1]


def test_shards_hold_about_half(alone, both):
    total = alone[1][3]
    shares = [result["sharded"][3] for result in both]
    assert sum(shares) == total + (total - 65 * 65 - 65)  # the rest is on both
    assert all(share < 0.6 * total for share in shares)


@pytest.mark.parametrize("first", ["one", "data", "sharded"])
@pytest.mark.parametrize("then", ["data", "sharded"])
def test_states_fit_any_number_of_processes(alone, both, first, then):
    for result in both:
        near(result[f"{first} -> {then}"], alone[1], start=6)


@pytest.mark.parametrize("first", ["data", "sharded"])
def test_one_process_goes_on_with_the_state_of_two(alone, both, first):
    near(train(OPTIONS, load=alone[0] / f"{first}.safetensors"), alone[1], start=6)


def test_a_layer_that_another_process_uses_learns_alike(both):
    for result in both:
        assert result["unused"][0] == [True, True, False]
    assert both[0]["unused"][1] == both[1]["unused"][1]


def test_batch_normalisation_counts_every_share(both):
    assert both[0]["batch norm"] == both[1]["batch norm"]


def test_gather_has_the_gradient_of_the_whole_batch(both):
    whole = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    contrastive(whole, whole).backward()
    for result in both:
        assert result["gathered"][0]
        torch.testing.assert_close(torch.tensor(result["gathered"][1]), whole.grad)


def test_an_unsharded_model_is_an_ordinary_one(both):
    for result in both:
        assert result["unsharded"][0] == ["Linear", "Net"]
        assert result["unsharded"][1]
    assert both[0]["unsharded"][2] == both[1]["unsharded"][2]


def test_processes_agree_on_the_plateau(both):
    assert [result["plateau"] for result in both] == [0.5, 0.5]


def test_processes_that_train_something_else_are_refused(both):
    for result in both:
        assert "process 1 is about to train something else" in result["compared"]


ENVIRONMENT = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_ADDR": ""}, "lacks torchrun's MASTER_ADDR"),
        ({"LOCAL_RANK": "", "MASTER_PORT": ""}, "lacks torchrun's LOCAL_RANK, MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number"),
        ({"RANK": "2"}, "RANK 2, LOCAL_RANK 0, WORLD_SIZE 2: ranks count from 0 to 1"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK 1"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        distributed.start(ENVIRONMENT | change)


def test_without_torchrun_there_is_one_process():
    distributed.start({"MASTER_ADDR": "127.0.0.1"})
    assert not distributed.running()
    assert (distributed.rank(), distributed.world(), distributed.first()) == (0, 1, True)
    value = torch.ones(2)
    assert distributed.mean(value) is value
    assert distributed.gather(value) is value
