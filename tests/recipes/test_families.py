"""The four families: each recipe learns, resumes with the same losses; the comparison judges."""

import itertools
import json

import pytest
import torch

from darkroom.recipes import compare_families, flow, gan, run, vae
from darkroom.recipes.compare_families import Config
from darkroom.training.data import idx

FIT = """
steps = {steps}
batch = 16
lr = {lr}
warmup = 1
ema = 0.8
"""
GAN = """
[{at}model]
latent = 8
channels = [8, 16]
[{at}fit]
optimizer = "adam"
clip = 0.0
betas = [0.5, 0.99]
"""
VAE = """
[{at}model]
latent = 4
channels = [8, 16]
hidden = 16
[{at}fit]
"""
FLOW = """
[{at}model]
steps = [1, 2]
hidden = [8, 16]
[{at}fit]
"""
DIFFUSION = """
[{at}model]
channels = [8, 16]
attention = [false, true]
blocks = 1
groups = 4
[{at}fit]
"""
MODELS = {"gan": GAN, "vae": VAE, "flow": FLOW}


def recipe(folder, digits, name, steps):
    path = folder / f"{name}.toml"
    head = f'recipe = "{name}"\ndata = "{digits}"\nout = "{folder / "run"}"\nsave_every = 10\n'
    head += "generator_lr = 5e-3\n" if name == "gan" else ""
    path.write_text(head + MODELS[name].format(at="") + FIT.format(steps=steps, lr=5e-3))
    return path


@pytest.mark.parametrize("name", ["vae", "flow"])
def test_the_bits_fall(digits, tmp_path, name):
    losses = [step.loss for step in run(recipe(tmp_path, digits, name, 60))]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    last = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 < last[-1]["bits_per_dimension"] < 8
    assert (tmp_path / "run" / f"{name}.safetensors").is_file()
    assert (tmp_path / "run" / "samples.png").is_file()


def test_the_generator_comes_nearer(digits, tmp_path):
    """What it draws is, on average, as dark as the digits: it begins with grey."""
    for _ in run(recipe(tmp_path, digits, "gan", 120)):
        pass
    model = compare_families._restored(
        tmp_path / "run" / "gan.safetensors", compare_families.GAN, compare_families.GANConfig
    )
    drawn = model.sample(64, torch.Generator().manual_seed(0)) / 2 + 0.5
    real = (idx(digits).pixels / 255).mean(0)
    assert (drawn.mean(0) - real).abs().mean() < 0.5 * (0.5 - real).abs().mean()


@pytest.mark.parametrize("name", list(MODELS))
def test_a_resumed_run_repeats_the_losses(digits, tmp_path, name):
    for place in ("whole", "cut"):
        (tmp_path / place).mkdir()
    whole = [step.loss for step in run(recipe(tmp_path / "whole", digits, name, 12))]
    path = recipe(tmp_path / "cut", digits, name, 12)
    first = [step.loss for step in itertools.islice(run(path), 5)]
    assert first + [step.loss for step in run(path)] == whole


@pytest.mark.slow
def test_one_page_compares_the_four(digits, tmp_path):
    path, out = tmp_path / "compare.toml", tmp_path / "out"
    classifier = tmp_path / "judge.toml"
    classifier.write_text(
        f'recipe = "digit-classifier"\ndata = "{digits}"\nout = "{tmp_path / "judge"}"\n'
        "[model]\nchannels = [8, 8, 8]\nfeatures = 8\n[fit]\nsteps = 5\nbatch = 16\n"
    )
    for _ in run(classifier):
        pass
    text = f'recipe = "compare-families"\ndata = "{digits}"\nout = "{out}"\nsamples = 60\n'
    text += f'classifier = "{tmp_path / "judge"}"\n[diffusion]\nsteps = 3\n'
    for name, model in {**MODELS, "diffusion": DIFFUSION}.items():
        text += model.format(at=f"{name}.") + FIT.format(steps=4, lr=1e-3)
    path.write_text(text)
    steps = run(path)
    first = [(step.index, step.loss) for step in itertools.islice(steps, 6)]
    steps.close()  # pyright: ignore[reportAttributeAccessIssue]
    rest = [(step.index, step.loss) for step in run(path)]  # the GAN is done, the VAE goes on
    assert [i for i, _ in first + rest] == list(range(4)) * 4
    facts = json.loads((out / "families.json").read_text())
    assert [row["family"] for row in facts["rows"]] == [
        "real digits", "GAN", "VAE", "flow (Glow)", "diffusion",
    ]  # fmt: skip
    for row in facts["rows"][1:]:
        assert row["parameters"] > 0 and row["images seen"] == 64 and row["CPU s per 1,000"] > 0
        assert sum(row["share of each digit"]) == pytest.approx(1, abs=0.01)
    page = (out / "report.html").read_text()
    assert page.count("<figure>") == 4 and "Side by side" in page
    assert (out / "families.png").is_file()
    assert [row["bits/dim"][:2] for row in facts["rows"][1:3]] == ["no", "<="]
    assert float(facts["rows"][4]["bits/dim"].split()[1]) > 0
    assert list(run(path)) == []  # nothing is left; the page is written again from what was drawn


def test_likelihoods_are_measured_in_bits(digits):
    """Before training, a flow that is the identity still costs about eight bits or more."""
    held_out = idx(digits, train=False)
    torch.manual_seed(0)
    network = flow.Flow(flow.FlowConfig(steps=(1, 1), hidden=(8, 8)))
    assert flow.bits(network, held_out, 20) > 8
    coder = vae.VAE(vae.VAEConfig(channels=(4, 8), hidden=8, latent=2))
    assert vae.bits(coder, held_out, 20, draws=4) <= vae.bits(coder, held_out, 20) + 0.01


def test_the_diffusion_family_is_the_recipe_of_pixels(tmp_path):
    config = Config(data=tmp_path, out=tmp_path / "out")
    assert config.pixel_diffusion.out == tmp_path / "out" / "diffusion"
    assert config.pixel_diffusion.samples == 0
    assert config.gan == gan.Config()
