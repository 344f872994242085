"""The trainer against loops written with torch alone, and its precisions."""

import math

import pytest
import torch
from torch import nn

from darkroom.errors import ConfigError, NonFiniteError
from darkroom.training.fit import FitOptions, Group, Training, fit, learning_rate

STEPS = 12
PLAIN = {"steps": STEPS, "batch": 8, "lr": 1e-2, "device": "cpu", "schedule": "constant"}


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Dropout(dropout), nn.Linear(16, 1))


def squares(model):
    def loss(draw):
        x = draw.share(torch.randn(8, 4, generator=draw.generator))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    return loss


def batches(options):
    from darkroom.training.fit import step_generator

    for step in range(options.steps):
        yield torch.randn(8, 4, generator=step_generator(options.seed, step))


@pytest.mark.parametrize("clip", [0.0, 0.3])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_run_is_torch_s_own_loop_bit_for_bit(name, clip):
    options = FitOptions(**PLAIN, optimizer=name, warmup=0, clip=clip, betas=(0.9, 0.999))
    model = network()
    found = [step.loss for step in fit(Training(model, options), squares(model))]

    other = network()
    if name == "adam":
        optimizer = torch.optim.Adam(other.parameters(), 1e-2, fused=True)
    else:
        decay = [p for p in other.parameters() if p.ndim > 1]
        rest = [p for p in other.parameters() if p.ndim == 1]
        groups = [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, 1e-2, fused=True)
    expected = []
    for x in batches(options):
        loss = (other(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(other.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert found == expected
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_torch_s_unfused_adam_is_the_same_mathematics():
    model, other = network(), network()
    options = FitOptions(**PLAIN, optimizer="adam", warmup=0, clip=0.0, betas=(0.9, 0.999))
    list(fit(Training(model, options), squares(model)))
    optimizer = torch.optim.Adam(other.parameters(), 1e-2)
    for x in batches(options):
        optimizer.zero_grad()
        (other(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_penalty_is_not_taken_for_weight_decay():
    assert FitOptions(optimizer="adam").decay == 0
    assert FitOptions().decay == 0.01
    assert FitOptions(weight_decay=0.0).decay == 0
    with pytest.raises(ValueError, match='use optimizer = "adamw"'):
        FitOptions(optimizer="adam", weight_decay=0.01)
    model = network()
    with pytest.raises(ConfigError, match="adamw"):
        Training(model, FitOptions(optimizer="adam"), [Group([model], 1e-3, 0.1)])


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_batch_in_parts_gives_the_losses_of_one_pass(parts):
    whole, pieces = network(), network()
    first = fit(Training(whole, FitOptions(**PLAIN)), squares(whole))
    second = fit(Training(pieces, FitOptions(**PLAIN, accumulate=parts)), squares(pieces))
    for a, b in zip(first, second, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-5)


def test_groups_have_rates_of_their_own():
    model = network()
    training = Training(
        model,
        FitOptions(**PLAIN, warmup=4),
        [Group([model[0]], 1e-3, 0.1), Group([model[3]], 1e-5)],
    )
    steps = fit(training, squares(model))
    next(steps)
    assert [group["lr"] for group in training.optimizer.param_groups] == [2.5e-4, 2.5e-6]
    assert [group["weight_decay"] for group in training.optimizer.param_groups] == [0.1, 0.0]
    with pytest.raises(ConfigError, match="exactly what is trained"):
        Training(model, FitOptions(**PLAIN), [Group([model[0]], 1e-3)])


def test_cycles_are_torch_s_cosine_stepped_on():
    options = FitOptions(steps=100, lr=0.5, warmup=0, schedule="cosine-cycles", period=7)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    for step in range(40):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(options, step) == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_plateau_is_torch_s():
    training = Training(network(), FitOptions(**PLAIN))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.8)
    generator, best = torch.Generator().manual_seed(2), math.inf
    for i in range(80):
        metric = 1 / (i + 1) + 0.2 * torch.rand((), generator=generator).item()
        metric = math.nan if i == 40 else round(metric, 2)
        better = training.plateau(metric)
        assert better == (metric < best * (1 - 1e-4))
        best = min(metric, best) if better else best
        scheduler.step(metric)
        assert training.rate == pytest.approx(optimizer.param_groups[0]["lr"])
    assert training.rate < 0.1


def test_a_lowered_rate_is_used_and_survives(tmp_path):
    model = network()
    training = Training(model, FitOptions(**PLAIN, warmup=0))
    for metric in (1.0, 2.0, 3.0):
        training.plateau(metric)
    training.save(tmp_path / "state.safetensors")
    again = Training(model, FitOptions(**PLAIN, warmup=0))
    again.load(tmp_path / "state.safetensors")
    assert (again.rate, again.best, again.waited) == (0.8, 1.0, 0)
    assert next(fit(again, squares(model))).lr == pytest.approx(0.8e-2)


def test_the_average_reaches_tied_weights():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[1].weight = model[0].weight
    training = Training(model, FitOptions(**PLAIN, ema=0.9))
    list(fit(training, lambda draw: model[1](model[0](torch.ones(1, 3))).square().sum()))
    averaged = training.averaged()
    assert torch.equal(averaged["0.weight"], averaged["1.weight"])
    assert not torch.equal(averaged["0.weight"], model[0].weight)


def test_a_state_without_an_average_begins_one(tmp_path):
    model = network()
    Training(model, FitOptions(**PLAIN)).save(tmp_path / "state.safetensors")
    training = Training(network(), FitOptions(**PLAIN, ema=0.9))
    training.load(tmp_path / "state.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(training.average, model.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_with_whole_weights(precision):
    model = network()
    seen = []
    model[3].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    options = FitOptions(**{**PLAIN, "steps": 60}, precision=precision, warmup=0)
    losses = [step.loss for step in fit(Training(model, options), squares(model))]
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
    assert set(seen) == {getattr(torch, precision)}
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_float16_steps_that_overflow_count_and_are_said(tmp_path):
    """The first scales are too large for these gradients; then a resumed run goes on as a whole."""

    def make():
        model = network()
        options = FitOptions(**PLAIN, precision="float16", ema=0.9)
        return Training(model, options), lambda draw: squares(model)(draw) * 300

    training, loss = make()
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=4)
    before = [p.clone() for p in training.parameters]
    steps, told = fit(training, loss), []
    for step in steps:
        told.append(step)
        if step.skipped:
            assert all(torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(before, training.average, strict=True))
            assert not math.isfinite(step.gradient_norm)
        before = [p.clone() for p in training.parameters]
        if training.step == 8:
            training.save(tmp_path / "state.safetensors")
    assert [step.index for step in told] == list(range(STEPS))
    assert told[0].skipped
    assert not told[-1].skipped

    again, loss = make()
    again.load(tmp_path / "state.safetensors")
    rest = [(step.loss, step.skipped) for step in fit(again, loss)]
    assert rest == [(step.loss, step.skipped) for step in told[8:]]
    assert again.scaler.get_scale() == training.scaler.get_scale()


def test_float16_without_any_finite_gradient_ends():
    model = network()
    hook = model[0].weight.register_hook(lambda gradient: gradient * math.nan)
    options = FitOptions(**{**PLAIN, "steps": 100}, precision="float16")
    with pytest.raises(NonFiniteError, match="gradient"):
        list(fit(Training(model, options), squares(model)))
    hook.remove()


def test_a_gradient_that_is_not_finite_spoils_nothing():
    model = network()
    training = Training(model, FitOptions(**PLAIN))
    model[0].weight.register_hook(lambda gradient: gradient / 0)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(NonFiniteError, match="the gradient is .* at step 0"):
        next(fit(training, squares(model)))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert training.steady


def test_dropout_is_seeded_and_the_caller_s_numbers_are_not(tmp_path):
    whole = network(0.5)
    expected = [step.loss for step in fit(Training(whole, FitOptions(**PLAIN)), squares(whole))]
    model, found = network(0.5), []
    torch.manual_seed(5)
    numbers = []
    for step in fit(Training(model, FitOptions(**PLAIN)), squares(model)):
        found.append(step.loss)
        numbers.append(torch.rand(()).item())  # an evaluation, say
    assert found == expected
    torch.manual_seed(5)
    assert numbers == [torch.rand(()).item() for _ in range(STEPS)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "at least 1"),
        ({"batch": 10, "accumulate": 4}, "does not split"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"ema": 1.0}, "below 1"),
        ({"clip": -1.0}, "clip at least 0"),
        ({"schedule": "cosine-cycles"}, "period"),
        ({"parallel": "sharded", "precision": "float16"}, "bfloat16"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        FitOptions(**change)
