"""Sets go on without damaged pictures, whatever the format, and say which these are."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch

from darkroom.errors import DataError
from darkroom.training.data import Part, captioned, class_tar, open_data
from darkroom.training.data.pictures import CHUNK, Files, Item
from darkroom.training.data.reading import read_many
from darkroom.training.data.shards import Shards
from training.data.data_sets import add, picture, shard


def write(folder, names, captions=None):
    """Pictures under names; the second and the last are damaged."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents(number, len(names)))
        if captions == "beside":
            path.with_suffix(".txt").write_text(f"thing {number}")


def contents(number, count):
    if number == 1:
        return picture(1)[:100]
    return b"no picture" if number == count - 1 else picture(number)


def classes(folder):
    write(folder, [f"cat/{i}.png" for i in range(3)] + [f"dog/{i}.png" for i in range(3)])
    return "cat/1.png", "dog/2.png"


def beside(folder):
    write(folder, [f"{i}.png" for i in range(6)], "beside")
    return "1.png", "5.png"


def kohya(folder):
    write(folder, [f"2_thing/{i}.png" for i in range(6)], "beside")
    return "2_thing/1.png", "2_thing/5.png"


def imagefolder(folder):
    write(folder, [f"{i}.png" for i in range(6)])
    rows = [{"file_name": f"{i}.png", "text": f"thing {i}"} for i in range(6)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "5.png").unlink()
    return "1.png", "5.png"


def flickr(folder):
    write(folder / "Images", [f"{i}.png" for i in range(6)])
    lines = [f"{i}.png,thing {i}" for i in range(6)]
    (folder / "captions.txt").write_text("\n".join(["image,caption", *lines]) + "\n")
    return "Images/1.png", "Images/5.png"


def shards(folder):
    for n in range(2):
        with tarfile.open(folder / f"{n}.tar", "w") as tar:
            for number in range(3 * n, 3 * n + 3):
                add(tar, f"{number}.png", contents(number, 6))
                add(tar, f"{number}.txt", f"thing {number}".encode())
    return "0.tar: 1.png", "1.tar: 5.png"


FORMATS = [classes, beside, kohya, imagefolder, flickr, shards]


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("channels", [3, 4])
def test_damaged_pictures_are_left_out_or_replaced(tmp_path, make, channels):
    lost = make(tmp_path)
    found = open_data(tmp_path)
    repeats = len(found) // 6
    pixels, kept = found.hold(8, channels)
    assert pixels.shape == (4 * repeats, channels, 8, 8)
    assert [i // repeats for i in kept[::repeats]] == [0, 2, 3, 4]
    assert tuple(found.lost) == lost
    assert found.remarks() == (
        f"2 of 6 pictures cannot be read and are left out: {', '.join(lost)}; "
        f"`darkroom data check {tmp_path}` lists all",
    )
    fresh = open_data(tmp_path)
    again, numbers = fresh.readable_or_next(range(len(found)), 8, channels)
    assert [int(i) // repeats for i in numbers] == [
        n for n in (0, 2, 2, 3, 4, 0) for _ in range(repeats)
    ]  # after the last one comes the first
    assert fresh.lost == found.lost
    row = {number: k for k, number in enumerate(kept)}
    assert torch.equal(again, pixels[[row[int(i)] for i in numbers]])
    with pytest.raises(DataError, match="data check"):
        found.read([i for i in range(len(found)) if i not in kept], 8)


@pytest.mark.parametrize("make", FORMATS)
def test_more_than_half_ends_it(tmp_path, make):
    make(tmp_path)
    if make is shards:
        for path in tmp_path.glob("*.tar"):
            path.write_bytes(path.read_bytes().replace(b"IDAT", b"nope"))
    for path in sorted(tmp_path.rglob("*.png"))[:4]:
        path.write_bytes(b"no picture")
    for read in ("hold", "readable_or_next"):
        found = open_data(tmp_path)
        size = (8,) if read == "hold" else (range(len(found)), 8)
        with pytest.raises(DataError, match=r"of 6 pictures cannot be read, such as"):
            getattr(found, read)(*size)


def test_many_are_read_in_parts_and_in_order(tmp_path):
    write(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    items = [Item(tmp_path / name, repeats=CHUNK) for name in ("a.png", "b.png", "c.png")]
    found = Files("test", tmp_path, items)
    pixels, kept = found.hold(4)
    assert len(pixels) == 2 * CHUNK
    assert kept == [*range(CHUNK), *range(2 * CHUNK, 3 * CHUNK)]
    assert pixels[0].ne(pixels[-1]).any()


def test_parts_of_a_set(tmp_path):
    paths = [
        shard(tmp_path / f"{n}.tar", [f"{n}{i}" for i in range(5)], start=5 * n) for n in range(3)
    ]
    found = Shards(paths, cache=None)
    part = Part(found, torch.tensor([1, 4, 6, 12, 13, 14]))
    assert part.stretches() == [2, 1, 3]
    assert (len(part), part.sharded, part.captions(2)) == (6, True, ("thing 6",))
    assert part.all_captions() == [found.captions(i) for i in part.numbers.tolist()]
    assert part.name(3) == "2.tar: 22.jpg"
    assert torch.equal(part.read([0, 3], 8), found.read([1, 12], 8))
    rest, aside = found.split(0.2, seed=1)
    assert sorted(rest.numbers.tolist() + aside.numbers.tolist()) == list(range(15))
    assert len(aside) == 3
    assert found.spread(5).numbers.tolist() == [0, 3, 6, 9, 12]
    assert len(found.spread(50)) == 15
    assert Part(part, torch.tensor([5])).name(0) == "2.tar: 24.jpg"


def test_captions_are_read_without_pictures(tmp_path, monkeypatch):
    shards(tmp_path)
    monkeypatch.setattr(Shards, "raw", None)
    found = captioned(open_data(tmp_path))
    assert found.captions == tuple((f"thing {i}",) for i in range(6))
    assert found.rows[3] == {"text": "thing 3"}


def test_pictures_without_words_are_left_out_and_counted(tmp_path):
    beside(tmp_path)
    (tmp_path / "2.txt").unlink()
    found = captioned(open_data(tmp_path))
    assert [row["text"] for row in found.rows] == [f"thing {i}" for i in (0, 1, 3, 4, 5)]
    assert found.remarks == ("1 of 6 pictures, without a caption or a class, are left out",)
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    with pytest.raises(DataError, match="no picture has a caption or a class"):
        captioned(open_data(tmp_path))


def test_a_tar_in_memory(tmp_path):
    classes(tmp_path / "set")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "set", arcname=".")
    shutil.rmtree(tmp_path / "set")
    images = class_tar(tmp_path / "set.tar.gz", 8)
    assert images.names == ("cat/0.png", "cat/2.png", "dog/0.png", "dog/1.png")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert open_data(tmp_path / "set.tar.gz").remarks()[0].startswith("2 of 6 pictures")


def test_other_sizes_are_no_damage(tmp_path):
    sizes = [np.zeros((2, 3, 3), np.uint8), np.zeros((4, 3, 3), np.uint8)]
    with pytest.raises(DataError, match="b is 3x4, the first one 3x2"):
        read_many(lambda i: sizes[i], [0, 1], ["a", "b"], tmp_path)
