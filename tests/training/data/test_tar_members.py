"""Where things lie in a tar, against Python's tarfile; and damage, which it passes over."""

import io
import shutil
import subprocess
import tarfile

import pytest

from darkroom.errors import DataError
from darkroom.training.data.tar_members import members
from training.data.data_sets import add

LONG = "folder/" * 30 + "ein-Bild-Ü.jpg"
FORMS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}


def tar_of(path, form, names):
    with tarfile.open(path, "w", format=FORMS[form]) as tar:
        for i, name in enumerate(names):
            add(tar, name, bytes([i]) * (i * 300), mtime=1.5 if form == "pax" else 1)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_members_are_where_tarfile_finds_them(tmp_path, form):
    names = ["a.jpg", "./b/c.txt", "b/" + "x" * 90 + "/d.json", "e.cls"]
    names += [] if form == "ustar" else [LONG]
    path = tar_of(tmp_path / "x.tar", form, names)
    with tarfile.open(path) as tar:
        expected = [(m.name.removeprefix("./"), m.offset_data, m.size) for m in tar]
    assert [tuple(member) for member in members(path)] == expected
    data = path.read_bytes()
    for i, (_, offset, size) in enumerate(members(path)):
        assert data[offset : offset + size] == bytes([i]) * (i * 300)


@pytest.mark.skipif(not shutil.which("tar"), reason="no tar here")
@pytest.mark.parametrize("form", ["v7", "ustar", "pax", "gnu"])
def test_what_the_tar_command_writes(tmp_path, form):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("1.jpg", "deep/2.txt", *(["deep/" + "y" * 120] if form in ("pax", "gnu") else [])):
        (tmp_path / "in" / name).write_bytes(name.encode())
    (tmp_path / "in" / "link").symlink_to("1.jpg")
    command = ["tar", f"--format={form}", "-cf", tmp_path / "x.tar", "-C", tmp_path / "in", "."]
    subprocess.run(command, check=True)
    data = (tmp_path / "x.tar").read_bytes()
    found = {
        m.name: data[m.offset : m.offset + m.size].decode() for m in members(tmp_path / "x.tar")
    }
    assert len(found) == (3 if form in ("pax", "gnu") else 2)
    assert all(name == text for name, text in found.items())


def test_a_large_size_in_binary(tmp_path):
    """GNU writes sizes from 8 GB on in binary; the file is sparse."""
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("big.bin")
    info.size = 9 << 30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + info.size)
        file.seek(512 + info.size)
        small = tarfile.TarInfo("a.txt")
        file.write(small.tobuf() + bytes(1024))
    assert [(m.name, m.size) for m in members(path)] == [("big.bin", 9 << 30), ("a.txt", 0)]


def test_links_devices_and_folders_are_passed_over(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE):
            add(tar, f"thing{kind.decode()}.jpg", b"", type=kind, linkname="/etc/passwd")
        add(tar, "real.jpg", b"data")
    assert [m.name for m in members(path)] == ["real.jpg"]


def test_names_that_lead_elsewhere_are_only_names(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "../../escape.jpg", b"1")
        add(tar, "/tmp/absolute.jpg", b"2")
    assert len(list(members(path))) == 2
    assert [p.name for p in tmp_path.rglob("*")] == ["x.tar"]


def sparse_claim() -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.size = 10 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)


def long_extension() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3 << 20
    return info.tobuf() + bytes(4 << 20)


def bad_records() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 10
    return info.tobuf() + b"99 path=a\n".ljust(512, b"\0") + bytes(1024)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda good: good[:700], "byte 0: a file of 1,000 bytes is cut off at 700"),
        (lambda good: good[:1536], "byte 1,536: ends without its end mark"),
        (lambda good: good[:1700], "byte 1,536: a header is cut off"),
        (lambda good: good[:1540] + b"\xff" + good[1541:], "byte 1,536: no tar header"),
        (lambda good: b"JFIF" * 500, "byte 0: no tar header"),
        (lambda good: b"\x1f\x8b" + bytes(600), "compressed; unpack it"),
        (lambda good: sparse_claim(), "10,737,418,240 bytes is cut off"),
        (lambda good: long_extension(), "extended header of 3,145,728 bytes"),
        (lambda good: bad_records(), "extended header is malformed"),
        (lambda good: b"", "a header is cut off"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path, damage, message):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        add(tar, "a.jpg", b"x" * 1000)
        add(tar, "b.jpg", b"y" * 1000)
    path = tmp_path / "x.tar"
    path.write_bytes(damage(file.getvalue()))
    with pytest.raises(DataError, match=message) as caught:
        list(members(path))
    assert "x.tar" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_cut_and_every_flipped_header_byte_is_an_error_or_harmless(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, LONG, b"x" * 100)
        add(tar, "b.jpg", b"y" * 100, mtime=2.5)
    good, path = file.getvalue(), tmp_path / "x.tar"
    for end in range(0, len(good), 97):
        path.write_bytes(good[:end])
        _try(path)
    for at in range(0, 3000, 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xA5]) + good[at + 1 :])
        _try(path)


def _try(path):
    try:
        found = list(members(path))
    except DataError:
        return
    assert all(0 <= m.size and m.offset + m.size <= path.stat().st_size for m in found)
