import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import DataError
from darkroom.training.data.flickr8k import book_validation, flickr8k, read_captions, split_names

REAL = Path(__file__).parents[4] / "shared" / "data" / "flickr8k"


@pytest.fixture
def folder(tmp_path):
    """Ten wide pictures, red on the left and blue on the right, in Kaggle's layout."""
    (tmp_path / "Images").mkdir()
    lines = ["image,caption"]
    for i in range(10):
        pixels = np.zeros((30, 60, 3), np.uint8)
        pixels[:, :30, 0], pixels[:, 30:, 2], pixels[:, 15:45, 1] = 255, 255, 20 * i
        Image.fromarray(pixels).save(tmp_path / "Images" / f"{i}.png")
        lines += [f'{i}.png,"A ""dog"", number {i}, {k} ."' for k in range(5)]
    (tmp_path / "captions.txt").write_text("\n".join(lines) + "\n", "utf-8")
    for split, numbers in (("train", range(6)), ("dev", (6, 7)), ("test", (9, 8))):
        names = "".join(f"{i}.png\n" for i in numbers)
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text(names)
    return tmp_path


def test_pictures_and_their_captions(folder):
    images = flickr8k(folder, 16, "test")
    assert images.pixels.shape == (2, 3, 16, 16)
    assert images.pixels.dtype == torch.uint8
    assert images.captions[0][3] == 'A "dog", number 8, 3 .'
    assert [len(group) for group in images.captions] == [5, 5]
    assert len(flickr8k(folder, 8)) == 10
    assert len(flickr8k(folder, 8, "train", first=4)) == 4


def test_cut_to_the_middle_or_squeezed(folder):
    cut = flickr8k(folder, 16, "test").pixels[0, 1].float()
    whole = flickr8k(folder, 16, "test", crop=False).pixels[0, 1].float()
    assert cut[:, 1:-1].min() > 150  # the middle half alone, green all over
    assert whole[:, :3].max() < 20
    assert whole[:, 6:10].min() > 150


def test_the_book_splits_by_image_and_seed(folder):
    captions = read_captions(folder)
    np.random.seed(42)  # what the book does
    drawn = np.random.choice(np.arange(0, 10), size=int(0.2 * 10), replace=False)
    expected = [f"{i}.png" for i in sorted(drawn)]
    assert split_names(folder, "book-validation", captions) == expected
    rest = split_names(folder, "book-train", captions)
    assert len(rest) == 8
    assert not set(rest) & set(expected)
    assert len(book_validation(8091)) == 1618


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "captions.txt").is_file(), reason="needs Flickr8k")
def test_the_book_s_numbers_of_rows():
    captions = read_captions(REAL)
    rows = {
        split: sum(len(captions[name]) for name in split_names(REAL, split, captions))
        for split in ("book-train", "book-validation", "train", "dev", "test")
    }
    assert rows["book-train"] == 32_365
    assert rows["book-validation"] == 8_090
    assert (rows["train"], rows["dev"], rows["test"]) == (30_000, 5_000, 5_000)


def test_what_is_wrong_is_said(folder):
    captions = read_captions(folder)
    os.remove(folder / "Flickr_8k.devImages.txt")
    with pytest.raises(DataError, match="book-train"):
        split_names(folder, "dev", captions)
    (folder / "Flickr_8k.testImages.txt").write_text("other.png\n")
    with pytest.raises(DataError, match=r"no captions for other\.png"):
        split_names(folder, "test", captions)
    uneven = {**captions, "3.png": captions["3.png"][:4]}
    with pytest.raises(DataError, match=r"3\.png has 4 captions"):
        split_names(folder, "book-train", uneven)


def test_damaged_photographs_are_left_out(folder):
    whole = flickr8k(folder, 8)
    for i in (3, 5):
        (folder / "Images" / f"{i}.png").write_bytes(b"no picture")
    (folder / "Images" / "7.png").unlink()
    for crop in (True, False):
        images = flickr8k(folder, 8, crop=crop)
        assert images.names == tuple(f"{i}.png" for i in (0, 1, 2, 4, 6, 8, 9))
        assert images.captions == tuple(whole.captions[i] for i in (0, 1, 2, 4, 6, 8, 9))
        assert (
            "3 of 10 pictures cannot be read and are left out: 3.png, 5.png, 7.png;"
            in (images.remarks[0])
        )
    for i in (0, 1, 2):
        (folder / "Images" / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="6 of 10 pictures cannot be read, such as 0.png"):
        flickr8k(folder, 8)


@pytest.mark.parametrize(
    "text", ["", "name,text\n", "image,caption\n../x.png,a\n", "image,caption\na\n"]
)
def test_another_file_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="captions.txt"):
        read_captions(tmp_path)
    (tmp_path / "captions.txt").write_text(text)
    with pytest.raises(DataError, match="captions.txt"):
        read_captions(tmp_path)
