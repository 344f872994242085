import math

import pytest
import torch
from torch import nn

from darkroom.errors import CheckpointError, NonFiniteError
from darkroom.training.fit import FitOptions, Training, fit, learning_rate

OPTIONS = FitOptions(steps=30, batch=8, lr=1e-2, warmup=5, ema=0.9, seed=3)


def make(options=OPTIONS):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 1))
    training = Training(model, options)

    def loss(draw):
        x = draw.share(torch.randn(8, 4, generator=draw.generator))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    return training, loss


def test_it_learns_and_reports():
    training, loss = make()
    steps = list(fit(training, loss))
    assert [step.index for step in steps] == list(range(30))
    assert steps[-1].loss < steps[0].loss / 2
    assert all(step.gradient_norm > 0 and step.samples_per_second > 0 for step in steps)


def test_a_resumed_run_repeats_the_losses_bit_for_bit(tmp_path):
    training, loss = make()
    whole = [step.loss for step in fit(training, loss)]

    first, loss = make()
    losses = []
    for step in fit(first, loss):
        losses.append(step.loss)
        if step.index == 11:
            break
    first.save(tmp_path / "state.safetensors")

    second, loss = make()
    second.load(tmp_path / "state.safetensors")
    losses += [step.loss for step in fit(second, loss)]
    assert losses == whole
    for a, b in zip(training.averaged().values(), second.averaged().values(), strict=True):
        assert torch.equal(a, b)


def test_the_average_is_not_the_weights_but_near():
    training, loss = make()
    list(fit(training, loss))
    now, averaged = training.model.state_dict(), training.averaged()
    gaps = [(now[name] - averaged[name]).abs().max().item() for name in now]
    assert 0 < max(gaps) < 0.5


def test_learning_rate_rises_then_falls_to_its_end():
    options = FitOptions(steps=100, lr=1.0, warmup=10, final_lr=0.1)
    assert learning_rate(options, 0) == pytest.approx(0.1, rel=1e-3)
    assert learning_rate(options, 99) == pytest.approx(0.1, abs=1e-2)
    assert learning_rate(options, 50) == pytest.approx(0.55, abs=1e-6)
    constant = FitOptions(steps=100, lr=1.0, warmup=10, schedule="constant")
    assert learning_rate(constant, 99) == 1.0


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights():
    training, loss = make()
    before = [p.clone() for p in training.parameters]
    steps = fit(training, lambda draw: loss(draw) * math.nan)
    with pytest.raises(NonFiniteError, match="step 0"):
        next(steps)
    assert all(torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True))


def test_a_state_of_another_model_is_refused(tmp_path):
    training, _ = make()
    training.save(tmp_path / "state.safetensors")
    other = Training(nn.Linear(4, 2), OPTIONS)
    with pytest.raises(CheckpointError, match="another model"):
        other.load(tmp_path / "state.safetensors")


def test_a_damaged_state_is_refused_in_one_line(tmp_path):
    training, _ = make()
    path = tmp_path / "state.safetensors"
    training.save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError) as caught:
        training.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
