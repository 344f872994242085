"""Both modes learn to tell coloured shapes apart, resume with equal losses, and open again."""

import json
from importlib import resources

import pytest
import torch

from darkroom.errors import ConfigError, DataError, ModelMismatchError
from darkroom.models.contrastive import ContrastiveModel
from darkroom.models.dual_encoder import DualEncoder
from darkroom.recipes import run
from darkroom.recipes.clip import Captions, book, retrieval
from darkroom.recipes.clip.book import Rows
from darkroom.text.wordpiece import WordPiece
from darkroom.training.data.flickr8k import flickr8k
from darkroom.training.saving import read_state
from darkroom.vision.encoder import open_encoder
from darkroom.weights.save import save
from two_processes import run as on_two
from vision import things

CORRECT = """
recipe = "clip"
data = "{data}"
out = "{out}"
loss = "{loss}"
vocabulary = 560
margin = 1.25
least_area = 0.8
query = "a blue cross"
evaluate_every = {steps}
save_every = 10
[model]
size = 16
channels = [8, 16]
blocks = [0, 1]
embedding = 16
[model.text]
positions = 16
channels = 32
layers = 1
heads = 2
hidden = 64
[fit]
steps = {steps}
batch = 8
accumulate = {accumulate}
lr = 5e-3
warmup = 5
final_lr = 0.1
ema = 0.9
"""
BOOK = """
recipe = "clip"
mode = "book"
data = "{data}"
out = "{out}"
query = "a blue cross"
evaluate_every = 5
save_every = 5
[book]
size = 32
image_lr = 2e-3
text_lr = 2e-3
head_lr = 5e-3
{more}
[book.model]
projection = 16
[book.model.image]
channels = 4
blocks = [1, 1]
[book.model.text]
positions = 24
channels = 16
layers = 1
heads = 2
hidden = 32
[fit]
steps = {steps}
batch = 8
warmup = 0
schedule = "constant"
betas = [0.9, 0.999]
"""


@pytest.fixture(scope="module")
def flickr(tmp_path_factory):
    """27 shapes in Kaggle's layout, with lists of 18, 0 and 9: every shape is in both."""
    folder = tmp_path_factory.mktemp("flickr")
    (folder / "Images").mkdir()
    lines, train, test = ["image,caption"], [], []
    for number, shift in enumerate((-2, 2, 0)):
        for colour in things.COLOURS:
            for shape in things.SHAPES:
                name = f"{number}-{colour}-{shape}.png"
                things.draw(colour, shape, shift).save(folder / "Images" / name)
                lines += [f"{name},{text}" for text in things.captions(colour, shape)]
                (train if number < 2 else test).append(name)
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    for split, names in (("train", train), ("dev", test), ("test", test)):
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names))
    return folder


