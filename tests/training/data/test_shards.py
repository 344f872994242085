"""Shards by number: what is where, the kept index, damage, and names that lead elsewhere."""

import json
import tarfile

import pytest
import torch

from darkroom.errors import DataError
from darkroom.training.data import open_data
from darkroom.training.data.shards import Shards, expand, scan
from training.data.data_sets import add, picture, shard


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_samples_by_number(tmp_path, form):
    for n in range(3):
        keys = [f"{n:05}{i:04}" for i in range(4)]
        shard(tmp_path / f"{n:05}.tar", keys, form, start=4 * n)
    (tmp_path / "00000_stats.json").write_text("{}")  # img2dataset leaves these beside them
    found = open_data(tmp_path)
    braces = open_data(f"{tmp_path}/{{00000..00002}}.tar")
    assert len(found) == len(braces) == 12
    assert list(found.stretches()) == [4, 4, 4]
    assert [found.captions(i) for i in (0, 5, 11)] == [("thing 0",), ("thing 5",), ("thing 11",)]
    assert found.row(7)["caption"] == "thing 7"
    assert found.name(5) == "00001.tar: 000010001.jpg"
    mixed = [11, 0, 5, 5, 2]
    assert list(found.raw(mixed)) == [picture(i, form="JPEG") for i in mixed]
    pixels = found.read(torch.tensor(mixed), 8)
    assert pixels.shape == (5, 3, 8, 8)
    assert torch.equal(pixels[2], pixels[3])
    assert torch.equal(pixels[0], found.read([11], 8)[0])


def test_labels_and_their_names(tmp_path):
    shard(tmp_path / "a.tar", "abcd", cls=True)
    assert open_data(tmp_path).labels.tolist() == [0, 1, 2, 0]
    assert open_data(tmp_path).classes == ("0", "1", "2")
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\n")
    assert open_data(tmp_path).classes == ("ant", "bee", "cat")


def test_a_tar_of_class_and_file(tmp_path):
    with tarfile.open(tmp_path / "cifar.tar", "w") as tar:
        for i in range(6):
            add(tar, f"./{'cat' if i % 2 else 'ant'}/{i:04}.png", picture(i))
    found = open_data(tmp_path / "cifar.tar")
    assert found.classes == ("ant", "cat")
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.kind == "tar of class/file"


def test_captions_of_the_row_and_samples_without_a_picture(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "1.json", json.dumps({"caption": None, "status": "failed"}).encode())
        add(tar, "2.JPEG", picture(2, form="JPEG"))
        add(tar, "2.json", json.dumps({"caption": "from the row"}).encode())
        add(tar, "3.mask.png", picture(9))
        add(tar, "3.webp", picture(3, form="WEBP"))
        add(tar, "3.json", b"{broken")
        add(tar, "dir/4.jpg", picture(4, form="JPEG"))
        add(tar, ".hidden.jpg", b"no")
    found = open_data(tmp_path / "a.tar")
    assert [found.captions(i) for i in range(3)] == [("from the row",), (), ()]
    assert next(found.raw([1])) == picture(3, form="WEBP")


def test_the_index_is_kept_until_the_shard_changes(tmp_path, home, monkeypatch):
    path = shard(tmp_path / "a.tar", "ab")
    calls = []
    monkeypatch.setattr("darkroom.training.data.shards.scan", lambda p: calls.append(p) or scan(p))
    assert len(open_data(path)) == len(open_data(path)) == 2
    assert len(calls) == 1
    shard(path, "abc")
    assert len(open_data(path)) == 3
    assert len(calls) == 2
    for kept in (home / "shards").iterdir():
        kept.write_bytes(b"PK damaged")
    assert len(open_data(path)) == 3
    assert len(calls) == 3
    assert len(Shards([path], cache=None)) == 3


def test_nothing_is_written_where_a_name_leads(tmp_path, home):
    place = tmp_path / "set"
    place.mkdir()
    with tarfile.open(place / "a.tar", "w") as tar:
        add(tar, "../../../escape.jpg", picture(1, form="JPEG"))
        add(tar, "/tmp/darkroom-absolute.jpg", picture(2, form="JPEG"))
        add(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    found = open_data(place)
    assert found.read(range(len(found)), 8).shape == (2, 3, 8, 8)
    files = {p.name for p in tmp_path.rglob("*") if p.is_file() and home not in p.parents}
    assert files == {"a.tar"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), r"a\.tar: damaged at byte"),
        (lambda p: p.write_bytes(b"text" * 1000), r"a\.tar: damaged at byte 0"),
        (lambda p: p.unlink(), "no such|no data set"),
        (lambda p: tarfile.open(p, "w").close(), "no pictures"),
        (lambda p: shard(p, "a", cls=True) and _bad_label(p), "expected a number"),
    ],
)
def test_damage_is_one_line(tmp_path, make, message):
    make(shard(tmp_path / "a.tar", "abc"))
    with pytest.raises(DataError, match=message) as caught:
        open_data(tmp_path)
    assert "\n" not in str(caught.value)


def _bad_label(path):
    with tarfile.open(path, "w") as tar:
        add(tar, "a.jpg", picture())
        add(tar, "a.cls", b"cat")


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "good.jpg", picture())
        add(tar, "bad.jpg", b"no picture")
    found = open_data(tmp_path)
    with pytest.raises(DataError, match=r"a\.tar: bad\.jpg: not readable as an image"):
        found.read([0, 1], 8)


def test_brace_patterns():
    assert [p.name for p in expand("x/{08..11}.tar")] == ["08.tar", "09.tar", "10.tar", "11.tar"]
    assert [str(p) for p in expand("{0..1}/{0..1}.tar")] == [
        "0/0.tar",
        "0/1.tar",
        "1/0.tar",
        "1/1.tar",
    ]
    assert expand("plain.tar")[0].name == "plain.tar"
    for wrong in ("{5..4}.tar", "{0..2000000}.tar"):
        with pytest.raises(DataError, match="expected"):
            expand(wrong)
    with pytest.raises(DataError, match=r"00001\.tar"):
        open_data("/nowhere/{00001..00002}.tar")
