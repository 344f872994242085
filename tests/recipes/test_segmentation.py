"""The recipe on scenes of three shapes: it learns, reports and resumes; frozen parts stay."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom
import darkroom.recipes
from darkroom.config import from_dict
from darkroom.errors import ConfigError, LayoutError
from darkroom.models.resnet import ResNet, ResNetConfig
from darkroom.models.segmentation.unet import SegmentationUNetConfig
from darkroom.models.segmentation.unet_resnet import SegmentationUNetResNetConfig
from darkroom.recipes import run, segmentation
from darkroom.recipes.segmentation import batch, crop, guesses, load_backbone, network
from darkroom.training.data.camvid import VOID, camvid
from darkroom.training.fit import Draw, FitOptions, Training
from darkroom.training.segmentation import Scores
from darkroom.weights.layouts.resnet import TORCHVISION
from darkroom.weights.save import write_tensors

RECIPE = """
recipe = "segmentation"
data = "{data}"
out = "{out}"
crop = [24, 32]
scale = [0.8, 1.25]
balance = 0.5
evaluate_every = 10
save_every = 5
{model}
[fit]
steps = {steps}
batch = 4
lr = 1e-2
warmup = 5
"""
UNET = "[unet]\nchannels = [8, 16, 16]"
ENCODER = ResNetConfig(channels=4, blocks=(1, 1, 1, 1))
RESNET = SegmentationUNetResNetConfig(encoder=ENCODER, channels=(12, 8, 8, 8, 8, 8))


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Sky (0) over road (3), a car (8) somewhere on it, and a void stripe."""
    folder = tmp_path_factory.mktemp("street")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        (folder / split).mkdir()
        (folder / f"{split}annot").mkdir()
        for i in range(count):
            labels = np.zeros((30, 40), np.uint8)
            horizon, car = rng.integers(8, 18), rng.integers(0, 28)
            labels[horizon:] = 3
            labels[horizon : horizon + 8, car : car + 12] = 8
            labels[:, 0] = VOID
            colours = np.zeros((12, 3), np.uint8)
            colours[[0, 3, 8]] = (150, 180, 250), (90, 90, 90), (200, 20, 20)
            noise = rng.integers(0, 6, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(colours[labels] + noise).save(folder / split / f"{i}.png")
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{i}.png")
    return folder


def config(street, tmp_path=Path("run"), **changes):
    given = {"unet": SegmentationUNetConfig(channels=(8, 16, 16)), **changes}
    return segmentation.Config(data=street, out=tmp_path, **given)


def resnet_config(street, **changes):
    return config(street, unet=None, resnet=RESNET, **changes)


def test_it_learns_and_reports(street, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(data=street, out=tmp_path / "run", model=UNET, steps=60))
    losses = [step.loss for step in run(path)]
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    rows = [json.loads(row) for row in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    noted = {key: value for row in rows for key, value in row.items()}
    assert noted["final_test_iou"] > 0.5
    assert 0 < noted["validation_iou"] <= 1
    report = (tmp_path / "run/report.html").read_text()
    for words in ("Intersection over union", "bicyclist", "mean IoU", "test, per pixel"):
        assert words in report
    with Image.open(tmp_path / "run/test.png") as sheet:
        assert sheet.size == (3 * 40, 3 * 30)
    model = darkroom.load(tmp_path / "run/model", dtype="float32")
    scores = Scores.of(segmentation.evaluate(model, camvid(street, "test")))
    assert scores.mean_iou == pytest.approx(noted["final_test_iou"])


def test_it_goes_on_with_the_same_losses(street, tmp_path):
    def losses(out, stop=None):
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.format(data=street, out=tmp_path / out, model=UNET, steps=12))
        steps, found = run(path), []
        for step in steps:
            found.append(step.loss)
            if len(found) == stop:
                steps.close()
        return found

    whole = losses("whole")
    assert losses("cut", stop=7) + losses("cut") == whole


def test_the_encoder_has_a_rate_of_its_own(street):
    settings = resnet_config(street, backbone_lr=0.1, fit=FitOptions(lr=1e-2))
    model = network(settings)
    groups = Training(model, settings.fit, segmentation.groups(model, settings)).optimizer
    assert [group["lr"] for group in groups.param_groups] == pytest.approx([1e-3, 1e-2])


def test_a_frozen_encoder_is_not_trained(street, tmp_path):
    settings = resnet_config(
        street, tmp_path=tmp_path, freeze_backbone=True, freeze_bn=True, crop=(32, 32),
        fit=FitOptions(steps=2, batch=2),
    )  # fmt: skip
    torch.manual_seed(settings.fit.seed)
    before = network(settings).encoder.state_dict()
    list(segmentation.train(settings))
    from darkroom.weights.files import read_tensors

    after = read_tensors(tmp_path / "network.safetensors")
    assert all(torch.equal(after[f"encoder.{name}"], tensor) for name, tensor in before.items())


def test_pretrained_encoders_are_read(street, tmp_path):
    torch.manual_seed(3)
    trained = ResNet(replace(ENCODER, classes=7))
    state = TORCHVISION.revert(trained.state_dict(), trained.config)
    write_tensors(tmp_path / "resnet.safetensors", state, {})
    model = network(resnet_config(street, backbone_weights=tmp_path / "resnet.safetensors"))
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model.eval().encoder.stages(x), trained.eval().stages(x), strict=True):
        assert torch.equal(ours, theirs)
    write_tensors(tmp_path / "other.safetensors", {"conv1.weight": torch.zeros(4, 3, 7, 7)}, {})
    with pytest.raises(LayoutError, match=r"other\.safetensors"):
        load_backbone(model, tmp_path / "other.safetensors")


