"""``data check`` and ``data fetch``."""

import json
from pathlib import Path

from recipes.test_recipes import AUTOENCODER, write
from training.data.data_sets import picture, shard
from weights.hub_server import COMMIT, Hub, serving


def test_data_check(darkroom):
    Path("set").mkdir()
    for i in range(3):
        Path(f"set/{i}.png").write_bytes(picture(i))
    Path("set/3.png").write_bytes(picture(0))
    Path("set/4.png").write_bytes(b"broken")
    Path("set/0.txt").write_text("a thing")
    ended = darkroom("data", "check", "set")
    assert ended.code == 0, ended.err
    lines = dict(line.split("\t") for line in ended.out.splitlines()[1:])
    assert lines["usable"] == "4"
    assert lines["unreadable"] == "1: 4.png (no image)"
    assert lines["duplicates"] == "1: 3.png (as 0.png)"
    assert lines["without caption"].startswith("4: 1.png, 2.png")
    assert "1 unreadable, 1 duplicates, 4 without caption" in ended.err
    answer = darkroom("data", "check", "set", "--size", "21", "--json").answer
    assert (answer["items"], answer["usable"]) == (5, 0)
    assert answer["problems"]["tiny"]["0.png"] == "24x20"
    assert answer["exit_code"] == 3


def test_nothing_usable(darkroom):
    assert darkroom("data", "check", "nowhere").code == 3
    Path("set").mkdir()
    assert "no data set that is known" in darkroom("data", "check", "set").error
    Path("set/1.png").write_bytes(b"broken")
    ended = darkroom("data", "check", "set")
    assert ended.code == 3
    assert "none of 1 items is usable" in ended.error
    assert darkroom("data", "check", "set", "--split", "half").code == 2


def test_shards_and_their_damage(darkroom):
    Path("laion").mkdir()
    for n in range(2):
        shard(Path(f"laion/{n:05}.tar"), "ab", start=2 * n)
    ended = darkroom("data", "check", "laion/{00000..00001}.tar", "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["kind"] == "webdataset"
    assert ended.answer["items"] == 4
    assert not any(ended.answer["problems"].values())
    Path("laion/00001.tar").write_bytes(Path("laion/00001.tar").read_bytes()[:900])
    ended = darkroom("data", "check", "laion")
    assert ended.code == 3
    assert "laion/00001.tar: damaged at byte 0" in ended.error
    assert json.dumps(ended.err).count("Traceback") == 0


def test_training_says_what_it_leaves_out(darkroom):
    Path("set").mkdir()
    for i in range(4):
        Path(f"set/{i}.png").write_bytes(picture(i) if i != 2 else b"broken")
    path = write(Path(), AUTOENCODER, data="set", out="run", steps=2)
    said = (
        "note: 1 of 4 pictures cannot be read and is left out: 2.png; "
        "`darkroom data check set` lists all"
    )
    assert said in darkroom("train", path, "--dry-run").err.splitlines()
    ended = darkroom("train", path)
    assert ended.code == 0, ended.err
    assert said in ended.err.splitlines()
    for i in range(3):
        Path(f"set/{i}.png").write_bytes(b"broken")
    ended = darkroom("train", path, "--out", "other")
    assert ended.code == 3
    assert "set: 3 of 4 pictures cannot be read, such as 0.png, 1.png, 2.png" in ended.error


def test_public_sets_are_listed_with_their_licences(darkroom):
    ended = darkroom("data", "fetch")
    assert ended.code == 0
    assert "mnist\t70,000 handwritten digits" in ended.out and "CC-BY-SA" in ended.out
    sets = darkroom("data", "fetch", "--json").answer["sets"]
    assert {"cifar10", "flowers", "noto-emoji", "camvid"} <= {one["name"] for one in sets}
    ended = darkroom("data", "fetch", "minst")
    assert (ended.code, "did you mean 'mnist'?" in ended.error) == (2, True)
    ended = darkroom("data", "fetch", "flickr8k")
    assert (ended.code, "for research only" in ended.error) == (2, True)


def test_fetch_checks_what_it_brings(darkroom):
    with serving(Hub({"train-images-idx3-ubyte.gz": b"something else"})) as hub:
        mirror = f"{hub.url}/owner/name/resolve/{COMMIT}"
        ended = darkroom("data", "fetch", "mnist", "--mirror", mirror)
    assert ended.code == 3
    assert "14 bytes, expected 9,912,422; what was fetched is deleted" in ended.error
    assert "licence: CC-BY-SA-3.0" in ended.err
    assert not Path("data/mnist").exists()
    ended = darkroom("data", "fetch", "mnist", "--mirror", "nowhere")
    assert (ended.code, "no such file" in ended.error) == (3, True)
