"""What ``data check`` finds, each kind of trouble made on purpose."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from darkroom.training.data import open_data
from darkroom.training.data.check import check, perceptual_hash
from training.data.data_sets import picture, shard


def again(data: bytes, size=None, **options) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    file = io.BytesIO()
    (image.resize(size, Image.Resampling.LANCZOS) if size else image).save(file, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    first = picture(1, (96, 80))
    exif = Image.Exif()
    exif[0x0112] = 8
    files = {
        "01-first.png": first,
        "02-same-file.png": first,
        "03-same-pixels.webp": again(first, format="WEBP", lossless=True),
        "04-smaller.jpg": again(first, (72, 60), format="JPEG", quality=60),
        "05-other.png": picture(2, (96, 80)),
        "06-tiny.png": picture(3, (96, 12)),
        "07-damaged.jpg": b"no picture at all",
        "08-cut.png": picture(4, (96, 80))[:900],
        "09-turned.jpg": picture(5, (96, 80), "JPEG", exif=exif),
        "10-cmyk.jpg": picture(6, (96, 80), "JPEG", "CMYK"),
        "11-silent.png": picture(7, (96, 80)),
        "12-empty.png": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "13-plain.png")
    Image.new("RGB", (50, 50), "blue").save(tmp_path / "14-plain.png")
    rows = [{"file_name": p.name, "text": p.stem} for p in sorted(tmp_path.iterdir())]
    rows.append({"file_name": "15-missing.png", "text": "x"})
    for row in rows:
        row["text"] = " " if "silent" in row["file_name"] else row["text"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_every_kind_of_trouble(folder):
    seen = []
    found = check(open_data(folder), advance=seen.append)
    assert found.items == sum(seen) == 15
    assert found.unreadable.keys() == {
        "07-damaged.jpg", "08-cut.png", "12-empty.png", "15-missing.png",
    }  # fmt: skip
    assert "no such file" in found.unreadable["15-missing.png"]
    assert found.unreadable["07-damaged.jpg"] == "no image"
    assert found.tiny == {"06-tiny.png": "96x12"}
    assert found.duplicates == {
        "02-same-file.png": "01-first.png", "03-same-pixels.webp": "01-first.png",
    }  # fmt: skip
    assert found.near_duplicates == {"04-smaller.jpg": "01-first.png"}
    assert list(found.turned) == ["09-turned.jpg"]
    assert found.odd_mode == {"10-cmyk.jpg": "CMYK"}
    assert list(found.without_caption) == ["11-silent.png"]
    assert found.usable == 15 - 4 - 1
    assert (found.smallest, found.largest) == (12, 96)


def test_threads_change_nothing(folder):
    pictures = open_data(folder)
    assert check(pictures, threads=1) == check(pictures, threads=5)


def test_different_pictures_are_not_alike(tmp_path):
    for i in range(200):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    found = check(open_data(tmp_path))
    assert not found.duplicates
    assert not found.near_duplicates
    assert len(found.without_caption) == 200


def test_shards_and_repeats(tmp_path):
    found = check(open_data(shard(tmp_path / "a.tar", "abc")))
    assert (found.items, found.usable) == (3, 3)
    folder = tmp_path / "set" / "5_dog"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(picture())
    found = check(open_data(tmp_path / "set"))
    assert (found.items, found.usable, found.duplicates) == (1, 1, {})


def test_the_hash_bears_what_people_do_to_pictures():
    values = np.asarray(Image.open(io.BytesIO(picture(1, (32, 32)))).convert("L"), np.float32)
    original = perceptual_hash(values)
    for changed in (values * 0.8 + 20, values + np.random.default_rng(0).normal(0, 2, (32, 32))):
        assert (perceptual_hash(changed) ^ original).bit_count() <= 3
    assert (perceptual_hash(values.T) ^ original).bit_count() > 10