def write(folder, text, **values):
    path = folder / "recipe.toml"
    values = {"loss": "infonce", "accumulate": 1, "more": "", **values}
    path.write_text(text.format(out=folder / "run", **values))
    return path


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_the_correct_mode_learns_and_leaves_a_model(flickr, tmp_path, loss):
    losses = [s.loss for s in run(write(tmp_path, CORRECT, data=flickr, steps=120, loss=loss))]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    out = tmp_path / "run"
    facts = json.loads((out / "recall.json").read_text())
    assert facts["images"] == 9
    assert facts["chance"]["text to image"] == [1 / 9, 5 / 9, 1.0]
    for direction in ("text to image", "image to text"):
        assert facts["recall"][direction][0] > 3 * facts["chance"][direction][0]
    report = (out / "report.html").read_text()
    assert "Recall on 9 images with 45 captions (test)" in report
    assert "by chance" in report
    assert "a blue cross" in report
    assert (out / "matches.png").is_file()
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["text_to_image_recall_at_10"] == 1.0  # of nine

    encoder = open_encoder(out / "model", "cpu")
    assert isinstance(encoder.model, ContrastiveModel)
    pictures = {c: encoder.read(things.draw(c, "cross")) for c in things.COLOURS}
    scores = (
        encoder.images(torch.stack(list(pictures.values())))
        @ encoder.texts([f"the {colour} cross ." for colour in pictures]).T
    )
    assert scores.argmax(0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("text", [CORRECT, BOOK], ids=["correct", "book"])
def test_a_resumed_run_repeats_the_losses(flickr, tmp_path, text):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = [s.loss for s in run(write(tmp_path / "whole", text, data=flickr, steps=12))]
    path = write(tmp_path / "parts", text, data=flickr, steps=12)
    parts = []
    steps = run(path)
    for step in steps:
        parts.append(step.loss)
        if step.index == 4:
            break
    steps.close()
    parts += [step.loss for step in run(path)]
    assert parts == whole


def on_each(paths):
    return [[(step.loss, step.gradient_norm) for step in run(path)] for path in paths]


@pytest.mark.slow
def test_two_processes_compare_all_pairs(flickr, tmp_path):
    text = CORRECT.replace("[model]\n", "[model]\ndropout = 0.0\n", 1)
    paths = {}
    for count in ("one", "two"):
        paths[count] = []
        for loss in ("infonce", "siglip"):
            folder = tmp_path / count / loss
            folder.mkdir(parents=True)
            paths[count].append(write(folder, text, data=flickr, steps=4, loss=loss))
    alone = on_each(paths["one"])
    for told in on_two(on_each, paths["two"]):
        for one, two in zip(alone, told, strict=True):
            for (value, norm), (expected, its_norm) in zip(two, one, strict=True):
                assert value == pytest.approx(expected, rel=1e-5)
                assert norm == pytest.approx(its_norm, rel=1e-3)


def test_the_book_s_mode_learns_and_keeps_the_best(flickr, tmp_path):
    losses = [s.loss for s in run(write(tmp_path, BOOK, data=flickr, steps=60))]
    assert sum(losses[-10:]) < sum(losses[:10])
    out = tmp_path / "run"
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    values = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    assert set(range(5, 61, 5)) <= set(values)
    facts = json.loads((out / "recall.json").read_text())
    assert facts["split"] == "book-validation"
    assert facts["images"] == 5  # int(0.2 * 27)
    best = min(values.values())
    tensors, plain = read_state(out / "best.safetensors")
    assert plain["loss"] == best == values[plain["step"]]
    encoder = open_encoder(out / "model", "cpu")
    assert isinstance(encoder.model, DualEncoder)
    assert (encoder.size, encoder.crop) == (32, False)
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_the_rates_fall_as_torch_s_plateau_says(flickr, tmp_path):
    text = BOOK.replace("evaluate_every = 5\n", "evaluate_every = 0\n").replace("2e-3", "1e-7")
    rates = [s.lr for s in run(write(tmp_path, text, data=flickr, steps=98))]
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    losses = {r["step"]: r["validation_loss"] for r in map(json.loads, log) if len(r) == 2}
    epoch = 14  # steps: 110 rows by eight
    assert set(losses) == set(range(epoch, 99, epoch))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rates[0])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.8)
    for step, loss in losses.items():
        assert rates[step - epoch : step] == pytest.approx(
            [optimizer.param_groups[0]["lr"]] * epoch
        )
        plateau.step(loss)


def test_the_book_s_groups(flickr, tmp_path, monkeypatch):
    made = []

    class Watched(book.Training):
        def __init__(self, model, options, groups):
            super().__init__(model, options, groups)
            made.append([(g["peak"], g["weight_decay"]) for g in self.optimizer.param_groups])

    monkeypatch.setattr(book, "Training", Watched)
    lines = (resources.files("darkroom.recipes") / "clip-flickr8k-book.toml").read_text()
    rates = [line for line in lines.splitlines() if line.split(" ")[0].endswith(("_lr", "_decay"))]
    text = "\n".join(line for line in BOOK.splitlines() if "_lr" not in line)
    list(run(write(tmp_path, text, data=flickr, steps=0, more="\n".join(rates))))
    assert made == [[(1e-4, 0.0), (1e-5, 0.0), (1e-3, 1e-3)]]


