"""Data sets that would fill the memory, hang, or lie: one line, soon."""

import bz2
import gzip
import io
import os
import struct
import tarfile

import pytest
from PIL import Image

from darkroom.errors import DataError
from darkroom.training.data import labelled, open_data
from darkroom.training.data.labelled import Bounded, class_tar, idx
from darkroom.training.data.shards import expand


def picture(size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(file, "PNG")
    return file.getvalue()


def packed(*members: tuple[str, bytes], then: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue() + then


def refused(call, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_tar_that_unpacks_to_a_bomb(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(labelled, "ROOM", 1 << 20)
    good = packed(("a/1.png", picture()), ("b/1.png", picture()))
    path = tmp_path / "good.tar.gz"
    path.write_bytes(pack(good))
    assert class_tar(path).classes == ("a", "b")
    head = tarfile.TarInfo("a/zeros.txt")
    head.size = 3 << 20
    path.write_bytes(pack(head.tobuf() + bytes(3 << 20) + good))
    assert "bomb" in refused(class_tar, path)
    head = tarfile.TarInfo("a/1.png")
    head.size = 1 << 40
    path.write_bytes(pack(head.tobuf()))
    assert "too large" in refused(class_tar, path)
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, 1 << 33
    path.write_bytes(pack(pax.tobuf() + bytes(1 << 20)))
    assert refused(class_tar, path)
    for damage in (b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", pack(good)[:40]):
        path.write_bytes(damage)
        assert refused(class_tar, path)


def test_a_stream_gives_no_more_than_it_may():
    stream = Bounded(io.BytesIO(bytes(100)), 50)
    assert len(stream.read(50)) == 50
    for call in (stream.read, stream.seek):
        with pytest.raises(ValueError, match="bomb"):
            call(51)


@pytest.mark.parametrize(
    "shape", [(2**32 - 1, 28, 28), (10**9, 1, 1), (60_000, 28, 28), (0, 28, 28), (1, 2**31, 2)]
)
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_idx_files_that_claim_more_than_they_have(tmp_path, shape, pack):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(pack(struct.pack(">4I", 0x803, *shape) + bytes(1000)))
    assert refused(idx, tmp_path)


def test_folders_that_are_repeated_too_often(tmp_path):
    folder = tmp_path / "999999_x"
    folder.mkdir()
    for number in range(11):
        (folder / f"{number}.png").write_bytes(picture())
    assert "repeated 10,999,989 times altogether" in refused(open_data, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
def test_pipes_among_the_pictures(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture())
        (tmp_path / name / "2.png").write_bytes(picture())
    os.mkfifo(tmp_path / "a" / "3.jpg")
    (tmp_path / "a" / "4.jpg").symlink_to("/dev/zero")
    found = open_data(tmp_path)
    pixels, kept = found.readable(list(range(len(found))), 8)
    assert pixels.shape == (4, 3, 8, 8)
    assert kept == [0, 1, 4, 5]
    os.mkfifo(tmp_path / "metadata.jsonl")
    assert "pipe" in refused(open_data, tmp_path)


def test_ranges_of_shards_multiply():
    assert len(expand("{0..9}/{00..09}.tar")) == 100
    assert "at most" in refused(expand, "{0..999}/{0..999}/{0..999}.tar")
    assert "at most" in refused(expand, "{0..99999999999}.tar")


@pytest.mark.parametrize(
    "row",
    [
        "[" * 100_000,
        '{"file_name": 5}',
        '{"file_name": "../x.png"}',
        '{"file_name": "x.png", "text": ' + "9" * 5000 + "}",
        '{"file_name": "x.png", "label": NaN}',
        '{"file_name": "\\u0000.png"}',
    ],
)
def test_rows_of_metadata(tmp_path, row):
    (tmp_path / "metadata.jsonl").write_text(row)
    try:
        found = open_data(tmp_path)
        list(found.raw([0]))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("was taken")
