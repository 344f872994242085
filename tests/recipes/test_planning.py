"""--dry-run's plan: measured on the recipes themselves, and nothing left behind."""

import pytest
import torch

import darkroom.recipes as recipes
from darkroom.errors import ConfigError, DataError
from darkroom.recipes.running.planning import PLANNER, Kept, plan
from recipes.test_recipes import AUTOENCODER, DIFFUSION, write


def files(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_plan_of_one_stage(captioned, tmp_path):
    path = write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "run", steps=12)
    before = files(tmp_path)
    made = recipes.plan(path)
    assert files(tmp_path) == before
    (data,) = made.data
    assert (data.kind, data.items, data.captioned) == ("imagefolder", 9, True)
    (stage,) = made.stages
    config = recipes.read(path)[1]
    from darkroom.models.autoencoder import Autoencoder

    parameters = sum(p.numel() for p in Autoencoder(config.model).parameters())
    assert sum(stage.parameters.values()) == stage.trained == parameters
    assert stage.gradients == stage.average == 4 * parameters
    assert stage.optimizer == 8 * parameters
    assert stage.activations > 8 * 16 * 16 * 3 * 4
    assert stage.memory == sum(
        (
            stage.weights, stage.gradients, stage.optimizer, stage.average, stage.activations,
            stage.data,
        )
    )  # fmt: skip
    assert stage.data == 9 * 4 * 16 * 16
    assert (stage.steps, stage.done, stage.batch) == (12, 0, 8)
    assert stage.seconds == pytest.approx(12 * stage.seconds_per_step)
    assert PLANNER.get() is None


def test_a_plan_knows_what_is_done_and_changes_nothing(captioned, tmp_path):
    path = write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "run", steps=12)
    steps = recipes.run(path)
    losses = [next(steps).loss for _ in range(5)]
    steps.close()
    state = (tmp_path / "run" / "state.safetensors").read_bytes()
    (stage,) = recipes.plan(path).stages
    assert (stage.done, stage.folder) == (5, ".")
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == state
    losses += [step.loss for step in recipes.run(path)]
    whole = write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "whole", steps=12)
    assert losses == [step.loss for step in recipes.run(whole)]


def test_a_plan_of_two_stages(captioned, tmp_path):
    first = write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "first", steps=2)
    list(recipes.run(first))
    text = DIFFUSION + "[text_fit]\nsteps = 5\nbatch = 4\n"
    path = write(
        tmp_path, text, data=captioned, out=tmp_path / "run", steps=7,
        autoencoder=tmp_path / "first" / "autoencoder.safetensors",
    )  # fmt: skip
    made = recipes.plan(path)
    assert [(stage.folder, stage.steps) for stage in made.stages] == [("text", 5), (".", 7)]
    assert list(made.stages[1].parameters) == ["reader", "unet"]
    assert not (tmp_path / "run").exists()


def test_what_stops_a_run_stops_its_plan(captioned, tmp_path):
    path = write(tmp_path, AUTOENCODER, data=tmp_path, out=tmp_path / "run", steps=12)
    with pytest.raises(DataError, match="no data set that is known here"):
        recipes.plan(path)
    with pytest.raises(ConfigError, match="stepz"):
        recipes.plan(path, assignments=["fit.stepz=1"])


def test_no_model_is_built_for_nothing(tmp_path, monkeypatch):
    def build(*_):
        raise AssertionError("built a model")

    monkeypatch.setattr("darkroom.recipes.autoencoder.Autoencoder", build)
    (tmp_path / "metadata.jsonl").write_text("")
    path = write(tmp_path, AUTOENCODER, data=tmp_path, out=tmp_path / "run", steps=12)
    with pytest.raises(DataError, match="no pictures"):
        next(recipes.run(path))
    assert not (tmp_path / "run").exists()


def test_assignments(captioned, tmp_path):
    path = write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "run", steps=12)
    _, config = recipes.read(path, {"out": "there"}, ["fit.steps=3", "fit.schedule=constant"])
    assert (config.fit.steps, config.fit.schedule, str(config.out)) == (3, "constant", "there")
    with pytest.raises(ConfigError, match=r"recipe\.toml: fit\.steps: expected a whole number"):
        recipes.read(path, None, ["fit.steps=many"])


def test_a_stage_that_needs_the_one_before_is_noted(captioned, tmp_path):
    from darkroom.recipes.autoencoder import train

    _, config = recipes.read(
        write(tmp_path, AUTOENCODER, data=captioned, out=tmp_path / "run", steps=4)
    )

    def two(config):
        yield from train(config)
        raise ValueError("the first stage has not learned anything")

    made = plan(two, config, stages=2)
    assert len(made.stages) == 1
    assert "has not learned anything" in made.notes[0]


def test_memory_for_the_backward_pass_is_counted():
    layer = torch.nn.Linear(100, 50)
    x = torch.randn(10, 100, requires_grad=True)
    kept = Kept(list(layer.parameters()))
    for _ in range(2):  # the second pass adds nothing
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            layer(x).tanh().sum().backward()
    assert kept.most == 4 * (10 * 100 + 10 * 50)
    assert kept.now == 0
