"""Diffusion on digits: the printed recipe against its formulas, the correct one at work."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
from cases import quick
from darkroom.models.unconditional_unet import MNIST, MNIST_CONDITIONAL, UnconditionalUNetConfig
from darkroom.recipes import mnist, run
from darkroom.recipes import mnist_book as book
from darkroom.recipes import pixel_diffusion as pixels
from darkroom.training.data import idx
from darkroom.training.fit import FitOptions, learning_rate

MODEL = """
[model]
channels = [8, 16]
attention = [false, true]
blocks = 1
groups = 4
head_channels = 8
"""
CORRECT = (
    """
recipe = "mnist"
data = "{data}"
out = "{out}"
conditional = {conditional}
gamma = 5.0
evaluate_every = 4
save_every = 5
held_out = 20
steps = 3
samples = 20
classifier = "{classifier}"
"""
    + MODEL
    + """
[fit]
steps = {steps}
batch = 8
lr = 3e-3
warmup = 2
ema = 0.9
"""
)
BOOK = (
    """
recipe = "mnist"
data = "{data}"
out = "{out}"
mode = "book"
conditional = {conditional}
save_every = 5
evaluate_every = 4
"""
    + MODEL
    + """
[fit]
steps = {steps}
batch = 16
optimizer = "adam"
lr = 1e-3
warmup = 0
schedule = "cosine-cycles"
period = 15
clip = 0.0
weight_decay = 0.0
betas = [0.9, 0.999]
"""
)
JUDGE = """
recipe = "digit-classifier"
data = "{data}"
out = "{out}"
[model]
channels = [4, 4, 4]
features = 8
[fit]
steps = 4
"""


def recipe(folder, text, **values):
    path = folder / "recipe.toml"
    path.write_text(text.format(**values))
    return path


@pytest.fixture(scope="module")
def judge(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    for _ in run(recipe(folder, JUDGE, data=digits, out=folder / "out")):
        pass
    return folder / "out"


# --- as printed


def test_the_printed_networks():
    with torch.device("meta"):
        plain = book.BookNetwork(book.BookConfig(unet=MNIST))
        conditional = book.BookNetwork(book.BookConfig(classes=10, unet=MNIST))
    trained = [p for p in conditional.parameters() if p.requires_grad]
    assert sum(p.numel() for p in plain.parameters()) == 10_975_329
    assert sum(p.numel() for p in trained) == 10_984_545  # without the code of 10 x 32
    assert conditional.unet.config == MNIST_CONDITIONAL


def test_the_shipped_recipes_are_the_printed_ones():
    for name, conditional in (("mnist-book", False), ("mnist-conditional-book", True)):
        path = mnist.__file__.replace("mnist.py", f"{name}.toml")
        config = shipped(path)
        assert config.mode == "book" and config.conditional == conditional
        assert (config.model.channels, config.model.attention) == (MNIST.channels, MNIST.attention)
        assert (config.model.head_channels, config.model.groups, config.model.blocks) == (8, 32, 1)
        fit = config.fit
        assert (fit.optimizer, fit.lr, fit.batch, fit.betas) == ("adam", 1e-3, 128, (0.9, 0.999))
        assert (fit.weight_decay, fit.clip, fit.ema, fit.steps) == (0, 0, 0, 50 * 469)


def shipped(path):
    import tomllib
    from pathlib import Path

    from darkroom.config import from_dict

    table = tomllib.loads(Path(path).read_text())
    table.pop("recipe")
    return from_dict(mnist.Config, table)


def test_the_printed_learning_rate():
    """Per batch, and T_max = the batches of an epoch: down in the first epoch, up in the second."""
    options = FitOptions(lr=1e-3, warmup=0, schedule="cosine-cycles", period=469, optimizer="adam")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=469)
    for step in range(2 * 469 + 5):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(options, step) == pytest.approx(expected, rel=1e-6, abs=1e-10)
        optimizer.step()
        scheduler.step()


def test_noise_as_printed():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    clean, noise = torch.rand(4, 1, 8, 8), torch.randn(4, 1, 8, 8)
    t = torch.tensor([0, 10, 499, 999])
    ours = book.add_noise(clean, noise, book.alphas()[t])
    torch.testing.assert_close(ours, scheduler.add_noise(clean, noise, t), rtol=1e-5, atol=1e-5)
    assert book.alphas()[499].item() == pytest.approx(0.07859, abs=1e-5)
    assert book.alphas()[999].item() == pytest.approx(4.036e-5, abs=1e-8)


def test_the_printed_timesteps():
    times = book.log_timesteps(100)
    assert len(times) == 100 and times[0] == 999 and times[-1] == 1
    assert all(a >= b for a, b in itertools.pairwise(times))
    assert book.log_timesteps(6) == [999, 262, 69, 18, 4, 1]  # the titles of the printed grid


def test_sampling_noises_each_estimate_again():
    class Half(torch.nn.Linear):  # a network that says: half of what you gave me, at any t
        def __init__(self):
            super().__init__(1, 1)
            self.seen = []

        def forward(self, x, t, label=None):
            self.seen.append((x, t, label))
            return x / 2

    model, times = Half(), [999, 100, 1]
    frames = book.progressive(model, 2, times, torch.Generator().manual_seed(3))
    g = torch.Generator().manual_seed(3)
    x = torch.randn(2, 1, 32, 32, generator=g)
    betas = torch.linspace(1e-4, 0.02, 1000)
    for frame, t, (seen, told, _) in zip(frames[1:], times, model.seen, strict=True):
        assert torch.equal(seen, x) and told.tolist() == [t, t]
        share = (1 - betas[: t + 1]).prod()
        x = share**0.5 * x / 2 + (1 - share) ** 0.5 * torch.randn(2, 1, 32, 32, generator=g)
        torch.testing.assert_close(frame, x, rtol=1e-3, atol=1e-4)
        x = frame

    model = Half()
    (digits,) = book.estimates(model, 10, [999], torch.Generator().manual_seed(3))
    noise = torch.randn(10, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    expected = ((1 - book.alphas()[999]) ** 0.5 * noise / 2).clamp(0, 1)
    torch.testing.assert_close(digits, expected)
    assert len(model.seen) == 1 and model.seen[0][2].tolist() == list(range(10))


def test_the_class_is_concatenated_as_a_fixed_code():
    torch.manual_seed(0)
    config = book.BookConfig(
        classes=10, unet=UnconditionalUNetConfig(
            in_channels=1, out_channels=1, channels=(8,), attention=(False,), blocks=1, groups=4
        ),
    )  # fmt: skip
    network = book.BookNetwork(config).eval()
    x, label = torch.randn(3, 1, 8, 8), torch.tensor([1, 1, 7])
    code = network.code.weight[label]
    wide = torch.cat((x, code.view(3, 32, 1, 1).expand(3, 32, 8, 8)), 1)
    assert wide.shape == (3, 33, 8, 8)
    t = torch.full((3,), 5)
    assert torch.equal(network(x, t, label), network.unet(wide, t))
    assert not network.code.weight.requires_grad


def test_an_epoch_visits_every_digit_once():
    parts = [book.epoch_part(50, 16, step, seed=1) for step in range(8)]
    assert [len(part) for part in parts] == [16, 16, 16, 2] * 2
    first, second = torch.cat(parts[:4]), torch.cat(parts[4:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()


def test_digits_are_enlarged_as_torchvision_does(digits):
    transforms = pytest.importorskip("torchvision.transforms")
    images = idx(digits)
    as_printed = transforms.Compose([transforms.Resize(32), transforms.ToTensor()])
    expected = [as_printed(Image.fromarray(images.pixels[i, 0].numpy())) for i in (3, 7)]
    ours = book.resized(images, torch.tensor([3, 7]))
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("conditional", ["false", "true"])
def test_book_mode_runs_and_resumes(digits, tmp_path, conditional):
    values = {"data": digits, "conditional": conditional, "steps": 7}
    whole = [s.loss for s in run(recipe(tmp_path, BOOK, out=tmp_path / "whole", **values))]
    assert whole[-1] < whole[0]
    names = ("one-step", "progressive") if conditional == "true" else ("samples",)
    sizes = {"one-step": (340, 34), "progressive": (204, 354), "samples": (374, 170)}
    for name in names:
        with Image.open(tmp_path / "whole" / f"{name}.png") as picture:
            assert picture.size == sizes[name]
    model = dr.load(tmp_path / "whole" / "model")
    assert model.unet.config.in_channels == (33 if conditional == "true" else 1)

    path = recipe(tmp_path, BOOK, out=tmp_path / "cut", **values)
    first = [s.loss for s in itertools.islice(run(path), 5)]
    assert first + [s.loss for s in run(path)] == whole


# --- as meant


@pytest.mark.parametrize("conditional", quick(["true"], ["false", "true"]))
def test_correct_mode_learns_resumes_and_is_judged(digits, judge, tmp_path, conditional):
    values = {"data": digits, "conditional": conditional, "steps": 16, "classifier": judge}
    whole = [s.loss for s in run(recipe(tmp_path, CORRECT, out=tmp_path / "whole", **values))]
    assert np.mean(whole[-4:]) < np.mean(whole[:4])
    judged = json.loads((tmp_path / "whole" / "judged.json").read_text())
    assert ("read_as_asked" in judged) == (conditional == "true")
    assert judged["frechet"] > 0 and judged["frechet_real"] > 0 and judged["frechet_halves"] > 0
    for name in ("samples", "noised"):
        assert (tmp_path / "whole" / f"{name}.png").is_file()
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "validation loss" in page.replace("_", " ") and "x_t = picture + noise" in page

    path = recipe(tmp_path, CORRECT, out=tmp_path / "cut", **values)
    first = [s.loss for s in itertools.islice(run(path), 7)]
    assert first + [s.loss for s in run(path)] == whole


@pytest.mark.parametrize("conditional", ["false", "true"])
def test_the_model_folder_is_diffusers_own(digits, judge, tmp_path, conditional):
    diffusers = pytest.importorskip("diffusers")
    values = {"data": digits, "conditional": conditional, "steps": 2, "classifier": judge}
    for _ in run(recipe(tmp_path, CORRECT, out=tmp_path, **values)):
        pass
    ours = dr.load(tmp_path / "model")
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "model").eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "model")
    assert ours.settings["size"] == (28, 28) and theirs.config.sample_size == 28
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    label = torch.tensor([4, 10]) if conditional == "true" else None
    with torch.no_grad():
        expected = theirs(x, t, label).sample
        output = ours.unet(x, t) if label is None else ours.unet(x, t, label)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    table = torch.tensor(ours.schedule.sigmas)
    torch.testing.assert_close(1 / (1 + table**2), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6)
    scheduler.set_timesteps(10)
    levels = ours.sampling.levels(10, "ddpm")
    assert list(levels.timesteps) == scheduler.timesteps.tolist()
    assert scheduler.config.prediction_type == "epsilon" and scheduler.config.clip_sample


def test_a_set_without_a_judge_trains_one(digits, tmp_path, monkeypatch):
    """Without `classifier`, the recipe digit-classifier runs at the end, in the same folder."""
    asked = []

    def shipped(path, overrides):
        asked.append((path.name, overrides))
        for _ in run(recipe(tmp_path, JUDGE, **overrides)):
            pass
        return iter(())

    monkeypatch.setattr(pixels, "train_shipped", shipped)
    text = "\n".join(line for line in CORRECT.splitlines() if not line.startswith("classifier"))
    values = {"data": digits, "conditional": "true", "steps": 1}
    for _ in run(recipe(tmp_path, text, out=tmp_path / "out", **values)):
        pass
    assert asked[0][0] == "digit-classifier.toml"
    assert (tmp_path / "out" / "judged.json").is_file()


def test_colour_sets_are_read_from_tars(tmp_path):
    import io
    import tarfile

    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"tiny-{part}.tar", "w") as tar:
            for i in range(12):
                values = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                data = io.BytesIO()
                Image.fromarray(values).save(data, "PNG")
                info = tarfile.TarInfo(f"{'ab'[i % 2]}/{i}.png")
                info.size = data.tell()
                tar.addfile(info, io.BytesIO(data.getvalue()))
    text = CORRECT.replace('"mnist"', '"pixel-diffusion"').replace("gamma", "mirror = true\ngamma")
    values = {"data": tmp_path / "tiny-train.tar", "conditional": "true", "steps": 2}
    path = recipe(tmp_path, text, out=tmp_path / "out", classifier="none", **values)
    assert [s.index for s in run(path)] == [0, 1]
    model = dr.load(tmp_path / "out" / "model")
    assert (model.unet.config.in_channels, model.unet.config.classes) == (3, 3)
    assert not (tmp_path / "out" / "judged.json").exists()
