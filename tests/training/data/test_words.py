"""One policy for captions in every format: Unicode is decoded, everything else is listed."""

import csv
import io
import json
import tarfile

import pytest

from darkroom.errors import DataError, DataWarning
from darkroom.training.data import open_data, words
from darkroom.training.data.captioned import captioned
from darkroom.training.data.check import check
from darkroom.training.data.flickr8k import read_captions
from training.data.data_sets import picture

SAID = "a réd 赤い square"
CODED = {
    "a": SAID.encode(),
    "b": b"\xef\xbb\xbf" + SAID.encode(),
    "c": SAID.encode("utf-16"),
    "d": b"\xfe\xff" + SAID.encode("utf-16-be"),
    "e": "赤い".encode("cp932"),
}
READ = {"a": (SAID,), "b": (SAID,), "c": (SAID,), "d": (SAID,), "e": ()}


def beside(path, suffix=".txt"):
    for name, text in CODED.items():
        (path / f"{name}.png").write_bytes(picture(ord(name)))
        (path / f"{name}{suffix}").write_bytes(text)
    return path


def kohya(path):
    (path / "2_red square").mkdir()
    beside(path / "2_red square", ".caption")
    return path


def shard(path):
    with tarfile.open(path / "0.tar", "w") as tar:
        for name, text in CODED.items():
            for ending, data in ((".png", picture(ord(name))), (".txt", text)):
                member = tarfile.TarInfo(name + ending)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def shard_of_rows(path):
    with tarfile.open(path / "0.tar", "w") as tar:
        for name in CODED:
            row = json.dumps({"caption": SAID}, ensure_ascii=False).encode()
            row = b'{"caption": "\x90\xd4\x82\xa2"}' if name == "e" else row
            for ending, data in ((".png", picture(ord(name))), (".json", row)):
                member = tarfile.TarInfo(name + ending)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def lines(path, form: str, coding: str):
    names = sorted(CODED)
    for name in names:
        (path / f"{name}.png").write_bytes(picture(ord(name)))
    rows = [{"file_name": f"{name}.png", "text": SAID} for name in names]
    if form == "jsonl":
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    else:
        file = io.StringIO()
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(rows)
        text = file.getvalue()
    data = text.encode(coding)
    if coding == "utf-8":  # one row in another coding
        said = [data.rindex(SAID.encode()), len(SAID.encode())]
        data = data[: said[0]] + "赤い".encode("cp932") + data[said[0] + said[1] :]
    (path / f"metadata.{form}").write_bytes(data)
    return path


SETS = {
    "beside": beside,
    "kohya": kohya,
    "shard": shard,
    "rows of a shard": shard_of_rows,
    "jsonl": lambda path: lines(path, "jsonl", "utf-8"),
    "csv": lambda path: lines(path, "csv", "utf-8"),
}


@pytest.mark.parametrize("kind", SETS)
def test_what_is_not_unicode_is_left_out_and_listed(kind, tmp_path):
    found = open_data(SETS[kind](tmp_path))
    numbers = [int(i) for i in found.unique()]
    assert [found.captions(i) for i in numbers] == list(READ.values())
    assert [found.has_lost_words(i) for i in numbers] == [False] * 4 + [True]
    checked = check(found)
    assert len(checked.undecoded) == 1
    assert "e" in next(iter(checked.undecoded))
    assert not checked.without_caption
    some = captioned(found)
    repeats = 2 if kind == "kohya" else 1
    assert len(some) == 4 * repeats
    assert f"{repeats} of {5 * repeats} pictures have captions that are neither" in some.remarks[0]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_a_table_with_a_mark_is_read(form, coding, tmp_path):
    found = open_data(lines(tmp_path, form, coding))
    assert found.all_captions() == [(SAID,)] * 5


def test_mostly_something_else_is_the_wrong_set(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name)))
        (tmp_path / f"{name}.txt").write_bytes("赤い".encode("cp932"))
    with pytest.raises(DataError, match="3 of 3 pictures have captions that are neither UTF-8"):
        captioned(open_data(tmp_path))


def test_flickr(tmp_path):
    text = f"image,caption\n1.jpg,{SAID}\n1.jpg,b\n2.jpg,c\n3.jpg,d\n".encode("utf-8-sig")
    (tmp_path / "captions.txt").write_bytes(text + b"3.jpg,\x90\xd4\x82\xa2\n")
    with pytest.warns(DataWarning, match="1 of 3 pictures have captions"):
        found = read_captions(tmp_path)
    assert found == {"1.jpg": (SAID, "b"), "2.jpg": ("c",), "3.jpg": ("d",)}


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b"\xff\xfea", b"\x80", b"caf\xe9", b"\xef\xbb\xbf\xff"]
)
def test_nothing_else_is_guessed(data):
    assert words.is_lost(words.decoded(data))
