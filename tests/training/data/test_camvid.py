import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import DataError
from darkroom.training.data.camvid import CLASSES, COLOURS, VOID, camvid


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1)):
        (tmp_path / part).mkdir()
        (tmp_path / f"{part}annot").mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            labels = rng.integers(0, 12, (12, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
            Image.fromarray(labels).save(tmp_path / f"{part}annot" / f"{i}.png")
    return tmp_path


def opened(path):
    with Image.open(path) as image:
        return np.array(image)


def test_pairs_are_read(folder):
    scenes = camvid(folder)
    assert (len(scenes), scenes.pixels.shape, scenes.labels.shape) == (
        3,
        (3, 3, 12, 16),
        (3, 12, 16),
    )
    assert scenes.names == ("0", "1", "2")
    assert len(camvid(folder, "val")) == 1
    for name, pixels, labels in zip(scenes.names, scenes.pixels, scenes.labels, strict=True):
        assert np.array_equal(pixels.permute(1, 2, 0), opened(folder / f"train/{name}.png"))
        assert np.array_equal(labels, opened(folder / f"trainannot/{name}.png"))
    assert len(CLASSES) == len(COLOURS) == len(set(COLOURS)) == VOID


def test_a_palette_means_its_numbers(folder):
    path = folder / "trainannot" / "0.png"
    plain = opened(path)
    coloured = Image.frombytes("P", plain.shape[::-1], plain.tobytes())
    coloured.putpalette([value for colour in COLOURS for value in colour])
    coloured.save(path)
    assert torch.equal(camvid(folder).labels[0], torch.from_numpy(plain))


def test_what_is_missing_is_named(folder):
    with pytest.raises(DataError, match=r"test/ and testannot/"):
        camvid(folder, "test")
    (folder / "trainannot" / "1.png").unlink()
    with pytest.raises(DataError, match="trainannot: nothing for 1 of train, such as 1"):
        camvid(folder)
    (folder / "train" / "1.png").unlink()
    (folder / "train" / "2.png").unlink()
    with pytest.raises(DataError, match="train: nothing for 1 of train, such as 2"):
        camvid(folder)
    for path in (folder / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no images"):
        camvid(folder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((12, 15), np.uint8), "15x12; expected 16x12"),
        (np.full((12, 16), 12, np.uint8), "class 12; expected 0 to 10, or 11 for void"),
        (np.zeros((12, 16, 3), np.uint8), "RGB picture; labels are greyscale"),
    ],
)
def test_what_is_no_label_map_is_named(folder, labels, message):
    Image.fromarray(labels).save(folder / "trainannot" / "1.png")
    with pytest.raises(DataError, match=message):
        camvid(folder)


def test_damaged_scenes_are_left_out(folder):
    whole = camvid(folder)
    (folder / "trainannot" / "1.png").write_bytes(b"no picture")
    scenes = camvid(folder)
    assert scenes.names == ("0", "2")
    assert torch.equal(scenes.labels, whole.labels[[0, 2]])
    assert scenes.remarks == (
        "1 of 3 pictures cannot be read and is left out: 1.png; "
        f"`darkroom data check {folder / 'train'}` lists all",
    )
    (folder / "train" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 of 3 pictures cannot be read, such as 1\.png, 2\.png"):
        camvid(folder)


@pytest.mark.slow
def test_the_set_itself(data):
    sizes = {split: len(camvid(data / "camvid", split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 367, "val": 101, "test": 233}