def test_rows_and_their_tokens(flickr):
    photographs = flickr8k(flickr, 32, "book-train", crop=False)
    tokenizer = WordPiece.train([t for group in photographs.captions for t in group], 100)
    rows = Rows(photographs, tokenizer, 200)
    assert len(rows) == 110
    assert rows.image[:6].tolist() == [0, 0, 0, 0, 0, 1]
    assert rows.ids.shape == rows.mask.shape
    assert rows.ids.shape[1] < 20  # the longest caption of the set, not 200
    assert rows.images(torch.tensor([7, 3])).amax() == 1.0


def test_pretrained_towers_are_taken_or_refused(flickr, tmp_path):
    (tmp_path / "first").mkdir()
    list(run(write(tmp_path / "first", BOOK, data=flickr, steps=1)))
    trained = open_encoder(tmp_path / "first" / "run" / "model", "cpu")
    trained.tokenizer.save(tmp_path / "words")
    save(trained.model.image, tmp_path / "resnet")
    save(trained.model.text, tmp_path / "bert")
    more = "\n".join(
        f'{name} = "{tmp_path / folder}"'
        for name, folder in (
            ("image_weights", "resnet"), ("text_weights", "bert"), ("tokenizer", "words")
        )
    )  # fmt: skip
    frozen = BOOK.replace("2e-3", "1e-12")
    (tmp_path / "second").mkdir()
    list(run(write(tmp_path / "second", frozen, data=flickr, steps=1, more=more)))
    again = open_encoder(tmp_path / "second" / "run" / "model", "cpu")
    for name, tensor in trained.model.text.state_dict().items():
        assert torch.allclose(tensor, again.model.text.state_dict()[name], atol=1e-6), name
    stem = "stem.conv.weight"
    pairs = zip(
        trained.model.image.state_dict().items(),
        again.model.image.state_dict().items(),
        strict=True,
    )
    for (name, tensor), (_, other) in pairs:
        if "running" not in name and "tracked" not in name:
            assert torch.allclose(tensor, other, atol=1e-6), (name, stem)
    wrong = more.replace("resnet", "bert", 1)
    (tmp_path / "third").mkdir()
    with pytest.raises(ModelMismatchError, match="ask for a ResNet"):
        list(run(write(tmp_path / "third", frozen, data=flickr, steps=1, more=wrong)))


def test_the_shipped_recipes_are_in_order():
    for name in ("clip-flickr8k.toml", "clip-flickr8k-book.toml", "emoji-clip.toml"):
        with resources.as_file(resources.files("darkroom.recipes") / name) as path:
            run(path).close()
    assert retrieval.AT == (1, 5, 10)


def test_captions_are_drawn_from_their_own_image():
    said = (("a",) * 2, ("b",), ("c",) * 3)
    ids = torch.tensor([[9, 10, 1, 1], [9, 11, 1, 1], [9, 20, 1, 1]] + [[9, 30, 31, 1]] * 3)
    captions = Captions(said, ids, end=1)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = captions.draw(torch.tensor([2, 0, 1]), 0.0, 3, slice(None), g)
        assert drawn[0].tolist() == [9, 30, 31, 1]
        assert drawn[1, 1] in (10, 11)
        assert drawn[2, 1] == 20
    short = captions.draw(torch.tensor([2] * 200), 0.5, 200, slice(None), g)
    assert (short[:, 0] == 9).all()
    assert {tuple(row) for row in short.tolist()} == {
        (9, 30, 31, 1), (9, 30, 1, 1), (9, 31, 1, 1), (9, 1, 1, 1)
    }  # fmt: skip


def test_what_is_wrong_is_said(flickr, tmp_path):
    with pytest.raises(ConfigError, match="margin"):
        run(write(tmp_path, CORRECT.replace("margin = 1.25", "margin = 0.5"), data=flickr, steps=1))
    with pytest.raises(DataError, match="no data set that is known here"):
        list(run(write(tmp_path, CORRECT, data=tmp_path, steps=1)))
    with pytest.raises(ConfigError, match="18 pictures to learn from; lower fit.batch"):
        list(run(write(tmp_path, CORRECT.replace("batch = 8", "batch = 20"), data=flickr, steps=1)))
