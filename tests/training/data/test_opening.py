"""Every format is recognised by its names, and read as its owner means it."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import DataError
from darkroom.training.data import open_data
from training.data.data_sets import picture
from training.data.test_labelled import write_idx


def put(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture() if data is None else data)


def test_class_folders(tmp_path):
    for name in ("bee/1.png", "bee/2.jpg", "ant/1.webp", "empty/readme.txt"):
        put(tmp_path / name)
    found = open_data(tmp_path)
    assert (found.classes, found.labels.tolist()) == (("ant", "bee"), [0, 1, 1])
    assert not found.captioned
    assert found.read([0, 2], 16).shape == (2, 3, 16, 16)


def test_imagefolder_jsonl_nested(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "deep" / "b.png")
    rows = [{"file_name": "a.png", "text": "an a", "n": 1}, {"file_name": "deep/b.png", "text": ""}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = open_data(tmp_path)
    assert [found.captions(i) for i in range(2)] == [("an a",), ()]
    assert found.item(0).row["n"] == 1
    assert found.name(1) == os.path.join("deep", "b.png")


def test_imagefolder_csv_and_splits(tmp_path):
    for part in ("train", "test"):
        put(tmp_path / part / "x,1.png")
        with (tmp_path / part / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["file_name", "text", "label"], ["x,1.png", f'a "{part}"', "cat"]])
    assert open_data(tmp_path).captions(0) == ('a "train"',)
    test = open_data(tmp_path, "test")
    assert (test.captions(0), test.classes, test.labels.tolist()) == (('a "test"',), ("cat",), [0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "../../secret.png", "text": "x"}', "leads out of"),
        ('{"file_name": "/etc/passwd", "text": "x"}', "leads out of"),
        ('{"text": "x"}', "row 1 has no file_name"),
        ("{broken", "line 1: not valid JSON"),
        ("[1]", "is no object"),
        ("", "no pictures"),
    ],
)
def test_bad_metadata(tmp_path, line, message):
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path)


@pytest.mark.parametrize("inner", ["", "img"])
def test_kohya_repeats(tmp_path, inner):
    root = tmp_path / inner
    put(root / "3_sks dog" / "1.png")
    (root / "3_sks dog" / "1.txt").write_text("a dog on grass\nsecond line\n")
    put(root / "3_sks dog" / "2.png", picture(2))
    put(root / "1_cat" / "1.jpg", picture(3))
    (root / "1_cat" / "1.caption").write_text("a cat")
    put(root / "0_never" / "1.png", picture(4))
    found = open_data(tmp_path)
    assert found.kind == "kohya folders"
    said = [found.captions(i)[0] for i in range(len(found))]
    assert said == ["a cat", *["a dog on grass"] * 3, *["sks dog"] * 3]
    assert list(found.unique()) == [0, 1, 4]


def test_pictures_with_their_captions_beside_them(tmp_path):
    put(tmp_path / "1.png")
    (tmp_path / "1.txt").write_text("one\nor another\n")
    put(tmp_path / "2.png")
    found = open_data(tmp_path)
    assert [found.captions(i) for i in range(2)] == [("one", "or another"), ()]


def test_flickr8k(tmp_path):
    rows = [["image", "caption"]]
    for i in range(3):
        put(tmp_path / "Images" / f"{i}.jpg", picture(i, form="JPEG"))
        rows += [[f"{i}.jpg", f'Caption {n} , "quoted" .'] for n in range(5)]
    with (tmp_path / "captions.txt").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = open_data(tmp_path)
    assert (found.kind, len(found), len(found.captions(2))) == ("Flickr8k", 3, 5)
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("2.jpg\n0.jpg\n")
    assert len(open_data(tmp_path)) == 2


def test_idx(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    write_idx(tmp_path / "train-images-idx3-ubyte", pixels, pack=False)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(5))
    found = open_data(tmp_path)
    assert (found.kind, len(found), len(found.classes)) == ("IDX", 5, 5)
    assert torch.equal(found.read([3], 28)[0, 0], torch.from_numpy(pixels[3]).to(torch.uint8))


def test_camvid(tmp_path):
    put(tmp_path / "train" / "1.jpg")
    put(tmp_path / "trainannot" / "1.png")
    assert open_data(tmp_path).kind == "camvid pairs"
    put(tmp_path / "train" / "2.jpg")
    with pytest.raises(DataError, match=r"2\.jpg: no mask 2\.png"):
        open_data(tmp_path)


def test_splits_of_class_folders(tmp_path):
    put(tmp_path / "train" / "cat" / "1.png")
    put(tmp_path / "test" / "dog" / "1.png")
    assert open_data(tmp_path).classes == ("cat",)
    assert open_data(tmp_path, "test").classes == ("dog",)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data set that is known"):
        open_data(tmp_path)
    (tmp_path / "3_dog").mkdir()
    with pytest.raises(DataError, match="no data set that is known"):
        open_data(tmp_path)


def test_pictures_are_upright_and_on_white(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 15, 20))  # a blue left edge
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    image.save(tmp_path / "1.png", exif=exif)
    Image.new("RGBA", (20, 20)).save(tmp_path / "2.png")
    gray = Image.fromarray(np.full((20, 20), 32768, np.uint16))
    gray.save(tmp_path / "3.png")
    turned, clear, gray = open_data(tmp_path).read([0, 1, 2], 20)
    assert turned[2, 0].min() == 255  # the left edge is the upper one
    assert turned[2, 10].max() == 0
    assert clear.min() == 255
    assert gray.unique().tolist() == [128]
