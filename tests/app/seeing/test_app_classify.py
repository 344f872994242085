"""``classify``, with a model that has learned nothing."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision import things


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return things.encoder().save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def photos() -> Path:
    folder = Path("photos")
    for colour in things.COLOURS:
        (folder / colour).mkdir(parents=True)
        for shape in things.SHAPES:
            things.draw(colour, shape).save(folder / colour / f"{shape}.png")
    (folder / "red" / "bad.png").write_bytes(b"no picture")
    return folder


def test_labels_as_a_table_a_chart_and_a_matrix(darkroom, model, photos):
    images = (photos / "red/bar.png", photos / "blue/cross.png")
    drawn = ("--chart", "bars.png", "--matrix", "fit.png", "--top", 2)
    ended = darkroom("classify", *images, "--model", model, "--labels", "red, bar,a cross", *drawn)
    assert ended.code == 0, ended.err
    lines = [line.split("\t") for line in ended.out.splitlines()]
    assert lines[0] == ["PICTURE", "LABEL", "PROBABILITY"]
    assert [line[0] for line in lines[1:]] == [str(images[0])] * 2 + [str(images[1])] * 2
    assert {line[1] for line in lines[1:]} <= {"red", "bar", "a cross"}
    for name in ("bars.png", "fit.png"):
        with Image.open(name) as picture:
            assert picture.width > 200


def test_a_folder_with_a_bad_file(darkroom, model, photos):
    Path("labels.txt").write_text("red, really\n\nblue\n")
    ended = darkroom(
        "classify", photos, "--model", model, "--labels-file", "labels.txt", "--template", "photos",
        "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "left out: bad.png" in ended.err
    answer = ended.answer
    assert (len(answer["pictures"]), len(answer["skipped"])) == (9, 1)
    assert answer["labels"] == ["red, really", "blue"]
    assert answer["templates"][0] == "a photo of a {}"
    for picture in answer["pictures"]:
        assert sum(label["probability"] for label in picture["labels"]) == pytest.approx(
            1, abs=1e-4
        )


def test_a_data_set_of_classes(darkroom, model, photos):
    args = ("--evaluate", "--model", model, "--matrix", "confusion.png", "--template", "{}")
    folder = darkroom("classify", photos, *args, "--json")
    assert folder.code == 0, folder.err
    answer = folder.answer
    assert answer["labels"] == ["blue", "green", "red"]
    assert answer["pictures"] == 9
    assert answer["top5"] == 1
    assert [sum(row) for row in answer["confusion"]] == [3, 3, 3]
    right = sum(answer["confusion"][i][i] for i in range(3))
    assert answer["accuracy"] == pytest.approx(right / 9)
    assert len(answer["skipped"]) == 1
    with Image.open("confusion.png") as picture:
        assert picture.width > 150

    (photos / "red/bad.png").unlink()
    with tarfile.open("set.tar", "w") as tar:
        for path in sorted(photos.rglob("*.png")):
            tar.add(path, path.relative_to(photos))
    again = darkroom("classify", "set.tar", *args, "--labels", "blue,green,red")
    assert again.code == 0, again.err
    assert f"accuracy {right / 9:.1%} (by chance 33.3%)" in again.err
    assert again.out.splitlines()[0] == "CLASS\tPICTURES\tRIGHT\tMOST OFTEN TAKEN FOR"


@pytest.mark.slow
def test_digits_from_memory(darkroom, model, data):
    ended = darkroom("classify", data / "mnist", "--evaluate", "--model", model, "--json")
    assert ended.code == 0, ended.err
    assert (ended.answer["pictures"], len(ended.answer["confusion"])) == (10_000, 10)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("red/bar.png",), "no labels", 2),
        (("red/bar.png", "--labels", "a,,b"), "label 2 of 3 is empty", 2),
        (("red/bar.png", "--labels", "a,b,a"), "'a' is given more than once", 2),
        (("red/bar.png", "--labels", "a", "--template", "photo of"), "expected one {}", 2),
        (("red/bar.png", "--labels", "a", "--labels-file", "x"), "say the same", 2),
        (("red/bar.png", "--labels-file", "none.txt"), "no such file of labels", 3),
        (("red/bar.png", "--labels", "a", "--chart", "a.svg"), "pictures are written as", 2),
        (("red/bad.png", "--labels", "a"), "bad.png", 3),
        (("nothing.png", "--labels", "a"), "nothing.png", 3),
        (("red/bad.png", "red/bad.png", "--labels", "a"), "none of the 2 pictures", 3),
        ((".", "--evaluate", "--labels", "a,b"), "2 labels for 3 classes: blue, green, red", 2),
        (("red", "--evaluate"), "without classes", 3),
        ((".", "--evaluate", "--chart", "a.png"), "one data set", 2),
    ],
)
def test_bad_input_is_one_line(darkroom, model, photos, monkeypatch, arguments, said, code):
    monkeypatch.chdir(photos)
    ended = darkroom("classify", *arguments, "--model", model)
    assert ended.code == code, ended.err
    assert said in ended.error


def test_the_built_in_encoder_knows_emoji(darkroom, data):
    names = {
        "2764": "red heart",
        "1f431": "cat",
        "1f355": "pizza",
        "1f680": "rocket",
        "1f697": "car",
    }
    paths = [data / "noto-emoji" / "images" / f"emoji_u{code}.png" for code in names]
    ended = darkroom("classify", *paths, "--labels", ",".join(names.values()), "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["model"] == "emoji-clip"
    best = [picture["labels"][0]["label"] for picture in ended.answer["pictures"]]
    assert best == list(names.values())


def test_where_no_label_is_likely(darkroom):
    """A picture of nothing that an emoji shows: the built-in model says that it does not know."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save("noise.png")
    ended = darkroom("classify", "noise.png", "--labels", "dog,cat,selfie stick,zzyzx", "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["pictures"][0]["likely"] is False
    assert ended.answer["knows"]["emoji-clip"].startswith("emoji")
    assert [one["word"] for one in ended.answer["unseen"]] == ["zzyzx"]
    assert "no label is likely for noise.png" in ended.err
    assert ended.err.count("(built in, small) knows emoji") == 1