def test_shares_of_a_draw_make_the_batch(street):
    settings, scenes = config(street, crop=(24, 32), fit=FitOptions(batch=4)), camvid(street)
    pixels, labels = batch(scenes, settings, Draw(0, 1))
    assert (pixels.shape, labels.shape) == ((4, 3, 24, 32), (4, 24, 32))
    for part in range(2):
        some, their = batch(scenes, settings, Draw(0, 1, part, 2))
        assert torch.equal(some, pixels[part::2])
        assert torch.equal(their, labels[part::2])


def test_crops_keep_pixels_and_labels_together():
    labels = torch.arange(12).repeat_interleave(2)[None].repeat(10, 1).byte()  # 10 x 24
    pixels = (labels * 20)[None].expand(3, -1, -1)
    for scale, mirror in ((1.0, False), (1.0, True), (2.0, False)):
        image, label = crop(pixels, labels, (8, 20), scale, torch.tensor([0.5, 0.9]), mirror)
        inner = image[0, :, 2:-2].round().byte(), (label * 20)[:, 2:-2]
        agreement = (inner[0] == inner[1]).float().mean()
        assert agreement > (0.99 if scale == 1 else 0.4)  # between two columns colours are mixed
    image, label = crop(pixels, labels, (16, 30), 1.0, torch.zeros(2), False)
    assert (label[10:] == VOID).all()
    assert (label[:, 24:] == VOID).all()
    assert not image[:, 10:].any()


def test_guesses_look_at_no_picture(street):
    everywhere, here = guesses(camvid(street))
    assert everywhere.item() in (0, 3)
    assert here.shape == (30, 40)
    assert here[0, 20] == 0
    assert here[-1, 20] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((UNET, ""), r"either a table \[unet\]"),
        ((UNET, UNET + "\n[resnet]"), r"either a table \[unet\]"),
        (("[0.8, 1.25]", "[2.0, 1.0]"), "scale"),
    ],
)
def test_a_wrong_file_is_refused_at_the_call(street, tmp_path, change, message):
    text = RECIPE.format(data=street, out=tmp_path, model=UNET, steps=1).replace(*change)
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "recipe.toml")


@pytest.mark.parametrize("name", ["camvid", "camvid-resnet"])
def test_shipped_files_are_in_order(name):
    path = Path(darkroom.recipes.__file__).with_name(f"{name}.toml")
    table = tomllib.loads(path.read_text("utf-8"))
    assert table.pop("recipe") == "segmentation"
    from_dict(segmentation.Config, table)
