"""The two segmenters' recipes on scenes of three shapes: they learn, report, resume and load."""

import json

import pytest

from darkroom.errors import CheckpointError, ConfigError
from darkroom.models.fastsam.network import FastSAM
from darkroom.recipes import run
from darkroom.recipes.segmenters import fastsam, segment_anything
from darkroom.training.data.scenes import SceneOptions
from darkroom.weights.load import load

SAM = """
recipe = "segment-anything"
data = "{data}"
out = "{out}"
loss = "balanced"
objects = 2
clicks = 1
evaluate_every = 20
evaluated = 6
save_every = 10
[scenes]
size = 32
things = [1, 2]
scale = [0.4, 0.7]
textured = 0.0
[model]
size = 32
channels = 32
mask_channels = 4
[model.encoder]
channels = [16, 32]
blocks = [1, 1]
heads = [2]
windows = [4]
strides = [2]
[model.decoder]
heads = 2
hidden = 32
iou_hidden = 16
[fit]
steps = {steps}
batch = 8
lr = 4e-3
warmup = 5
"""


def write(folder, text, **values):
    path = folder / "recipe.toml"
    path.write_text(text.format(**values))
    return path


@pytest.fixture(scope="module")
def shapes(captioned, tmp_path_factory):
    """The nine cut-outs under 30 names, of which some are kept aside."""
    folder = tmp_path_factory.mktemp("cutouts")
    for i in range(30):
        (folder / f"shape {i}.png").write_bytes((captioned / f"{i % 9}.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def sam_run(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam")
    steps = list(run(write(folder, SAM, data=shapes, out=folder / "run", steps=50)))
    return folder, [step.loss for step in steps]


def test_sam_learns_and_reports(sam_run):
    folder, losses = sam_run
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    rows = [json.loads(row) for row in (folder / "run/log.jsonl").read_text().splitlines()]
    noted = {key: value for row in rows for key, value in row.items()}
    assert noted["final_iou_box"] > 0.1
    assert {"iou_one_click", "iou_three_clicks", "iou_box"} <= noted.keys()
    assert (folder / "run/samples.png").is_file()


def test_sam_resumes_bit_for_bit(sam_run, shapes, tmp_path):
    _, losses = sam_run
    path = write(tmp_path, SAM, data=shapes, out=tmp_path / "run", steps=50)
    steps = run(path)
    for _ in range(10):
        next(steps)
    steps.close()
    again = [step.loss for _, step in zip(range(3), run(path), strict=False)]
    assert again == losses[10:13]


def test_it_goes_on_from_another_size(sam_run, shapes, tmp_path):
    begin = f'begin = "{sam_run[0] / "run/network.safetensors"}"\n[scenes]'
    text = SAM.replace("size = 32", "size = 48").replace("[scenes]", begin)
    losses = [
        step.loss for step in run(write(tmp_path, text, data=shapes, out=tmp_path / "run", steps=3))
    ]
    assert losses[0] < 0.9 * sam_run[1][0]
    other = text.replace("blocks = [1, 1]", "blocks = [1, 2]")
    with pytest.raises(CheckpointError, match=r"only model\.size may differ"):
        next(run(write(tmp_path, other, data=shapes, out=tmp_path / "other", steps=3)))


def test_sizes_must_agree(shapes, tmp_path):
    path = write(tmp_path, SAM.replace("size = 32\nthings", "size = 48\nthings"),
                 data=shapes, out=tmp_path / "run", steps=1)  # fmt: skip
    with pytest.raises(ConfigError, match=r"scenes\.size and model\.size alike"):
        run(path)


def test_parts_of_a_batch_are_those_of_the_whole(shapes, tmp_path):
    from darkroom.recipes import read
    from darkroom.training.fit import Draw

    _, config = read(write(tmp_path, SAM, data=shapes, out=tmp_path / "run", steps=1))
    composer, _ = segment_anything.composers(config.data, (), 0, config.scenes)
    whole, part = Draw(0, 3), Draw(0, 3, part=1, parts=2)
    scenes = [segment_anything.composed(composer, draw, 8) for draw in (whole, part)]
    asked = [
        segment_anything.targets(seen, config, draw)
        for seen, draw in zip(scenes, (whole, part), strict=True)
    ]
    rows = [2, 3, 6, 7, 10, 11, 14, 15]  # two objects of each of the scenes 1, 3, 5, 7
    assert (asked[0].truth[rows] == asked[1].truth).all()
    assert (asked[0].chance[rows] == asked[1].chance).all()


FASTSAM = """
recipe = "fastsam"
data = "{data}"
out = "{out}"
evaluate_every = 20
evaluated = 4
save_every = 10
[scenes]
size = 32
oblong = 0.3
things = [1, 2]
scale = [0.4, 0.8]
textured = 0.0
[model]
size = 32
channels = [4, 8, 8, 16, 16]
pairs = [1, 1, 1, 1]
bins = 8
coefficients = 4
box_channels = 8
class_channels = 8
coefficient_channels = 8
prototype_channels = 8
[fit]
steps = {steps}
batch = 8
lr = 1e-2
warmup = 5
"""


def test_fastsam_learns_and_reports(shapes, tmp_path):
    path = write(tmp_path, FASTSAM, data=shapes, out=tmp_path / "run", steps=60)
    losses = [step.loss for step in run(path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    rows = [json.loads(row) for row in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    noted = {key: value for row in rows for key, value in row.items()}
    assert {"ap50", "ap75", "recall75", "final_ar"} <= noted.keys()
    model = load(tmp_path / "run/model")
    assert isinstance(model, FastSAM)
    composer, _ = segment_anything.composers(shapes, (), 0, SceneOptions(size=32))
    masks, scores = fastsam.instances(model.float(), composer.scene(0), 32)
    assert masks.shape == (len(scores), 32, 32) and (scores.diff() <= 0).all()


def test_fastsam_s_sizes_are_checked(shapes, tmp_path):
    text = FASTSAM.replace("size = 32\noblong", "size = 64\noblong")
    with pytest.raises(ConfigError, match=r"scenes\.size and model\.size alike"):
        run(write(tmp_path, text, data=shapes, out=tmp_path / "run", steps=1))
